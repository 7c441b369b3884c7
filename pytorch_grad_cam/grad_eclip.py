"""Grad-ECLIP (Zhao et al. 2024, arXiv:2502.18816)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from pytorch_grad_cam.attention.attended import Attended, AttendedBlock
from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.engine.maps import full_precision


def loosened_attention(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    r"""Eq. 9: $\lambda_{qi}$, the cosine of query and key, for each query from 0 at its lowest key to 1 at its highest.

    query, key: (B, T, C), the heads side by side. Returns (B, T, T).
    """
    cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
    lowest, highest = cosine.amin(-1, keepdim=True), cosine.amax(-1, keepdim=True)
    return (cosine - lowest) / (highest - lowest).clamp_min(torch.finfo(cosine.dtype).tiny)


def grad_eclip_relevance(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, of_output: torch.Tensor
) -> torch.Tensor:
    r"""Eq. 8: $ReLU(\sum_c \frac{\partial s}{\partial o_c} \lambda_i v_{ic})$ at each key i.

    All (B, T, C), the heads side by side. The gradient is that of the class token's output $o$; other queries count as
    well where the score reads them, and have no gradient where it does not. Returns (B, T).
    """
    weighted = torch.einsum("bqi,bqc->bic", loosened_attention(query, key), of_output)
    return (weighted * value).sum(-1).relu()


class GradECLIP(AttentionCAM):
    """The last block's values, weighted by the gradient of what its attention gives and by how alike the class token's
    query and each key are.

    Similar keys count as much as the softmax lets few of them. The block is the last one, or those of `target_layers`,
    whose maps are summed.

    When to take it: for CLIP and its kin, to see which part of an image a text means; the cheapest method with
    gradients here.

    Cost: one forward, one backward to the last block's attention. Memory: N x heads x T x T weights of that block.
    Paper: Zhao et al. 2025, https://arxiv.org/abs/2502.18816.
    """

    last_blocks = 1
    reads_output = True

    def relevance(self, attended: Attended) -> torch.Tensor:
        of_blocks = [
            block.at_tokens(grad_eclip_relevance(*_parts(block)), attended.tokens) for block in attended.blocks
        ]
        return torch.stack(of_blocks).sum(0)


def _parts(block: AttendedBlock) -> list[torch.Tensor]:
    """Query, key, value and the output's gradient, each (B, T, C)."""
    attention = block.attention
    parts: tuple[Any, ...] = (attention.query, attention.key, attention.value, block.of_output)
    return [full_precision(block.of_heads(part)).transpose(1, 2).flatten(2) for part in parts]

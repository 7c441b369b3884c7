"""Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from pytorch_grad_cam.attention.attended import Attended
from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.attention.attention_capture import MeanCapture


def rolled_out(attentions: Iterable[torch.Tensor], reads: torch.Tensor) -> torch.Tensor:
    r"""Eq. 1: $\tilde A_l = A_l \tilde A_{l-1}$, each $A_l$ being $A + I$ with rows that sum to one; of the whole
    product the mean $r$ of the rows that are read, from the last block on: $r \leftarrow r A_l$.

    attentions: (N, T, T) each, the last block's first. reads: (T,), the share of each row. Returns (N, T).
    """
    row: torch.Tensor | None = None
    for attention in attentions:
        read = reads.to(attention).expand(len(attention), -1) if row is None else row
        share = read / (attention.sum(-1) + 1)
        row = torch.einsum("nq,nqk->nk", share, attention) + share
    if row is None:
        raise ValueError("no attention to roll out")
    return row


class AttentionRollout(AttentionCAM):
    """How the tokens flow into the one that the score reads: the product of the blocks' attention and residuals, each
    block's the mean over its heads, at the class token's row.

    Where the score reads all tokens the mean of their rows is taken.

    When to take it: where there are no gradients (quantised models, models that are served), or to see what a
    transformer attends to whatever the class. It knows no class.

    Cost: one forward, with attention that is not fused. Memory: N x T x T weights for each block. Raises ValueError
    for attention within windows and for pyramids, whose tokens are not one sequence.
    Paper: Abnar & Zuidema 2020, https://arxiv.org/abs/2005.00928.
    """

    uses_gradients = uses_targets = False
    one_sequence = True
    capture_of_blocks = MeanCapture

    def relevance(self, attended: Attended) -> torch.Tensor:
        return rolled_out((block.weights.mean(1) for block in reversed(attended.blocks)), attended.reads)

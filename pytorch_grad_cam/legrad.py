"""LeGrad (Bousselham et al. 2024, arXiv:2404.03214)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytorch_grad_cam.attention.attended import Attended
from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.attention.block_scores import BlockScores
from pytorch_grad_cam.engine.layer_run import Call
from pytorch_grad_cam.engine.targets import target_scores


def legrad_relevance(gradients: torch.Tensor) -> torch.Tensor:
    r"""Eqs. 5 and 6: $E^l_k = \frac{1}{h T} \sum_{head, q} ReLU(\partial s^l / \partial A^l_{head, q, k})$.

    (B, heads, T, T) to (B, T).
    """
    return gradients.relu().mean((1, 2))


class LeGrad(AttentionCAM):
    r"""How sensitive the score of each block is to its attention: $L = \frac{1}{l} \sum_l E^l$ at the image's tokens.

    A block's score $s^l$ is what the model's part behind the last block makes of the block's mean token. The blocks are
    the last two, as in the authors' code, or those of `target_layers`; blocks whose attention is within windows are put
    back in place.

    When to take it: the first choice for vision transformers and CLIP. One map of positive evidence, sharp, cheap, and
    defined for pyramids of windows, too.

    Cost: one forward, and one backward through each of the blocks; where the model's part behind the blocks knows how
    many images there are, one forward more for each block. Memory: N x heads x T x T weights for each block.
    Paper: Bousselham et al. 2024, https://arxiv.org/abs/2404.03214.
    """

    capture_of_blocks = BlockScores
    last_blocks = 2

    def relevance(self, attended: Attended) -> torch.Tensor:
        of_blocks = [block.at_tokens(legrad_relevance(block.gradients), attended.tokens) for block in attended.blocks]
        return torch.stack(of_blocks).mean(0)

    def gradients(self, call: Call, capture: Any, position: int) -> tuple[Sequence[Any], Sequence[Any]]:
        found: dict[int, Any] = {}
        for block, outputs in zip(capture.tower.blocks, capture.of_blocks, strict=True):
            scores = call.output_transform(outputs)
            score = target_scores(scores, call.target_lists[position]).sum()
            places = [place for place, attended in enumerate(capture.attentions) if attended.block is block]
            weights = [capture.attentions[place].attention.weights for place in places]
            found.update(zip(places, capture.derivatives(score, weights, keep_graph=True), strict=True))
        return [found[place] for place in range(len(found))], [None] * len(found)

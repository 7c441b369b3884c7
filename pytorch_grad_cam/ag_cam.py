"""AG-CAM, attention-guided CAM (Leem & Seo 2024, arXiv:2402.04563)."""

from __future__ import annotations

from typing import cast

import torch

from pytorch_grad_cam.attention.attended import Attended, by_image
from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.engine.maps import full_precision


def attention_guided(gradients: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    r"""Eqs. 6 to 8: $\sum_h ReLU(\partial y / \partial A_h) \odot sigmoid(Q_h K_h^T)$, both of the row that is read.

    (N, heads, T) to (N, T).
    """
    return (gradients.relu() * scores.sigmoid()).sum(1)


class AGCAM(AttentionCAM):
    """The positive gradients of the class token's attention, guided by the attention itself, summed over all blocks and
    heads.

    The attention is taken before its softmax, through a sigmoid, so that one strong token does not hide the others.
    Where the score reads all tokens, the mean of their rows is taken.

    When to take it: for a transformer with a class token that shall mark several objects of the class.

    Cost: one forward, one backward of the blocks. Memory: N x heads x T x T weights for each block. Raises ValueError
    for attention within windows and for pyramids.
    Paper: Leem & Seo 2024, https://arxiv.org/abs/2402.04563.
    """

    one_sequence = True

    def relevance(self, attended: Attended) -> torch.Tensor:
        images = len(attended.blocks[0].weights)
        of_blocks = [
            attention_guided(
                attended.read_rows(block.gradients),
                attended.read_rows(full_precision(by_image(cast(torch.Tensor, block.attention.scores), images))),
            )
            for block in attended.blocks
        ]
        return torch.stack(of_blocks).sum(0)

"""Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from pytorch_grad_cam.attention.attended import Attended
from pytorch_grad_cam.attention.attention_cam import AttentionCAM


def rolled_out(attentions: Iterable[torch.Tensor]) -> torch.Tensor:
    r"""Eq. 1: $\tilde A_l = A_l \tilde A_{l-1}$, each $A_l$ being $A + I$ with rows that sum to one. (N, T, T) each."""
    total: torch.Tensor | None = None
    for attention in attentions:
        with_residual = attention + torch.eye(attention.shape[-1]).to(attention)
        rows = with_residual / with_residual.sum(-1, keepdim=True)
        total = rows if total is None else rows @ total
    if total is None:
        raise ValueError("no attention to roll out")
    return total


class AttentionRollout(AttentionCAM):
    """How the tokens flow into the one that the score reads: the product of the blocks' attention and residuals, each
    block's the mean over its heads, at the class token's row.

    Where the score reads all tokens the mean of their rows is taken.

    When to take it: where there are no gradients (quantised models, models that are served), or to see what a
    transformer attends to whatever the class. It knows no class.

    Cost: one forward. Memory: N x heads x T x T weights for each block. Raises ValueError for attention within windows
    and for pyramids, whose tokens are not one sequence.
    Paper: Abnar & Zuidema 2020, https://arxiv.org/abs/2005.00928.
    """

    uses_gradients = uses_targets = False
    one_sequence = True

    def relevance(self, attended: Attended) -> torch.Tensor:
        return attended.read_rows(rolled_out(block.weights.mean(1) for block in attended.blocks))

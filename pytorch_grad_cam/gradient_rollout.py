"""Gradient attention rollout (Gildenblat 2020, https://jacobgil.github.io/deeplearning/vision-transformer-explainability)."""

from __future__ import annotations

import torch

from pytorch_grad_cam.attention.attended import Attended
from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.attention_rollout import rolled_out


def weighted_attention(weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    r"""The mean over the heads of $A \odot ReLU(\partial y / \partial A)$: (N, heads, T, T) to (N, T, T)."""
    return (weights * gradients.relu()).mean(1)


class GradientRollout(AttentionCAM):
    """Attention rollout of the attention that speaks for the class: each block's is multiplied with what is positive of
    its gradient.

    Departs from the author's code, which takes the mean over the heads before what is negative is dropped.

    When to take it: where a rollout should know the class. TransMM, which adds instead of multiplying rows that sum to
    one, is mostly sharper.

    Cost: one forward, one backward of the blocks. Memory and errors as `AttentionRollout`.
    Paper: none, Gildenblat 2020, https://jacobgil.github.io/deeplearning/vision-transformer-explainability.
    """

    one_sequence = True

    def relevance(self, attended: Attended) -> torch.Tensor:
        speaking = (weighted_attention(block.weights, block.gradients) for block in reversed(attended.blocks))
        return rolled_out(speaking, attended.reads)

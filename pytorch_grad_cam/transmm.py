"""TransMM, generic attention-model explainability (Chefer, Gur & Wolf 2021, arXiv:2103.15679)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from pytorch_grad_cam.attention.attended import Attended
from pytorch_grad_cam.attention.attention_cam import AttentionCAM


def speaking_attention(weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    r"""Eq. 5: $\bar A = E_h[(\nabla A \odot A)^+]$, the mean over the heads. (N, heads, T, S) to (N, T, S)."""
    return (gradients * weights).relu().mean(1)


def self_attention_relevance(attentions: Iterable[torch.Tensor]) -> torch.Tensor:
    r"""Eqs. 1 and 6: $R = I$, then for each block $R \leftarrow R + \bar A R$. $\bar A$: (N, T, T) each."""
    relevance: torch.Tensor | None = None
    for attention in attentions:
        if relevance is None:
            relevance = torch.eye(attention.shape[-1]).to(attention).expand_as(attention)
        relevance = relevance + attention @ relevance
    if relevance is None:
        raise ValueError("no attention to follow")
    return relevance


class TransMM(AttentionCAM):
    """The relevance of the image's tokens for the token that the score reads, block by block, in its form for
    self-attention.

    Where the score reads all tokens the mean of their rows is taken.

    When to take it: for a transformer's class, where the whole way from the patches to the score should count and not
    the last blocks alone (LeGrad).

    Cost: one forward, one backward of the blocks. Memory: N x heads x T x T weights for each block. Raises ValueError
    for attention within windows and for pyramids, whose tokens are not one sequence.
    Paper: Chefer, Gur & Wolf 2021, https://arxiv.org/abs/2103.15679.
    """

    one_sequence = True

    def relevance(self, attended: Attended) -> torch.Tensor:
        speaking = (speaking_attention(block.weights, block.gradients) for block in attended.blocks)
        return attended.read_rows(self_attention_relevance(speaking))

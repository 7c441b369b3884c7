"""TransMM, generic attention-model explainability (Chefer, Gur & Wolf 2021, arXiv:2103.15679)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from pytorch_grad_cam.attention.attended import Attended, AttendedBlock
from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.attention.attention_capture import DecoderCapture


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


def without_residual(relevance: torch.Tensor) -> torch.Tensor:
    r"""Eqs. 8 and 9: $\bar R = (R - I) / S + I$, $S$ the sums of the rows of $R - I$. (N, T, T)."""
    identity = torch.eye(relevance.shape[-1]).to(relevance)
    gained = relevance - identity
    sums = gained.sum(-1, keepdim=True)
    return gained / sums.masked_fill(sums == 0, 1) + identity


def queries_relevance(of_tokens: torch.Tensor, decoder: Iterable[torch.Tensor]) -> torch.Tensor:
    r"""Eqs. 6, 7 and 10 for the queries q of a decoder on tokens i: where they attend to each other
    $R^{qi} \leftarrow R^{qi} + \bar A R^{qi}$ and $R^{qq} \leftarrow R^{qq} + \bar A R^{qq}$, where they attend to the
    tokens $R^{qi} \leftarrow R^{qi} + (\bar R^{qq})^T \bar A \bar R^{ii}$.

    of_tokens: $R^{ii}$ (N, T, T). decoder: the $\bar A$, (N, Q, Q) or (N, Q, T), in their order. Returns (N, Q, T).
    """
    normalised = without_residual(of_tokens)
    of_queries: torch.Tensor | None = None
    relevance: torch.Tensor | None = None
    for attention in decoder:
        queries, keys = attention.shape[-2:]
        if of_queries is None or relevance is None:
            of_queries = torch.eye(queries).to(attention).expand(len(attention), -1, -1)
            relevance = attention.new_zeros(len(attention), queries, of_tokens.shape[-1])
        if keys == queries:
            relevance = relevance + attention @ relevance
            of_queries = of_queries + attention @ of_queries
        else:
            relevance = relevance + without_residual(of_queries).mT @ attention @ normalised
    if relevance is None:
        raise ValueError("no attention to follow")
    return relevance


def read_rows(relevance: torch.Tensor, last_gradients: torch.Tensor) -> torch.Tensor:
    """The rows that the score reads, which are those whose last attention has a gradient: their mean. (N, Q, T) and
    (N, heads, Q, S) to (N, T).
    """
    reads = (last_gradients.abs().amax((1, 3)) > 0).to(relevance)
    shares = reads / reads.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("nq,nqk->nk", shares, relevance)


def decoder_in(behind: Sequence[AttendedBlock], tokens: int) -> list[AttendedBlock]:
    """The attentions of queries among themselves and to all the tokens; none where there are not both."""
    across = [each for each in behind if each.weights.shape[-1] == tokens != each.weights.shape[-2]]
    if not across:
        return []
    queries = across[-1].weights.shape[-2]
    among = [each for each in behind if each.weights.shape[-2:] == (queries, queries)]
    fitting = {id(each) for each in [*across, *among] if each.weights.shape[-2] == queries}
    return [each for each in behind if id(each) in fitting] if among else []


class TransMM(AttentionCAM):
    """The relevance of the image's tokens for what the score reads, block by block.

    Of a model with self-attention alone it is that for the token that the score reads; where it reads all tokens the
    mean of their rows. Of an encoder and a decoder (the DETR family) it is that for the query of the box that is asked
    for. For CLIP that of the image's tokens; that of the text's is `TextRelevance`.

    Departs from the authors' code for DETR where a query has gained nothing from the others: it is normalised to NaN
    there, and all that the queries see in that layer is left out; here its row stays.

    When to take it: for a transformer's class, where the whole way from the patches to the score should count and not
    the last blocks alone (LeGrad).

    Cost: one forward, one backward of the blocks and what is behind them. Memory: N x heads x T x T weights for each
    block. Raises ValueError for attention within windows and for pyramids, whose tokens are not one sequence.
    Paper: Chefer, Gur & Wolf 2021, https://arxiv.org/abs/2103.15679.
    """

    capture_of_blocks = DecoderCapture
    one_sequence = True

    def relevance(self, attended: Attended) -> torch.Tensor:
        of_tokens = self_attention_relevance(_speaking(attended.blocks))
        decoder = decoder_in(attended.behind, attended.tokens)
        if not decoder:
            return attended.read_rows(of_tokens)
        return read_rows(queries_relevance(of_tokens, _speaking(decoder)), decoder[-1].gradients)


def _speaking(blocks: Iterable[AttendedBlock]) -> Iterable[torch.Tensor]:
    return (speaking_attention(block.weights, block.gradients) for block in blocks)

"""One attention of a forward: softmax(Q K^T) V with its weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

_HEADS = -3


class Attention(NamedTuple):
    """One attention as the model computed it; the axes in front of the last two are the model's own.

    weights: behind the softmax, (..., T, S) of T queries and S keys. scores: in front of it, with the mask.
    query (..., T, d), key (..., S, d), value (..., S, e), output (..., T, e); grouped keys and values as many as the
    queries' heads. None where the model multiplies in another way, or nobody reads them.
    """

    weights: torch.Tensor
    scores: torch.Tensor | None = None
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None
    output: torch.Tensor | None = None


def attention_scores(
    query: torch.Tensor,
    key: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """Q K^T / sqrt(d), or times `scale`, with the mask: what `F.scaled_dot_product_attention` takes the softmax of."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * scale) @ key.mT
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is None:
        return scores
    return scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask


def attention_weights(scores: torch.Tensor, masked: bool) -> torch.Tensor:
    """The softmax over the keys, in float32 or better; zeros for queries that may see no key.

    masked: whether there may be such queries.
    """
    precise = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else scores.dtype
    if not masked:
        return scores.softmax(-1, dtype=precise).to(scores.dtype)
    sees_none = scores.isneginf().all(-1, keepdim=True)
    weights = scores.masked_fill(sees_none, 0).softmax(-1, dtype=precise)
    return weights.masked_fill(sees_none, 0).to(scores.dtype)


def for_each_head(of_groups: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Keys or values (..., groups, S, d), each group's for all the heads (..., heads, T, d) that share it."""
    repeats = query.shape[_HEADS] // of_groups.shape[_HEADS]
    return of_groups if repeats == 1 else of_groups.repeat_interleave(repeats, _HEADS)


def attended(weights: torch.Tensor, value: torch.Tensor, dropout_p: float) -> torch.Tensor:
    """The values' mean by the weights, of which dropout takes some, as it does in the fused operation."""
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value

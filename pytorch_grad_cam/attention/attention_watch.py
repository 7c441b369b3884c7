"""Every attention that a model computes in this thread, fused or not, with its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from pytorch_grad_cam.attention.attentions import (
    Attention,
    attended,
    attention_scores,
    attention_weights,
    for_each_head,
)
from pytorch_grad_cam.engine.torch_quirks.as_written import as_written

Tensor = torch.Tensor
_SOFTMAXES = {torch.softmax, Tensor.softmax, F.softmax}
_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.baddbmm, torch.einsum}
_LEAST_AXES = 3  # (N * heads, T, S)


class AttentionWatch(TorchFunctionMode):
    """Within, `keep` is asked of the weights of each attention, and gives those that the model goes on with.

    It watches the calls of PyTorch's functions, not modules: `F.scaled_dot_product_attention` is computed as
    softmax(Q K^T) V, `nn.MultiheadAttention` by its plain path, which both PyTorch and this class leave the fast one
    for; in eager code it is a softmax over the last axis whose result multiplies values, whatever casts, masks and
    mixes heads in between. Other threads, and what scripted or compiled code computes, are not seen. The model's own
    switches of gradients (`no_grad`) are without effect: the caller's hold.

    Memory: N x heads x T x S weights for each attention that is kept.

    keep: from the weights to those in their place; None leaves the attention as it is. seen: gets each that was kept.
    """

    def __init__(self, keep: Callable[[Tensor], Tensor | None], seen: Callable[[Attention], None]) -> None:
        super().__init__()
        self._keep, self._seen = keep, seen
        # Of the softmax that may be an attention's: its input, what was kept, and by their ids what was made of it, and
        # of the one before it, if that has weighed no values yet.
        self._softmax: tuple[Tensor, Tensor] | None = None
        self._made_of_it: dict[int, Tensor] = {}
        self._made_of_earlier: dict[int, Tensor] = {}
        self._factors: tuple[Any, Tensor, Tensor] | None = None  # of the last product: (function, left, right)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch._C._set_grad_enabled:
            return None
        if function is F.multi_head_attention_forward:
            with self:
                return _multi_head_attention_as_written(*args, **kwargs)
        if function is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        result = function(*args, **kwargs)
        if function in _SOFTMAXES:
            return self._of_softmax(result, *args, **kwargs)
        if function in _PRODUCTS:
            *_, left, right = (None, None, *(arg for arg in args if isinstance(arg, Tensor)))
            if left is not None and right is not None:
                self._of_product(function, left, right, result)
        elif self._made_of_it and args and isinstance(result, Tensor):
            self._follow(args, result)
        return result

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            key, value = for_each_head(key, query), for_each_head(value, query)
        scores = attention_scores(query, key, attn_mask, is_causal, scale)
        weights = attention_weights(scores, masked=attn_mask is not None)
        kept = self._keep(weights)
        output = attended(weights if kept is None else kept, value, dropout_p)
        if kept is not None:
            self._seen(Attention(kept, scores, query, key, value, output))
        return output

    def _of_softmax(self, weights: Tensor, scores: Tensor, dim: int | None = None, *_: Any, **kwargs: Any) -> Tensor:
        self._made_of_earlier = self._made_of_it if self._softmax else {}
        self._softmax, self._made_of_it = None, {}
        axis = kwargs.get("dim", dim)
        if weights.ndim < _LEAST_AXES or axis not in (-1, weights.ndim - 1):
            return weights
        kept = self._keep(weights)
        if kept is None:
            return weights
        self._softmax = scores, kept
        self._made_of_it[id(kept)] = kept
        return kept

    def _follow(self, args: tuple[Any, ...], result: Tensor) -> None:
        """A cast, a mask, another order of the axes: still the weights; not what is made of two softmaxes, as in
        differential attention.
        """
        made, earlier = self._made_of_it, self._made_of_earlier
        if any(id(arg) in made for arg in args) and any(id(arg) in earlier for arg in args):
            self._softmax, self._made_of_it, self._made_of_earlier = None, {}, {}
            return
        for known in (made, earlier):
            if id(args[0]) in known and result.numel() == args[0].numel() and result.is_floating_point():
                known[id(result)] = result

    def _of_product(self, function: Any, left: Tensor, right: Tensor, result: Tensor) -> None:
        if self._softmax is None or self._made_of_it.keys().isdisjoint((id(left), id(right))):
            self._factors = function, left, right
            return
        scores, weights = self._softmax
        parts = self._parts(scores, right, result) if id(left) in self._made_of_it else ()
        self._softmax, self._factors = None, None
        self._made_of_it.clear()
        self._seen(Attention(weights, scores, *parts))

    def _parts(self, scores: Tensor, value: Tensor, output: Tensor) -> tuple[Tensor, ...]:
        """Query, key, value and output, if their axes are those of the scores, as in softmax(Q K^T) V."""
        if self._factors is None:
            return ()
        function, query, key = self._factors
        key = key if function is torch.einsum else key.mT
        front, (queries, keys) = scores.shape[:-2], scores.shape[-2:]
        expected = [(query, queries), (key, keys), (value, keys), (output, queries)]
        fits = all(part.shape[:-1] == (*front, tokens) for part, tokens in expected)
        return (query, key, value, output) if fits and query.shape[-1] == key.shape[-1] else ()


_multi_head_attention_as_written = as_written(F.multi_head_attention_forward)

"""The backward pass without rows of zeros: of tokens behind a class token, of regions that are not asked about."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WORTH_LOOKING = 64
TOKENS_NDIM = 3  # (N, T, C)


def gradients_without_zero_rows(
    score: torch.Tensor, wanted: Sequence[torch.Tensor], keep_graph: bool
) -> Sequence[torch.Tensor | None]:
    """The gradients of a score, computed as `SkipZeroRows` does where there are enough tokens (N, T, C) on the CPU."""
    tokens = wanted[0]
    are_tokens = tokens.ndim == TOKENS_NDIM and tokens.device.type == "cpu"
    pays = are_tokens and tokens.shape[0] * tokens.shape[1] >= _WORTH_LOOKING
    with SkipZeroRows() if pays else nullcontext():
        return torch.autograd.grad(score, wanted, retain_graph=keep_graph, allow_unused=True)


class SkipZeroRows(TorchDispatchMode):
    """Linear layers, GELUs and RoIAlign are differentiated only where their gradient is not zero; the results are the
    same.

    The score of a ViT with a class token depends on one row of 197 of all that follows the last attention, which is
    three quarters of the last block's backward; that of a box on one of a thousand regions. For the CPU: elsewhere
    looking would wait for the device.
    """

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        by_rows = _BY_ROWS.get(function.name())
        result = None if by_rows is None else by_rows(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {})) if result is None else result


def _mm(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
    rows = _few_rows(gradient)
    if rows is None:
        return None
    return gradient.new_zeros(len(gradient), weight.shape[1]).index_copy_(0, rows, gradient[rows] @ weight)


def _gelu_backward(gradient: torch.Tensor, x: torch.Tensor, **options: Any) -> torch.Tensor | None:
    if gradient.ndim < 2:
        return None
    flat = gradient.flatten(0, -2)
    rows = _few_rows(flat)
    if rows is None:
        return None
    result = torch.ops.aten.gelu_backward(flat[rows], x.reshape(flat.shape)[rows], **options)
    return torch.zeros_like(flat).index_copy_(0, rows, result).reshape(x.shape)


def _few_rows(gradient: torch.Tensor) -> torch.Tensor | None:
    """The rows of (R, D) that are not zero where they are fewer than half of them."""
    if gradient.device.type != "cpu" or gradient.layout != torch.strided or len(gradient) < _WORTH_LOOKING:
        return None
    # NumPy looks into the same memory: nothing that waits for a device is ever asked of PyTorch here.
    rows = torch.from_numpy(np.flatnonzero(gradient.any(1).numpy()))
    return rows if 2 * len(rows) < len(gradient) else None


def _attention_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    dropout: float,
    is_causal: bool,
    *,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, ...] | None:
    """Queries (N, heads, L, D) whose result has no gradient change neither keys nor values."""
    if is_causal or attn_mask is not None:
        return None
    rows = _few_rows(gradient.any(3).flatten(0, 1).T)
    if rows is None:
        return None
    of_rows, of_keys, of_values = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *(tensor[:, :, rows].contiguous() for tensor in (gradient, query)),
        key,
        value,
        *(tensor[:, :, rows].contiguous() for tensor in (out, logsumexp)),
        dropout,
        is_causal,
        scale=scale,
    )
    return torch.zeros_like(query).index_copy_(2, rows, of_rows), of_keys, of_values


def _roi_align_backward(gradient: torch.Tensor, regions: torch.Tensor, *how: Any) -> torch.Tensor | None:
    """The gradient of maps of which R regions (R, 5) were cut out. gradient: (R, C, h, w)."""
    rows = _few_rows(gradient.flatten(1))
    if rows is None:
        return None
    of_maps: torch.Tensor = torch.ops.torchvision._roi_align_backward(gradient[rows], regions[rows], *how)
    return of_maps


_BY_ROWS: dict[str, Callable[..., Any]] = {
    "aten::mm": _mm,
    "aten::gelu_backward": _gelu_backward,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "torchvision::_roi_align_backward": _roi_align_backward,
}

"""The reading of blocks whose tokens stand in windows, as the image was cut into them before the first block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.attention.tokens import BlockedTokens
from pytorch_grad_cam.attention.windows import read_tokens
from pytorch_grad_cam.engine.layouts import Layout
from pytorch_grad_cam.engine.trees import first_tensor


def blocked_tokens(
    output: torch.Tensor,
    later: Iterable[tuple[nn.Module, Any]],
    layout_of: Callable[[nn.Module], Layout | None],
    images: int,
) -> BlockedTokens | None:
    """The reading of a block's output (..., C) by a map behind it, each of whose cells reads one of its tokens.

    later: the modules behind the block, and what they return. layout_of: the reading of such a module's output.
    None where there is no such map.
    """
    tokens = output.numel() // output.shape[-1] // images
    for module, returned in later:
        behind = first_tensor(returned)
        if behind is output or behind.ndim < 4 or len(behind) != images or behind.numel() % (images * tokens):
            continue
        layout = layout_of(module)
        if layout is None or math.prod(layout.grid) != tokens or "T" in layout.axes:
            continue
        found = read_tokens(output, (output.ndim - 1,), behind, layout, tokens, images)
        if found is not None and len(found) == tokens:
            return BlockedTokens(layout.grid, output.shape, found.argsort())
    return None

"""The tokens in what a block returns, in the order in which its attention has them."""

from __future__ import annotations

import torch

from pytorch_grad_cam.engine.layouts import Layout


def tokens_in(layout: Layout, output: torch.Tensor) -> int:
    """How many there are for each image."""
    if "T" in layout.axes:
        return output.shape[layout.axes.index("T")]
    return output.numel() // (output.shape[layout.axes.index("N")] * output.shape[layout.axes.index("C")])


def token_axes(layout: Layout) -> list[int]:
    """The axes of the output that the tokens lie along."""
    return [place for place, axis in enumerate(layout.axes) if axis in "TS"]


def like_output(of_tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Values (N, tokens) in the form of the output, with one channel, as `layout` reads it."""
    channels, axes = of_tokens[:, :, None], layout.axes
    if "T" in axes:
        return channels.permute(*("NTC".index(axis) for axis in axes))
    order = layout.order or range(len(layout.grid))
    spatial = torch.unflatten(channels, 1, [layout.grid[order.index(axis)] for axis in range(len(layout.grid))])
    return spatial.movedim(-1, 1) if axes.startswith("NC") else spatial

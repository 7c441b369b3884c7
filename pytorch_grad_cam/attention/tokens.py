"""The tokens in what a block returns, in the order in which its attention has them."""

from __future__ import annotations

import math

import torch

from pytorch_grad_cam.engine.layouts import Layout


class BlockedTokens(Layout):
    """A reading of tensors (N, windows, T, C) or (N * windows, T, C) as maps: their channels are last.

    inner: the axes between those of the images and the channels, the first one -1 where it holds the images, too.
    cells: (tokens,) the place of each cell of the grid among an image's tokens.
    """

    inner: tuple[int, ...]
    cells: torch.Tensor

    def __new__(cls, grid: tuple[int, ...], shape: torch.Size, cells: torch.Tensor) -> BlockedTokens:
        """shape: that of a tensor."""
        self = super().__new__(cls, "N" + "S" * (len(shape) - 2) + "C", grid)
        self.inner, self.cells = tuple(shape[1:-1]), cells
        return self

    @property
    def rows_of_image(self) -> int:
        """How many there are of each image along the first axis."""
        return len(self.cells) // math.prod(self.inner)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        of_images = tensor.reshape(-1, len(self.cells), tensor.shape[-1])
        return torch.unflatten(of_images[:, self.cells].mT, 2, self.grid)

    def __str__(self) -> str:
        return f"tokens in windows, grid {' x '.join(map(str, self.grid))}"


def tokens_in(layout: Layout, output: torch.Tensor) -> int:
    """How many there are for each image."""
    if isinstance(layout, BlockedTokens):
        return len(layout.cells)
    if "T" in layout.axes:
        return output.shape[layout.axes.index("T")]
    return output.numel() // (output.shape[layout.axes.index("N")] * output.shape[layout.axes.index("C")])


def mean_token(output: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The mean of the tokens of each image, in all their places: as the output."""
    if isinstance(layout, BlockedTokens):
        of_images = output.reshape(-1, len(layout.cells), output.shape[-1])
        return of_images.mean(1, keepdim=True).expand_as(of_images).reshape(output.shape)
    axes = [place for place, axis in enumerate(layout.axes) if axis in "TS"]
    return output.mean(axes, keepdim=True).expand_as(output)


def like_output(of_tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Values (N, tokens) in the form of the output, with one channel, as `layout` reads it."""
    if isinstance(layout, BlockedTokens):
        return of_tokens.reshape(-1, *layout.inner, 1)
    channels, axes = of_tokens[:, :, None], layout.axes
    if "T" in axes:
        return channels.permute(*("NTC".index(axis) for axis in axes))
    order = layout.order or range(len(layout.grid))
    spatial = torch.unflatten(channels, 1, [layout.grid[order.index(axis)] for axis in range(len(layout.grid))])
    return spatial.movedim(-1, 1) if axes.startswith("NC") else spatial

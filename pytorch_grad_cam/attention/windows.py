"""Where the tokens of attention within windows lie in the image."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.attention.tokens import like_output
from pytorch_grad_cam.engine.layouts import Layout


class Places(NamedTuple):
    """The token of each place of each window, of one image: (windows, T); -1 where a window is filled up.

    axis: that of the windows in what the model computes of them; 0 where they follow each other along the batch.
    """

    tokens: torch.Tensor
    axis: int = 0

    def windows_first(self, of_windows: torch.Tensor) -> torch.Tensor:
        """What the model holds as (N, windows and heads, T, S), as (N * windows, heads, T, S)."""
        return of_windows.movedim(self.axis, 1).flatten(0, 1) if self.axis else of_windows

    def put_back(self, of_windows: torch.Tensor, tokens: int) -> torch.Tensor:
        """Values (N * windows, T) at the tokens that they belong to: (N, tokens)."""
        places = self.tokens.flatten()
        values = of_windows.reshape(-1, len(places))
        filled = values.new_zeros(len(values), tokens + 1)  # the last one is for what is no token
        return filled.index_add(1, places.remainder(tokens + 1), values)[:, :tokens]


def places_of(attention: Attention, output: torch.Tensor, layout: Layout, tokens: int, images: int) -> Places | None:
    """Where a block's windows lie, for attentions (N * windows, heads, T, T) of N `images`, or with an axis for the
    windows in front of that of the heads or behind it.

    None where tokens read more than one query, or windows of several images are mixed.
    """
    queries = attention.output
    if queries is None or queries.ndim not in (4, 5) or len(queries) % images:
        return None
    for axis in [0] if queries.ndim == 4 else [2, 1]:
        heads = 1 if axis != 1 else 2
        found = read_tokens(queries, (heads, queries.ndim - 1), output, layout, tokens, images)
        if found is not None:
            return Places(found.reshape(-1, queries.shape[-2]), axis)
    return None


def read_tokens(
    source: torch.Tensor, channels: tuple[int, ...], output: torch.Tensor, layout: Layout, tokens: int, images: int
) -> torch.Tensor | None:
    """Which token of a module's `output` reads each position of `source`, the same of each of N `images`: (positions,);
    -1 where none does.

    It is told by gradients: of all tokens whose number has a one in its k-th binary digit, for each k. channels: the
    axes of the source that lie within its positions. Cost: a backward between the two for each digit.
    None where a token reads none or several positions, or the images are mixed.
    """
    if not output.requires_grad or not source.requires_grad:
        return None
    numbers = torch.arange(1, images * tokens + 1, device=output.device)
    of_images: torch.Tensor | int = 0
    for digit in range(int(numbers[-1]).bit_length()):
        among = (numbers >> digit & 1).to(output).reshape(images, tokens)
        gradient = _gradient_from(among, output, layout, source)
        if gradient is None:
            return None
        of_images = of_images + ((gradient.abs().amax(channels) > 0).long() << digit)
    assert isinstance(of_images, torch.Tensor)
    of_images = of_images.reshape(images, -1) - 1
    first = torch.arange(images, device=output.device)[:, None] * tokens
    relative = torch.where(of_images < 0, of_images, of_images - first)
    found = relative[0]
    expected = torch.arange(tokens, device=output.device)
    is_each_once = torch.equal(found[found >= 0].sort().values, expected)
    return found if is_each_once and bool((relative == found).all()) else None


def weighs_channels(attention: Attention, output: torch.Tensor, layout: Layout, tokens: int, images: int) -> bool:
    """Whether an attention of as many channels as there are tokens is among the channels: a token of the block's output
    then reads all rows of what the attention gives, and one column of them. Cost: a backward between the two.
    """
    given = attention.output
    if given is None or given.shape[-2:] != (tokens, tokens) or not output.requires_grad or not given.requires_grad:
        return False
    first = torch.zeros(images, tokens, device=output.device, dtype=output.dtype)
    first[:, 0] = 1
    gradient = _gradient_from(first, output, layout, given)
    if gradient is None:
        return False
    is_read = gradient.abs().flatten(0, -3).amax(0) > 0
    return bool(is_read.any(0).sum() < is_read.any(1).sum())


def _gradient_from(
    of_tokens: torch.Tensor, output: torch.Tensor, layout: Layout, source: torch.Tensor
) -> torch.Tensor | None:
    """With respect to `source`, that of a random sum over the channels of the output's tokens, times (N, tokens)."""
    axis = layout.axes.index("C")
    direction = torch.randn(output.shape[axis], generator=torch.Generator().manual_seed(0)).to(output)
    shape = [-1 if each == axis else 1 for each in range(output.ndim)]
    asked = (like_output(of_tokens, layout) * direction.reshape(shape)).expand_as(output)
    return torch.autograd.grad(output, source, asked, retain_graph=True, allow_unused=True)[0]

"""Where the tokens of attention within windows lie in the image."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.attention.tokens import like_output
from pytorch_grad_cam.engine.layouts import Layout


class Places(NamedTuple):
    """The token of each place of each window, of one image: (windows, T); -1 where a window is filled up."""

    tokens: torch.Tensor

    def put_back(self, of_windows: torch.Tensor, tokens: int) -> torch.Tensor:
        """Values (N * windows, T) at the tokens that they belong to: (N, tokens)."""
        places = self.tokens.flatten()
        values = of_windows.reshape(-1, len(places))
        filled = values.new_zeros(len(values), tokens + 1)  # the last one is for what is no token
        return filled.index_add(1, places.remainder(tokens + 1), values)[:, :tokens]


def places_of(attention: Attention, output: torch.Tensor, layout: Layout, tokens: int, images: int) -> Places | None:
    """Where a block's windows lie, for attentions (N * windows, heads, T, T) of N `images`.

    A token of the block's output reads one query of one window. Which, is told by gradients: of all tokens whose number
    has a one in its k-th binary digit, for each k. Cost: a backward of the block for each digit.
    None where tokens read more than one query, or windows of several images are mixed.
    """
    queries = attention.output
    if queries is None or queries.ndim != 4 or len(queries) % images or not output.requires_grad:
        return None
    generator = torch.Generator().manual_seed(0)
    channels = layout.axes.index("C")
    direction = torch.randn(output.shape[channels], generator=generator).to(output)
    shape = [-1 if axis == channels else 1 for axis in range(output.ndim)]
    numbers = torch.arange(1, images * tokens + 1, device=output.device)
    place = torch.zeros(queries.shape[0], queries.shape[2], dtype=torch.long, device=output.device)
    for digit in range(int(numbers[-1]).bit_length()):
        among = (numbers >> digit & 1).to(output).reshape(images, tokens)
        asked = like_output(among, layout) * direction.reshape(shape)
        (gradient,) = torch.autograd.grad(output, queries, asked.expand_as(output), retain_graph=True)
        place += (gradient.abs().amax((1, 3)) > 0).long() << digit
    of_images = place.reshape(images, -1) - 1
    first = torch.arange(images, device=place.device)[:, None] * tokens
    relative = torch.where(of_images < 0, of_images, of_images - first)
    found = relative[0]
    expected = torch.arange(tokens, device=place.device)
    if not (relative == found).all() or not torch.equal(found[found >= 0].sort().values, expected):
        return None
    return Places(found.reshape(-1, queries.shape[2]))

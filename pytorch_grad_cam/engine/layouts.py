"""How a tensor holds a map: where its channels are and where its positions."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from pytorch_grad_cam.engine.trees import first_tensor

MOST_EXTRA_TOKENS = 16


class Layout(NamedTuple):
    """A reading of a tensor as a map; called with the tensor (or its gradient) it gives (N, C, *grid).

    axes: one letter an axis, N batch, C channels, S a spatial axis, T the tokens, which are all positions of the grid
    in one axis behind `extra` others (class, distillation, register tokens).
    """

    axes: str
    grid: tuple[int, ...]
    extra: int = 0

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.axes.startswith("NCS"):
            return tensor  # itself: a gradient that was taken of it knows no other
        batch_and_channels_first = tensor.movedim((self.axes.index("N"), self.axes.index("C")), (0, 1))
        if "T" not in self.axes:
            return batch_and_channels_first
        return batch_and_channels_first[:, :, self.extra :].unflatten(2, self.grid)

    def of_output(self, output: Any) -> torch.Tensor:
        """Of what a module returned, as a reshape_transform."""
        return self(first_tensor(output))

    def __str__(self) -> str:
        extra = f" behind {self.extra} extra tokens" if self.extra else ""
        return f"{self.axes}, grid {' x '.join(map(str, self.grid))}{extra}"


def channels_first(shape: Sequence[int]) -> Layout:
    """The layout of (N, C, *spatial)."""
    return Layout("NC" + "S" * (len(shape) - 2), tuple(shape[2:]))


def layouts_of(
    shape: Sequence[int], batch: int, image_size: Sequence[int], known_grids: set[tuple[int, ...]]
) -> list[Layout]:
    """The readings of a tensor of this shape for an input of `image_size`, the best first; none if it is no map.

    A map's grid covers the image with one stride in all directions, give or take a row or column. Tokens count as a
    grid that a convolution of the same forward made (`known_grids`), else one of the image's exact proportions with the
    fewest extra tokens; one channel is no map of tokens but a token with as many channels.

    Among several a grid that is known or has no extra tokens is best, of these tokens with their channels last, which
    is how nearly all models hold them; then a known grid, then fewer extra tokens, then more channels.
    """
    rank = len(image_size)
    readings = []
    if len(shape) == rank + 2 and shape[0] == batch:
        for axes in ("NC" + "S" * rank, "N" + "S" * rank + "C"):
            grid = tuple(size for size, axis in zip(shape, axes, strict=True) if axis == "S")
            if _covers(grid, image_size):
                readings.append(Layout(axes, grid))
    if len(shape) == 3 and rank > 1:
        for axes in ("NTC", "NCT", "TNC"):
            if shape[axes.index("N")] == batch and _channels(axes, shape) > 1:
                readings += list(_token_grids(axes, shape[axes.index("T")], image_size, known_grids))[:1]

    def order(layout: Layout) -> tuple:
        known = layout.grid in known_grids
        sound = known or layout.extra == 0
        return (not sound, layout.axes != "NTC", not known, layout.extra, -_channels(layout.axes, shape))

    return sorted(readings, key=order)


def _channels(axes: str, shape: Sequence[int]) -> int:
    return shape[axes.index("C")]


def _covers(grid: tuple[int, ...], image_size: Sequence[int]) -> bool:
    """Whether one stride fits all axes, when each may have a cell more or less than the image's size says.

    One axis has no proportions to tell by; a signal's map may be a quarter longer than the signal, as the padding of
    causal convolutions makes it.
    """
    lowest = max(size / (cells + 1) for cells, size in zip(grid, image_size, strict=True))
    highest = min(size / max(cells - 1, 0.5) for cells, size in zip(grid, image_size, strict=True))
    longest = 1.25 if len(image_size) == 1 else 1
    not_enlarged = all(cells <= longest * size for cells, size in zip(grid, image_size, strict=True))
    return lowest <= highest and not_enlarged


def _token_grids(
    axes: str, tokens: int, image_size: Sequence[int], known_grids: set[tuple[int, ...]]
) -> Iterator[Layout]:
    for extra in range(min(MOST_EXTRA_TOKENS, tokens - 1) + 1):
        for grid in known_grids:
            if math.prod(grid) == tokens - extra:
                yield Layout(axes, grid, extra)
    for extra in range(min(MOST_EXTRA_TOKENS, tokens - 1) + 1):
        of_image = grid_of_proportions(tokens - extra, image_size)
        if of_image is not None:
            yield Layout(axes, of_image, extra)


def grid_of_proportions(cells: int, image_size: Sequence[int]) -> tuple[int, ...] | None:
    """The grid of so many cells that has exactly the image's proportions; None where there is none."""
    stride = (math.prod(image_size) / cells) ** (1 / len(image_size))
    grid = tuple(round(size / stride) for size in image_size)
    exact = all(along * image_size[0] == grid[0] * size for along, size in zip(grid, image_size, strict=True))
    return grid if exact and math.prod(grid) == cells else None

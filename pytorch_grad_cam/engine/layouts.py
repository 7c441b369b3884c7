"""Layouts: how the axes of a tensor hold the channels and the cells of a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import pairwise, permutations
from typing import Any, NamedTuple

import torch

from pytorch_grad_cam.engine.trees import first_tensor

_RANK_OF_CLIPS = 3
TOKEN_AXES = ("NTC", "NCT", "TNC")
# Behind up to 16 extra tokens a square grid of 8 x 8 or more is never read as a larger one: 9 * 9 - 8 * 8 = 17. A class
# token and 4 registers need 5; in 38 networks of timm and transformers nothing changes between 4 and 64.
MOST_EXTRA_TOKENS = 16
# A signal's map in signals. A choice; the tests have 1.01 (kernel 4, padding 2) and nothing longer.
_LONGEST_SIGNAL_MAP = 1.25
# Cells more or less than strides on an axis: rounding and padding add one or leave one out. With 2 a test changes; with
# 0 no test and none of the 38 networks, whose images are square.
_SLACK = 1
# The coarsest map without classes, in pixels a cell. A choice: depths have half of the image's size or all of it.
_COARSEST = 4
# One cell less one: its stride is at most twice the image. A choice; nothing changes between 0.1 and 1.
_FEWEST_CELLS = 0.5


class Layout(NamedTuple):
    """A reading of a tensor as a map: called with the tensor, or its gradient, it gives (N, C, *grid).

    axes: one letter for each axis: N batch, C channels, S a spatial axis, T tokens; F the batch with the image's first
    spatial axis (frames, views) folded into it. grid: the cells along each axis of
    the image. extra: how many tokens (class, distillation, registers) stand before those of the grid. spans: where
    others stand among or behind them, the tokens of the grid, from and to. order: where the tensor has the spatial axes
    in another order than the image, which of them are the image's first, second and third. block: where tokens of all
    images follow each other (axes 'TC') in squares, the length of one.
    """

    axes: str
    grid: tuple[int, ...]
    extra: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    order: tuple[int, ...] = ()
    block: int = 1

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.axes.startswith("NCS") and not self.order:
            return tensor  # itself, because gradients are asked for with respect to this very tensor
        if self.axes.startswith("F"):
            of_frames = self._replace(axes="N" + self.axes[1:], grid=self.grid[1:])(tensor)
            return torch.unflatten(of_frames, 0, (-1, self.grid[0])).movedim(1, 2)
        if "N" not in self.axes:
            return of_squares(tensor, self.grid, self.block)
        maps = tensor.movedim((self.axes.index("N"), self.axes.index("C")), (0, 1))
        if "T" in self.axes:
            maps = torch.unflatten(self._of_grid(maps), 2, self.grid_of_tensor)
        return maps.permute(0, 1, *(2 + axis for axis in self.order)) if self.order else maps

    def of_output(self, output: Any) -> torch.Tensor:
        """The map (N, C, *grid) in what a module returned; for use as a reshape_transform."""
        return self(first_tensor(output))

    def among(self, others: Sequence[int], tokens: int) -> Layout:
        """The same reading where the tokens that are no cells stand in the places `others`."""
        if list(others) == list(range(len(others))):
            return self._replace(extra=len(others), spans=())
        edges = [-1, *others, tokens]
        spans = [(last + 1, following) for last, following in pairwise(edges) if following > last + 1]
        return self._replace(extra=0, spans=tuple(spans))

    def _of_grid(self, tokens: torch.Tensor) -> torch.Tensor:
        if not self.spans:
            return tokens[:, :, self.extra :]
        return torch.cat([tokens[:, :, first:last] for first, last in self.spans], dim=2)

    @property
    def grid_of_tensor(self) -> tuple[int, ...]:
        """The grid with its axes in the order in which the tensor has them."""
        return tuple(self.grid[self.order.index(axis)] for axis in range(len(self.grid))) if self.order else self.grid

    def __str__(self) -> str:
        extra = f" behind {self.extra} extra tokens" if self.extra else ""
        if self.spans:
            extra = " of the tokens " + " and ".join(f"{first} to {last - 1}" for first, last in self.spans)
        order = f", its axes in the order {self.order} of the image's" if self.order else ""
        return f"{self.axes}, grid {' x '.join(map(str, self.grid))}{extra}{order}"


def of_squares(packed: torch.Tensor, grid: Sequence[int], block: int) -> torch.Tensor:
    """Patches (images * rows * columns, C), or with an axis of images in front, as (images, C, rows, columns).

    They come in squares of `block` x `block`.
    """
    rows, columns = grid
    squares = packed.reshape(-1, rows // block, columns // block, block, block, packed.shape[-1])
    return squares.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def packed_layouts(shape: Sequence[int], batch: int, grids: Collection[tuple[int, ...]], block: int) -> list[Layout]:
    """The readings of patches of all images one behind the other; of the finest grid they come in squares."""
    finest = max(grids, key=math.prod)
    return [
        Layout("TC", grid, block=block if grid == finest else 1)
        for grid in grids
        if batch * math.prod(grid) == shape[0] and shape[1] > 1
    ]


def channels_first(shape: Sequence[int]) -> Layout:
    """The layout of (N, C, *spatial)."""
    return Layout("NC" + "S" * (len(shape) - 2), tuple(shape[2:]))


def layouts_of(
    shape: Sequence[int], batch: int, image_size: Sequence[int], known_grids: set[tuple[int, ...]]
) -> list[Layout]:
    """The readings of a tensor of this shape for an input of `image_size`, the best first; none if it is no map.

    A map's grid covers the image with one stride along all axes, give or take a cell; where no reading does, each axis
    may have a stride of its own, and the axes another order. Tokens are read as a grid that a convolution of the same
    forward made (`known_grids`), else as one of the image's exact proportions, with the fewest extra tokens. Tokens of
    one channel are no map: they are a single token.

    A grid that is known or has no extra tokens comes before others. Among those, tokens with their channels last come
    first, as nearly all models hold them; then a known grid, then fewer extra tokens, then one stride for all axes,
    then more channels.
    """
    rank = len(image_size)
    readings = _folded(shape, batch, image_size, partial(layouts_of, known_grids=known_grids))
    if len(shape) == rank + 2 and shape[0] == batch:
        for axes in ("NC" + "S" * rank, "N" + "S" * rank + "C"):
            layout = _spatial(axes, shape)
            readings += [layout] if covers(layout.grid, image_size) else []
        if not any(layout.axes.startswith("NCS") for layout in readings):
            readings += [layout for layout in _uneven(shape, image_size) if layout not in readings]
    if len(shape) == 3 and rank > 1:
        for axes in TOKEN_AXES:
            if shape[axes.index("N")] == batch and _channels(axes, shape) > 1:
                grids = _token_grids(axes, shape[axes.index("T")], image_size, known_grids)
                readings += _of_first_grid(grids)

    def order(layout: Layout) -> tuple[Any, ...]:
        known = layout.grid in known_grids
        likely = known or layout.extra == 0
        is_uneven = not is_even(layout, image_size)
        return (not likely, layout.axes != "NTC", not known, layout.extra, is_uneven, -_channels(layout.axes, shape))

    return sorted(readings, key=order)


def convolutions_layouts(shape: Sequence[int], batch: int, image_size: Sequence[int]) -> list[Layout]:
    """The reading of what a convolution made: channels first; with more cells than the image has pixels where the model
    enlarges it, as detectors do. None for what has other axes than the image.
    """
    plain = channels_first(shape)
    if len(plain.grid) != len(image_size) or shape[0] != batch:
        return _folded(shape, batch, image_size, convolutions_layouts)
    if _has_one_stride(plain.grid, image_size):
        return [plain]
    return [*_turned(plain, image_size)]


def _folded(
    shape: Sequence[int],
    batch: int,
    image_size: Sequence[int],
    of_frames: Callable[[Sequence[int], int, Sequence[int]], list[Layout]],
) -> list[Layout]:
    """The readings of a tensor whose batch has the frames of clips folded into it."""
    frames, *frame_size = image_size
    if len(image_size) < _RANK_OF_CLIPS or frames == 1 or shape[0] != batch * frames:
        return []
    readings = of_frames(shape, batch * frames, frame_size)
    first = [layout for layout in readings if layout.axes.startswith("N")]
    return [each._replace(axes="F" + each.axes[1:], grid=(frames, *each.grid)) for each in first]


def layouts_without(
    others: Sequence[int],
    axes: str,
    shape: Sequence[int],
    image_size: Sequence[int],
    known_grids: set[tuple[int, ...]],
) -> list[Layout]:
    """The readings of tokens of which those in the places `others` are no cells; see `layouts_of`."""
    tokens = shape[axes.index("T")]
    cells = tokens - len(others)
    # Any number of cells of a signal is in proportion: there it tells nothing.
    like_image = grid_of_proportions(cells, image_size) if len(image_size) > 1 else None
    grids = _of_as_many_cells(known_grids, cells, image_size) or ([] if like_image is None else [like_image])
    readings = [layout for grid in grids for layout in _arranged(Layout(axes, grid), image_size)]
    return [layout.among(others, tokens) for layout in readings]


def _of_as_many_cells(grids: set[tuple[int, ...]], cells: int, image_size: Sequence[int]) -> list[tuple[int, ...]]:
    return [grid for grid in grids if math.prod(grid) == cells and len(grid) == len(image_size)]


def is_even_map(readings: Sequence[Layout], image_size: Sequence[int]) -> bool:
    """Whether there is only one reading, channels first and with one stride for all axes."""
    return len(readings) == 1 and readings[0].axes.startswith("NCS") and is_even(readings[0], image_size)


def is_even(layout: Layout, image_size: Sequence[int]) -> bool:
    """Whether the reading has one stride along all axes of the image, in their order."""
    return not layout.order and _has_one_stride(layout.grid, image_size)


def _spatial(axes: str, shape: Sequence[int]) -> Layout:
    return Layout(axes, tuple(size for size, axis in zip(shape, axes, strict=True) if axis == "S"))


def _turned(layout: Layout, image_size: Sequence[int]) -> Iterator[Layout]:
    """The layout, and where its cells are no squares its axes in each order that fits the image."""
    if covers(layout.grid, image_size):
        yield layout
        return
    as_they_are = tuple(range(len(image_size)))
    for order in permutations(as_they_are):
        grid = tuple(layout.grid[axis] for axis in order)
        if not _is_enlarged(grid, image_size):
            yield layout if order == as_they_are else layout._replace(grid=grid, order=order)


def _arranged(layout: Layout, image_size: Sequence[int]) -> Iterator[Layout]:
    """The layout, and where its cells are no squares each order of its axes and of the tokens along them."""
    if covers(layout.grid, image_size):
        yield layout
        return
    for grid in dict.fromkeys(permutations(layout.grid)):
        yield from _turned(layout._replace(grid=grid), image_size)


def _uneven(shape: Sequence[int], image_size: Sequence[int]) -> Iterator[Layout]:
    """The readings with a stride for each axis, none of which has more cells than the image has pixels."""
    for axes in ("NC" + "S" * len(image_size), "N" + "S" * len(image_size) + "C"):
        yield from _turned(_spatial(axes, shape), image_size)


def _channels(axes: str, shape: Sequence[int]) -> int:
    return shape[axes.index("C")]


def covers(grid: tuple[int, ...], image_size: Sequence[int]) -> bool:
    """Whether one stride fits all axes, where each may have a cell more or less than the image's size says.

    A grid has at most as many cells as the image has pixels; only a signal's map may be a quarter longer than the
    signal, as padding on both sides makes it.
    """
    return _has_one_stride(grid, image_size) and not _is_enlarged(grid, image_size)


def covers_finely(grid: tuple[int, ...], image_size: Sequence[int]) -> bool:
    """Whether it covers the image with cells as small as those of a map that has one value a cell, as a depth's."""
    return covers(grid, image_size) and all(
        _COARSEST * cells >= length for cells, length in zip(grid, image_size, strict=True)
    )


def _has_one_stride(grid: tuple[int, ...], image_size: Sequence[int]) -> bool:
    lowest = max(size / (cells + _SLACK) for cells, size in zip(grid, image_size, strict=True))
    highest = min(size / max(cells - _SLACK, _FEWEST_CELLS) for cells, size in zip(grid, image_size, strict=True))
    return lowest <= highest


def _is_enlarged(grid: tuple[int, ...], image_size: Sequence[int]) -> bool:
    most = _LONGEST_SIGNAL_MAP if len(image_size) == 1 else 1
    return any(cells > most * size for cells, size in zip(grid, image_size, strict=True))


def _token_grids(
    axes: str, tokens: int, image_size: Sequence[int], known_grids: set[tuple[int, ...]]
) -> Iterator[Layout]:
    """The readings of an axis of tokens, the best first: known grids, then grids of the image's proportions.

    Where convolutions made grids, others have no extra tokens: so many queries, or channels, are no map and a token.
    """
    most_extra = 0 if axes == "NCT" else min(MOST_EXTRA_TOKENS, tokens - 1)
    for extra in range(tokens if axes == "NTC" else most_extra + 1):
        for grid in _of_as_many_cells(known_grids, tokens - extra, image_size):
            yield from _arranged(Layout(axes, grid, extra), image_size)
    for extra in range(1 if known_grids else most_extra + 1):
        grid_like_image = grid_of_proportions(tokens - extra, image_size)
        if grid_like_image is not None:
            yield Layout(axes, grid_like_image, extra)


def _of_first_grid(grids: Iterator[Layout]) -> list[Layout]:
    """The first grid, its axes in every order."""
    readings = [*dict.fromkeys(grids)]
    return [
        layout for layout in readings if layout.extra == readings[0].extra and _cells(layout) == _cells(readings[0])
    ]


def _cells(layout: Layout) -> list[int]:
    return sorted(layout.grid)


def grid_of_proportions(cells: int, image_size: Sequence[int]) -> tuple[int, ...] | None:
    """The grid of this number of cells that has exactly the image's proportions; None where there is none."""
    stride = (math.prod(image_size) / cells) ** (1 / len(image_size))
    grid = tuple(round(size / stride) for size in image_size)
    exact = all(length * image_size[0] == grid[0] * size for length, size in zip(grid, image_size, strict=True))
    return grid if exact and math.prod(grid) == cells else None

"""Where in a picture the pixels of a preprocessed input lie: through any resizing, cropping and padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pytorch_grad_cam.engine.inputs import image_of
from pytorch_grad_cam.zoo.preprocessing import inputs_of

if TYPE_CHECKING:
    from pytorch_grad_cam.utils.regions import Box

_WHITE = 255
_FEWEST = 4  # columns, of which some are left out at the rim, where interpolation repeats the last ones
_RIM = 2
# Of the picture's side. Ramps of 255 steps, interpolated and fitted over a whole axis, are off by less.
_TOLERANCE = 0.01


class Placement(NamedTuple):
    """The picture's pixel of an input's: x = scale * column + offset on each axis, from edge to edge.

    size: the picture's (width, height). x, y: (scale, offset).
    """

    size: tuple[int, int]
    x: tuple[float, float]
    y: tuple[float, float]

    def box(self, box: Box) -> Box:
        """A box (left, top, right, bottom) of the input in whole pixels of the picture, within it."""
        left, top, right, bottom = (
            int(np.clip(round(edge), 0, side)) for edge, side in zip(self.in_picture(box), self.size * 2, strict=True)
        )
        return left, top, right, bottom

    def in_picture(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """A box (left, top, right, bottom) of the input in pixels of the picture, which may lie outside of it."""
        columns = sorted(edge * self.x[0] + self.x[1] for edge in (box[0], box[2]))
        rows = sorted(edge * self.y[0] + self.y[1] for edge in (box[1], box[3]))
        return columns[0], rows[0], columns[1], rows[1]

    def seen(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """A box (left, top, right, bottom) of the picture in pixels of the input, which may lie outside of it."""
        columns = sorted((edge - self.x[1]) / self.x[0] for edge in (box[0], box[2]))
        rows = sorted((edge - self.y[1]) / self.y[0] for edge in (box[1], box[3]))
        return columns[0], rows[0], columns[1], rows[1]

    def drawn(self, values: np.ndarray) -> np.ndarray:
        """Values (H, W) of the input's pixels at those of the picture; 0 where the input shows nothing of it."""
        indices, inside = zip(
            *(
                self._indices(of_axis, side, count)
                for of_axis, side, count in zip((self.y, self.x), self.size[::-1], values.shape, strict=True)
            ),
            strict=True,
        )
        found: np.ndarray = values[np.ix_(*indices)]
        found[~(inside[0][:, None] & inside[1][None])] = 0
        return found

    def resampled(self, maps: np.ndarray) -> np.ndarray:
        """Maps (P, H, W) of the input's pixels at those of the picture, linear between them; 0 where the input shows
        nothing of it.
        """
        for axis, of_axis, side in zip((1, 2), (self.y, self.x), self.size[::-1], strict=True):
            count = maps.shape[axis]
            scale, offset = of_axis
            places = (np.arange(side) + 0.5 - offset) / scale - 0.5
            between = places.clip(0, count - 1)
            before = between.astype(int)
            along = (-1, *[1] * (2 - axis))
            share = (between - before).astype(maps.dtype).reshape(along)
            inside = ((places >= -0.5) & (places < count - 0.5)).reshape(along)
            behind = (before + 1).clip(max=count - 1)
            maps = (maps.take(before, axis) * (1 - share) + maps.take(behind, axis) * share) * inside
        return maps

    @staticmethod
    def _indices(of_axis: tuple[float, float], side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        scale, offset = of_axis
        places = np.floor((np.arange(side) + 0.5 - offset) / scale).astype(int)
        return places.clip(0, count - 1), (places >= 0) & (places < count)


class Placements:
    """The placements by a preprocessing, each measured once for a size of pictures, see `placement_of`."""

    def __init__(self, preprocess: Callable[[Any], Any]) -> None:
        self.preprocess = preprocess
        self._known: dict[tuple[int, int], Placement | None] = {}

    def __call__(self, size: tuple[int, int]) -> Placement | None:
        if size not in self._known:
            self._known[size] = placement_of(self.preprocess, size)
        return self._known[size]


class Original(NamedTuple):
    """The picture before it was preprocessed: its (width, height), upright, and where inputs lie in such pictures."""

    size: tuple[int, int]
    placements: Placements

    @property
    def placement(self) -> Placement | None:
        """Where in the picture the input lies, measured when it is first asked for."""
        return self.placements(self.size)


def placement_of(preprocess: Callable[[Any], Any], size: tuple[int, int]) -> Placement | None:
    """Where the input's pixels lie in pictures of a size (width, height).

    It is measured: a black, a white and two shaded pictures are preprocessed. None where the input's values are not
    those of the picture's pixels up to a factor for each pixel, as where each picture is scaled by itself, or where its
    axes are not the picture's. Cost: four calls of `preprocess`.
    """
    width, height = size
    shade_x, shade_y = (np.rint(np.linspace(0, _WHITE, count)).astype(np.uint8) for count in size)
    pixels = [np.zeros((height, width), np.uint8), np.full((height, width), _WHITE, np.uint8)]
    pixels += [np.tile(shade_x, (height, 1)), np.tile(shade_y[:, None], (1, width))]
    seen = [image_of(inputs_of(preprocess(Image.fromarray(each).convert("RGB"))))[0].double() for each in pixels]
    if any(each.ndim != 3 or each.shape != seen[0].shape for each in seen):
        return None
    black, white, along_x, along_y = (each[0] for each in seen)
    shown = (white - black).abs() > (white - black).abs().max() / 2
    columns = _line(_shades(along_x, black, white, shown, 0), width)
    rows = _line(_shades(along_y, black, white, shown, 1), height)
    return None if columns is None or rows is None else Placement(size, columns, rows)


def _shades(
    shaded: torch.Tensor, black: torch.Tensor, white: torch.Tensor, shown: torch.Tensor, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """The places on an axis where something of the picture is seen, and the shade there, from 0 to 1."""
    shades = torch.where(shown, (shaded - black) / torch.where(shown, white - black, 1.0), 0)
    counts = shown.sum(axis)
    places = counts.nonzero()[:, 0]
    return places.numpy() + 0.5, (shades.sum(axis)[places] / counts[places]).numpy()


def _line(seen: tuple[np.ndarray, np.ndarray], side: int) -> tuple[float, float] | None:
    places, shades = (values[_RIM : len(values) - _RIM] for values in seen)
    if len(places) < _FEWEST:
        return None
    pixels = shades * (side - 1) + 0.5
    scale, offset = np.polyfit(places, pixels, 1)
    off = np.abs(scale * places + offset - pixels).max()
    return (float(scale), float(offset)) if off <= max(1, _TOLERANCE * side) and abs(scale) > 0 else None

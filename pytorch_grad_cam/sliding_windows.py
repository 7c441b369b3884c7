"""Windows over an image at several scales, and the fusion of the maps made in them; any spatial rank."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from pytorch_grad_cam.maps import over_positions, resize

_BLUR_WIDTH = 11
_BLUR_SIGMA = 5.0


def window_starts(length: int, step_size: int, window_size: int) -> list[int]:
    """Where windows begin along one axis; the last one ends at the border.

    >>> window_starts(288, step_size=224, window_size=224)
    [0, 64]
    """
    last = max(length - window_size, 0)
    return [*range(0, last, step_size), last]


def sliding_window(height: int, width: int, step_size: int, window_size: int) -> list[tuple[int, int]]:
    """The upper left corners (x, y) of square windows that cover an image, row by row."""
    starts = itertools.product(*(window_starts(size, step_size, window_size) for size in (height, width)))
    return [(x, y) for y, x in starts]


class Window(NamedTuple):
    """A cube of `size` at `start` of an image enlarged to `scaled_size`."""

    start: tuple[int, ...]
    size: int
    scaled_size: tuple[int, ...]

    def cut(self, image: torch.Tensor) -> torch.Tensor:
        """The window's part of the enlarged image (..., *scaled_size)."""
        return image[(Ellipsis, *[slice(start, start + self.size) for start in self.start])]  # type: ignore[index]

    def paste(self, part: torch.Tensor, image_size: Sequence[int]) -> torch.Tensor:
        """The window's map (*size) where it lies on the image, zeros elsewhere: (*image_size)."""
        canvas = part.new_zeros(self.scaled_size)
        self.cut(canvas).copy_(part)
        return resize(canvas[None, None], image_size)[0, 0]


@dataclass(frozen=True)
class SlidingWindows:
    """Windows of `window_size`, `step_size` apart, on the image enlarged to several scales.

    scales: lengths of the image's shortest side; None is `num_scales` of them from the window's size on, each longer by
    `scale_step_ratio` of it. window_size: None is the image's shortest side. step_size: None is the window's size.
    """

    scales: Sequence[int] | None
    num_scales: int
    scale_step_ratio: float
    window_size: int | None
    step_size: int | None

    def __post_init__(self) -> None:
        if self.num_scales < 1:
            raise ValueError(f"num_scales is {self.num_scales}, expected at least 1")

    def on(self, image_size: Sequence[int]) -> list[Window]:
        """All windows, scale by scale. Raises ValueError where a window is larger than the enlarged image."""
        shortest = min(image_size)
        size = self.window_size or shortest
        growth = round(size * self.scale_step_ratio)
        windows = []
        for scale in self.scales or [size + growth * index for index in range(self.num_scales)]:
            if scale < size:
                raise ValueError(f"scale {scale} is below the window size {size}: a window does not fit")
            scaled_size = tuple(int(scale * length / shortest) for length in image_size)
            starts = (window_starts(length, self.step_size or size, size) for length in scaled_size)
            windows += [Window(start, size, scaled_size) for start in itertools.product(*starts)]
        return windows


class EnlargedImage:
    """An image (C, *spatial) at the scales of its windows."""

    def __init__(self, image: torch.Tensor, windows: Sequence[Window]) -> None:
        self.at = {window.scaled_size: _enlarged(image, window.scaled_size) for window in windows}

    def cut(self, windows: Sequence[Window]) -> torch.Tensor:
        """The windows' parts (W, C, *window)."""
        return torch.stack([window.cut(self.at[window.scaled_size]) for window in windows])


@dataclass(frozen=True)
class WindowFusion:
    """One map from those of the windows: the mean at each position of the values above `theta`, or (pool='max') the
    largest; `smooth` blurs it."""

    pool: str
    theta: float
    smooth: bool

    def __post_init__(self) -> None:
        if self.pool not in ("mean", "max"):
            raise ValueError(f"pool is {self.pool!r}, expected 'mean' or 'max'")

    def __call__(
        self, windows: Sequence[Window], maps: torch.Tensor, scores: torch.Tensor, size: Sequence[int]
    ) -> torch.Tensor:
        """From maps (W, *window), weighted by their scores (W,) relative to the highest, to a map (*size)."""
        highest = scores.max()
        maps = over_positions(scores / highest, maps) * maps if highest > 0 else maps
        total, count = maps.new_zeros(tuple(size)), maps.new_zeros(tuple(size))
        for window, part in zip(windows, maps, strict=True):
            pasted = window.paste(part, size)
            above = pasted > self.theta
            total = total.maximum(pasted) if self.pool == "max" else total + pasted * above
            count += above
        joined = total if self.pool == "max" else total / count.clamp(min=1)
        return _blurred(joined) if self.smooth else joined


def _enlarged(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if image.ndim == 3:  # antialiased where the image is reduced; PyTorch has that for two axes only
        scaled = F.interpolate(image[None].float(), size=tuple(size), mode="bilinear", antialias=True)[0]
        return scaled.to(image.dtype)  # not implemented in half precision
    return resize(image[None], size)[0]


def _blurred(image_map: torch.Tensor) -> torch.Tensor:
    """The map (*spatial) with a Gaussian over it, mirrored at the border."""
    for axis, length in enumerate(image_map.shape):
        weights = _blur_matrix(length).to(image_map)
        image_map = (image_map.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return image_map


def _blur_matrix(length: int) -> torch.Tensor:
    offsets = torch.arange(_BLUR_WIDTH) - _BLUR_WIDTH // 2
    kernel = torch.exp(-(offsets**2) / (2 * _BLUR_SIGMA**2))
    period = max(2 * (length - 1), 1)
    sources = (torch.arange(length)[:, None] + offsets).remainder(period)
    mirrored = torch.minimum(sources, period - sources).clamp(max=length - 1)
    return torch.zeros(length, length).scatter_add_(1, mirrored, (kernel / kernel.sum()).expand(length, -1))

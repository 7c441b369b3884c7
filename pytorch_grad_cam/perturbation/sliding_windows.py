"""Windows over an image at several scales, and the fusion of the maps made in them; any spatial rank."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from pytorch_grad_cam.engine.maps import over_positions, resize

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


def windows_on(image_size: Sequence[int], scales: Sequence[int], window_size: int, step_size: int) -> list[Window]:
    """The windows, `step_size` apart, on the image enlarged so that its shortest side has the length of each scale.

    Raises ValueError where a window is larger than the enlarged image.
    """
    shortest = min(image_size)
    windows = []
    for scale in scales:
        if scale < window_size:
            raise ValueError(f"scale {scale} is below the window size {window_size}: a window does not fit")
        scaled_size = tuple(int(scale * length / shortest) for length in image_size)
        starts = (window_starts(length, step_size, window_size) for length in scaled_size)
        windows += [Window(start, window_size, scaled_size) for start in itertools.product(*starts)]
    return windows


class EnlargedImage:
    """An image (C, *spatial) at the scales of its windows."""

    def __init__(self, image: torch.Tensor, windows: Sequence[Window]) -> None:
        self.at = {window.scaled_size: _enlarged(image, window.scaled_size) for window in windows}

    def cut(self, windows: Sequence[Window]) -> torch.Tensor:
        """The windows' parts (W, C, *window)."""
        return torch.stack([window.cut(self.at[window.scaled_size]) for window in windows])


def fused(
    windows: Sequence[Window],
    maps: torch.Tensor,
    scores: torch.Tensor,
    image_size: Sequence[int],
    pool: str,
    theta: float,
    smooth: bool,
) -> torch.Tensor:
    """One map (*image_size) from those of the windows (W, *window), weighted by their scores (W,) over the highest.

    pool: 'mean' at each position of the values above `theta`, or 'max'. smooth: blur the result.
    """
    highest = scores.max()
    maps = over_positions(scores / highest, maps) * maps if highest > 0 else maps
    total, count = maps.new_zeros(tuple(image_size)), maps.new_zeros(tuple(image_size))
    for window, part in zip(windows, maps, strict=True):
        pasted = window.paste(part, image_size)
        above = pasted > theta
        total = total.maximum(pasted) if pool == "max" else total + pasted * above
        count += above
    joined = total if pool == "max" else total / count.clamp(min=1)
    return _blurred(joined) if smooth else joined


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
    mirrored = torch.minimum(sources, period - sources)
    return torch.zeros(length, length).scatter_add_(1, mirrored, (kernel / kernel.sum()).expand(length, -1))

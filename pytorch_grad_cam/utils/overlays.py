"""Heat maps over signals, volumes and videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.utils.image import check_range, show_cam_on_image, unit_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BESIDE = ((0, 1), (2, 1), (1, 0), (1, 2))  # of a pixel at (1, 1)


def show_cam_on_signal(signal: np.ndarray, mask: np.ndarray) -> Figure:
    """A matplotlib figure of a signal's curves, (L,) or (C, L), above a strip with its map (L,) in [0, 1].

    Raises ValueError for other shapes and for a map outside [0, 1].

    >>> figure = show_cam_on_signal(np.sin(np.arange(100) / 5), np.linspace(0, 1, 100))
    >>> len(figure.axes)
    2
    """
    with needing("matplotlib", "figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    curves, heat = np.atleast_2d(signal), np.asarray(mask)
    if curves.ndim != 2 or heat.shape != curves.shape[1:]:
        raise ValueError(f"the signal has shape {np.shape(signal)}, the mask {heat.shape}: expected (C, L) and (L,)")
    check_range(heat, "mask")
    figure = Figure(figsize=(10, 3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    above, strip = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    above.plot(curves.T, linewidth=1)
    above.margins(x=0)
    strip.imshow(heat[None], aspect="auto", cmap="jet", vmin=0, vmax=1, extent=(-0.5, len(heat) - 0.5, 0, 1))
    strip.set_yticks([])
    return figure


def show_cam_on_volume(volume: np.ndarray, mask: np.ndarray, image_weight: float = 0.5) -> np.ndarray:
    """The slices of a volume, or the frames of a video, with their maps over them: uint8 RGB (D, H, W, 3).

    volume: (D, H, W) or (D, H, W, 3), uint8 or float in [0, 1]. mask: (D, H, W) in [0, 1].
    Raises ValueError for other shapes and ranges.
    """
    slices, heat = unit_range(volume), np.asarray(mask)
    if slices.ndim == 3:
        slices = np.repeat(slices[..., None], 3, axis=3)
    if slices.ndim != 4 or slices.shape[3] != 3 or heat.shape != slices.shape[:3]:
        raise ValueError(
            f"the volume has shape {np.shape(volume)}, the mask {heat.shape}: expected (D, H, W) or (D, H, W, 3) and "
            "(D, H, W)"
        )
    pairs = zip(slices, heat, strict=True)
    return np.stack([show_cam_on_image(plane, cam, use_rgb=True, image_weight=image_weight) for plane, cam in pairs])


def montage(pictures: np.ndarray, numbers: Sequence[int | str] | None = None) -> np.ndarray:
    """One picture of pictures (D, H, W, C), row by row in a nearly square grid; free places are black.

    numbers: what is written into the upper left corner of each, such as its number; of uint8 RGB pictures only.

    >>> montage(np.zeros((5, 4, 6, 3), np.uint8)).shape
    (8, 18, 3)
    """
    if numbers is not None:
        pictures = np.stack([labelled(each, str(number)) for each, number in zip(pictures, numbers, strict=True)])
    count, height, width, channels = np.shape(pictures)
    columns = montage_columns(count)
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height, width, channels), np.asarray(pictures).dtype)
    cells[:count] = pictures
    return cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, -1, channels)


def montage_columns(count: int) -> int:
    """How many pictures stand side by side in a montage."""
    return math.ceil(math.sqrt(count))


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture, uint8 RGB (H, W, 3), with a text in its upper left corner, white within black."""
    from PIL import Image, ImageDraw

    drawn = Image.fromarray(picture)
    ImageDraw.Draw(drawn).text((2, 1), text, fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(drawn)


def flattened(pictures: np.ndarray, numbered: bool = False) -> np.ndarray:
    """What can be shown of (*spatial, C): of a volume (D, H, W, C) its slices side by side, of a signal (L, C) a strip,
    of a picture (H, W, C) itself. numbered: slices have their numbers, from 0.
    """
    if pictures.ndim == 4:
        return montage(pictures, range(len(pictures)) if numbered else None)
    return pictures[None] if pictures.ndim == 2 else pictures


def save_gif(pictures: np.ndarray, file: str | Path, frames_per_second: float = 10) -> None:
    """Write pictures, uint8 RGB (D, H, W, 3), as an animation that repeats."""
    from PIL import Image

    first, *others = [Image.fromarray(picture) for picture in pictures]
    first.save(file, "GIF", save_all=True, append_images=others, duration=round(1000 / frames_per_second), loop=0)


def contoured(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A picture, uint8 RGB (H, W, 3), with the rim of a region, bool (H, W), in white, and around it in black."""
    padded, (height, width) = np.pad(region, 1), region.shape
    shifted = [padded[down : down + height, right : right + width] for down, right in _BESIDE]
    drawn = picture.copy()
    drawn[~region & np.any(shifted, axis=0)] = 0
    drawn[region & ~np.all(shifted, axis=0)] = 255
    return drawn


def outlined(picture: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """A picture, uint8 RGB (H, W, 3), with boxes (left, top, right, bottom) outlined in white, and that in black."""
    if not boxes:
        return picture
    from PIL import Image, ImageDraw

    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    for left, top, right, bottom in (map(round, box) for box in boxes):
        draw.rectangle((left - 1, top - 1, max(left, right), max(top, bottom)), outline="black")
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline="white")
    return np.asarray(drawn)

"""Pictures as ultralytics' detectors take them: scaled as a whole, with grey around, or stretched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY = 114


@dataclass(frozen=True)
class Letterbox:
    """From a Pillow image to an input, float32 (3, H, W) in [0, 1], that shows all of it.

    It is scaled, with its proportions, to fit into (height, width), and grey is added on both sides of it up to the
    next multiples of `stride`: the smallest rectangle that the network takes. is_stretched: fill (height, width)
    instead, as RT-DETR does.
    """

    height: int
    width: int
    stride: int
    is_stretched: bool = False

    def __call__(self, image: Image) -> torch.Tensor:
        import cv2

        pixels = np.asarray(image.convert("RGB"))
        rows, columns = self._scaled(*pixels.shape[:2])
        if (rows, columns) != pixels.shape[:2]:
            pixels = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR)
        shown = np.full((*map(self._padded, (rows, columns)), 3), _GREY, np.uint8)
        top, left = ((whole - part) // 2 for whole, part in zip(shown.shape, (rows, columns), strict=False))
        shown[top : top + rows, left : left + columns] = pixels
        return torch.from_numpy(shown).movedim(-1, 0) / 255

    def _scaled(self, rows: int, columns: int) -> tuple[int, int]:
        if self.is_stretched:
            return self.height, self.width
        factor = min(self.height / rows, self.width / columns)
        return max(round(rows * factor), 1), max(round(columns * factor), 1)

    def _padded(self, side: int) -> int:
        return math.ceil(side / self.stride) * self.stride

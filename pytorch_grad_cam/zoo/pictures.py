"""Pictures of any form as Pillow images: files, bytes, arrays and tensors of 8 bits."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import torch
from PIL import Image

from pytorch_grad_cam.utils.image import unit_range
from pytorch_grad_cam.zoo.read_image import read_image, upright_rgb
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_FORMS = "a path, bytes, a Pillow image, an array (H, W), (H, W, C) or (C, H, W) of 1, 3 or 4 channels"


def is_input(image: Any) -> bool:
    """Whether it is no picture but what a model takes: a tensor of floats."""
    return isinstance(image, torch.Tensor) and image.is_floating_point()


def pictures_of(image: Any) -> list[Any]:
    """The pictures in an array or tensor with a batch axis; of anything else itself."""
    return list(image) if isinstance(image, np.ndarray | torch.Tensor) and image.ndim == 4 else [image]


def as_picture(image: Any) -> Image.Image:
    """The RGB picture of a path, encoded bytes, a Pillow image, an array or a tensor of integers, upright.

    Arrays: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels (grey, RGB, RGBA), of uint8, uint16, bool or floats
    in [0, 1]. As with files, 16 bits become 8 (see `read_image.upright_rgb`) and what is transparent is not looked at.
    Raises UnusableInput for anything else.
    """
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, bytes | bytearray | memoryview):
        try:
            return upright_rgb(Image.open(io.BytesIO(image)))
        except OSError as error:
            raise UnusableInput(f"the {len(image)} bytes are no image that Pillow can read ({error})") from error
    if image is None:
        raise UnusableInput("the image is None, as cv2.imread returns it for a file that it cannot read")
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise UnusableInput(f"the image is {type(image).__name__}, expected {_FORMS}")
    return _of_pixels(image.cpu().numpy() if isinstance(image, torch.Tensor) else image)


def _of_pixels(pixels: np.ndarray) -> Image.Image:
    shape = pixels.shape
    if pixels.ndim == 3 and shape[2] not in _CHANNELS and shape[0] in _CHANNELS:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS) or 0 in shape:
        raise UnusableInput(f"the image has shape {shape}, expected {_FORMS}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return upright_rgb(Image.fromarray(np.ascontiguousarray(_of_8_or_16_bits(pixels))))


def _of_8_or_16_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == bool:
        return 255 * pixels.astype(np.uint8)
    if pixels.dtype == np.uint16:
        return pixels if pixels.ndim == 2 else (pixels >> 8).astype(np.uint8)  # Pillow has no colours of 16 bits
    eight_bits: np.ndarray = np.rint(255 * unit_range(pixels).clip(0, 1)).astype(np.uint8)
    return eight_bits

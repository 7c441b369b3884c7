"""Pictures from files, whatever their mode."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

_SIXTEEN_BITS_AS_32 = ("PNG", "PPM")  # formats of at most 16 bits that Pillow opens as mode I
# Files of 16 bits hold the 10 to 14 bits of X-rays and other detectors. A choice: a dark picture may be below it too.
_FEWER_THAN_16_BITS = 2**14


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture in a file, as `upright_rgb` returns it. Raises UnusableInput where it cannot be read."""
    if not Path(path).is_file():
        raise UnusableInput(f"there is no image {path}")
    try:
        with Image.open(path) as image:
            return upright_rgb(image)
    except Exception as error:
        raise UnusableInput(f"{path} is no image that Pillow can read ({error})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image in RGB, turned as its EXIF says; 16 bits become 8.

    Images of 32 bits (modes F and I), and those of 16 that use at most 14 of them, do not say what is white: their
    lowest value becomes black and their highest white. Raises UnusableInput where a value is not finite.
    """
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS_AS_32)
    upright = ImageOps.exif_transpose(image)
    if sixteen_bits and np.asarray(upright).max(initial=0) >= _FEWER_THAN_16_BITS:  # Pillow would cut them off at 255
        upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
    elif sixteen_bits or upright.mode in ("F", "I"):
        upright = Image.fromarray(_from_black_to_white(np.asarray(upright, dtype=np.float64)))
    return upright.convert("RGB")


def _from_black_to_white(pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all():
        raise UnusableInput("the picture has values that are not finite: replace them")
    scaled = min_max(torch.from_numpy(pixels)[None])[0]
    grey: np.ndarray = np.rint(255 * scaled.numpy()).astype(np.uint8)
    return grey

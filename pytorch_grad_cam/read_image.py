"""Image files as users have them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pytorch_grad_cam.classifiers import UnusableInput


def read_image(path: str) -> Image.Image:
    """The picture in a file, in RGB, upright, 16 bits as 8. Raises UnusableInput where there is none."""
    if not Path(path).is_file():
        raise UnusableInput(f"there is no image {path}")
    try:
        image = ImageOps.exif_transpose(Image.open(path))
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableInput(f"{path} is no image that Pillow can read ({error})") from error

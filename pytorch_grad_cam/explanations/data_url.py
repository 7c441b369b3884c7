"""Pictures as URLs that hold their data, for HTML."""

import base64
import io
from typing import Any

import numpy as np


def data_url(pixels: np.ndarray, kind: str, **options: Any) -> str:
    """A URL that holds uint8 pixels (H, W) or RGB (H, W, 3). kind: 'png' or 'jpeg'. options: see Pillow's `save`."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode()}"

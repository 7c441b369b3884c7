"""Colour tables by name, for overlays, figures and the page alike."""

from functools import cache

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing

DIVERGING = "blue_red"  # of signed maps: blue (-1) over white (0) to red (1)
_LEVELS = 256
_BLUE, _WHITE, _RED = (33, 102, 172), (255, 255, 255), (178, 24, 43)


@cache
def colour_table(name: str) -> np.ndarray:
    """The RGB colours of 256 levels, uint8 (256, 3): 'grey', 'blue_red', OpenCV's of that name, else matplotlib's.

    They are made once and cannot be written to. Raises ValueError for other names.
    """
    table = _colours_called(name)
    table.setflags(write=False)
    return table


def _colours_called(name: str) -> np.ndarray:
    import cv2

    levels = np.arange(_LEVELS, dtype=np.uint8)
    if name == "grey":
        return np.stack([levels] * 3, axis=1)
    if name == DIVERGING:
        stops = np.array([_BLUE, _WHITE, _RED]).T
        channels = [np.interp(levels, (0, (_LEVELS - 1) / 2, _LEVELS - 1), of_channel) for of_channel in stops]
        between: np.ndarray = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
        return between
    number = getattr(cv2, f"COLORMAP_{name.upper()}", None)
    if number is not None:
        return np.array(cv2.applyColorMap(levels[:, None], number)[:, 0, ::-1])
    with needing("matplotlib", "figures"):
        from matplotlib import colormaps

    if name not in colormaps:
        raise ValueError(
            f"cmap is {name!r}: pass 'jet', 'viridis', 'magma', 'grey' or another name that matplotlib has"
        )
    table: np.ndarray = np.rint(255 * colormaps[name](levels)[:, :3]).astype(np.uint8)
    return table


def blended(picture: np.ndarray, heat: np.ndarray, table: np.ndarray, image_weight: float) -> np.ndarray:
    """A picture, uint8 (*heat, 3), under a map in [0, 1] in the colours of a table: uint8 of the picture's shape.

    The numbers are those of `show_cam_on_image`; here each level's share is computed once, not for each pixel.
    """
    import cv2

    of_colours = (1 - image_weight) * table.astype(np.float32) / 255
    of_picture = (image_weight * (np.arange(_LEVELS, dtype=np.float32) / 255)).astype(np.float32)
    blend = of_colours.take((255 * np.clip(heat, 0, 1)).astype(np.uint8), axis=0)
    blend += cv2.LUT(picture.reshape(len(picture), -1), of_picture).reshape(picture.shape)
    blend *= 255
    pixels: np.ndarray = np.rint(blend, out=blend).astype(np.uint8)
    return pixels

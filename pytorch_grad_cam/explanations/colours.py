"""Colour tables by name, for overlays, figures and the page alike."""

import numpy as np

_LEVELS = 256


def colour_table(name: str) -> np.ndarray:
    """The RGB colours of 256 levels, uint8 (256, 3): 'grey', OpenCV's of that name, else matplotlib's.

    Raises ValueError for other names.
    """
    import cv2

    levels = np.arange(_LEVELS, dtype=np.uint8)
    if name == "grey":
        return np.stack([levels] * 3, axis=1)
    number = getattr(cv2, f"COLORMAP_{name.upper()}", None)
    if number is not None:
        return np.array(cv2.applyColorMap(levels[:, None], number)[:, 0, ::-1])
    from matplotlib import colormaps

    if name not in colormaps:
        raise ValueError(
            f"cmap is {name!r}: pass 'jet', 'viridis', 'magma', 'grey' or another name that matplotlib has"
        )
    table: np.ndarray = np.rint(255 * colormaps[name](levels)[:, :3]).astype(np.uint8)
    return table


def coloured(heat: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A map in [0, 1] in the colours of a table: uint8 (*heat, 3)."""
    colours: np.ndarray = table[(255 * np.clip(heat, 0, 1)).astype(np.uint8)]
    return colours

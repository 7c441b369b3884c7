"""Edges of the picture alone: what a map that shows edges has to be compared with."""

import numpy as np


def sobel_cam(img: np.ndarray) -> np.ndarray:
    """The mean of the absolute horizontal and vertical Sobel gradients: uint8 RGB (H, W, 3) to uint8 (H, W)."""
    import cv2

    grey = cv2.cvtColor(img, cv2.COLOR_RGB2GRAY)
    horizontal, vertical = map(cv2.convertScaleAbs, cv2.spatialGradient(grey))
    return cv2.addWeighted(horizontal, 0.5, vertical, 0.5, 0)

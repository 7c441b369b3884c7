"""The regions where a map is high: the mask above Otsu's threshold, and boxes."""

import numpy as np

from pytorch_grad_cam.utils.image import check_range

Box = tuple[int, int, int, int]


def otsu_mask(cam_map: np.ndarray) -> np.ndarray:
    """The pixels of a map (H, W) in [0, 1] above Otsu's threshold, which separates its values best: bool (H, W).

    A blank map gives an empty mask. Raises ValueError for other shapes, for values outside [0, 1] and for NaN.

    >>> otsu_mask(np.array([[0.0, 0.1, 0.9], [0.2, 0.8, 1.0]])).astype(int)
    array([[0, 0, 1],
           [0, 1, 1]])
    """
    import cv2

    heat = np.asarray(cam_map)
    if heat.ndim != 2 or heat.size == 0:
        raise ValueError(f"the map has shape {heat.shape}, expected (H, W)")
    check_range(heat, "map")
    levels = (255 * np.clip(heat, 0, 1)).astype(np.uint8)
    _, above = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask: np.ndarray = above.astype(bool)
    return mask


def boxes_of(mask: np.ndarray) -> list[Box]:
    """The boxes (left, top, right, bottom) around the connected regions of a mask (H, W), the largest region first.

    Diagonal neighbours are connected. right and bottom lie behind the last pixel, as in slices:
    mask[top:bottom, left:right]. Raises ValueError for other shapes.

    >>> boxes_of(np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]))
    [(2, 1, 4, 3), (0, 0, 1, 1)]
    """
    import cv2

    inside = np.asarray(mask)
    if inside.ndim != 2 or inside.size == 0:
        raise ValueError(f"the mask has shape {inside.shape}, expected (H, W)")
    _, _, statistics, _ = cv2.connectedComponentsWithStats((inside != 0).astype(np.uint8), connectivity=8)
    regions = sorted(statistics[1:].tolist(), key=lambda row: -row[cv2.CC_STAT_AREA])
    return [(left, top, left + width, top + height) for left, top, width, height, _ in regions]

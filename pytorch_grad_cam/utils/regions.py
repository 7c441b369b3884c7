"""The regions where a map is high: the mask above Otsu's threshold, boxes, and outlines."""

import numpy as np

from pytorch_grad_cam.utils.image import check_range

Box = tuple[int, int, int, int]
Outline = list[tuple[int, int]]


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


def outlines_of(mask: np.ndarray) -> list[Outline]:
    """The outlines of a mask (H, W): closed polygons (x, y) along the edges of its pixels, holes among them.

    By the rule of even and odd they cover its pixels and no others. Diagonal neighbours are apart. Raises ValueError
    for other shapes.

    >>> outlines_of(np.array([[0, 1, 1], [0, 1, 0]]))
    [[(1, 0), (3, 0), (3, 1), (2, 1), (2, 2), (1, 2)]]
    """
    inside = np.asarray(mask)
    if inside.ndim != 2:
        raise ValueError(f"the mask has shape {inside.shape}, expected (H, W)")
    steps = _steps_around(np.pad(inside != 0, 1).astype(np.int8))
    outlines = []
    while steps:
        place = next(iter(steps))
        outline: Outline = []
        heading = (0, 0)
        while place in steps:
            right = -heading[1], heading[0]
            onward = right if right in steps[place] else steps[place][0]
            steps[place].remove(onward)
            if not steps[place]:
                del steps[place]
            if onward != heading:
                outline.append(place)
            heading = onward
            place = place[0] + heading[0], place[1] + heading[1]
        outlines.append(outline)
    return outlines


def _steps_around(padded: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """From each corner of a pixel the steps (x, y) to the next ones that have the mask on their right side."""
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    below = np.diff(padded[:, 1:-1], axis=0)
    behind = np.diff(padded[1:-1], axis=1)
    kinds = [(below == 1, (0, 0), (1, 0)), (below == -1, (1, 0), (-1, 0))]
    kinds += [(behind == 1, (0, 1), (0, -1)), (behind == -1, (0, 0), (0, 1))]
    for edges, (x0, y0), step in kinds:
        for y, x in np.argwhere(edges).tolist():
            steps.setdefault((x + x0, y + y0), []).append(step)
    return steps

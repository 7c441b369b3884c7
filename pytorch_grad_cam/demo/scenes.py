"""Scenes of handwritten digits in procedural clutter, with exact ground truth.

The digits are real handwriting (scikit-learn's copy of the UCI test set, 1,797 images of 8 x 8 pixels), split by
source image, so that no handwriting seen in training occurs in a held-out scene.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing

SIZE = 64
CLASSES = 10
_INK = 0.35

_Box = tuple[int, int, int, int]


class Scene(NamedTuple):
    """One scene and its ground truth.

    image: uint8 RGB (64, 64, 3). labels: the classes (D,) of D digits, two as a rule. boxes: (D, 4) as x0, y0, x1, y1
    in pixels, upper bounds exclusive. masks: bool (D, 64, 64), the pixels of each digit.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray

    def cells(self, grid: int) -> np.ndarray:
        """The cells, of so many along an axis, whose centre lies in each digit's box: bool (D, grid, grid)."""
        centres = (np.arange(grid) + 0.5) * SIZE / grid
        left, top, right, bottom = self.boxes.T[..., None]
        rows, columns = (centres >= top) & (centres < bottom), (centres >= left) & (centres < right)
        cells: np.ndarray = rows[:, :, None] & columns[:, None]
        return cells


@cache
def source_digits(split: str) -> list[list[np.ndarray]]:
    """The handwritten digits of a split ('train': 80 % of each class, 'test': the other 20 %), cropped to their ink.

    Returns for each class a list of float32 images in [0, 1]. Raises ValueError for another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
    with needing("scikit-learn", "concepts"):
        from sklearn.datasets import load_digits

    bunch = load_digits()
    by_class = []
    for digit in range(CLASSES):
        images = bunch.images[bunch.target == digit].astype(np.float32) / 16
        order = np.random.default_rng(digit).permutation(len(images))
        held_out = len(images) // 5
        chosen = order[:held_out] if split == "test" else order[held_out:]
        by_class.append([_cropped(images[i]) for i in chosen])
    return by_class


def make_scene(
    rng: np.random.Generator, split: str = "test", difficulty: float = 1.0, several: int | None = None
) -> Scene:
    """One random scene. difficulty 0: large light digits on a plain dark ground; 1: 14-26 px, any colours, clutter.

    several: so many digits, at least two of them of one class; None is two of different classes.
    """
    digits = source_digits(split)
    any_colours = rng.random() < difficulty
    image = _background(rng)
    plain = image.mean((0, 1))
    image = plain * (1.0 if any_colours else 0.3) + difficulty * (image - plain)
    for _ in range(rng.integers(0, round(8 * difficulty) + 1)):
        _draw_stroke(rng, image)
    for _ in range(rng.integers(0, round(4 * difficulty) + 1)):
        fragment = digits[rng.integers(CLASSES)]
        _draw_fragment(rng, image, fragment[rng.integers(len(fragment))])

    labels = rng.choice(CLASSES, size=2, replace=False) if several is None else _with_a_repeated(rng, several)
    smallest = round(22 - 8 * difficulty)
    masks: list[np.ndarray] = []
    boxes: list[_Box] = []
    for label in labels:
        sources = digits[label]
        glyph = _warped(rng, sources[rng.integers(len(sources))], int(rng.integers(smallest, 27)))
        top, left = _free_place(rng, glyph.shape, boxes)
        coverage = np.zeros((SIZE, SIZE), np.float32)
        coverage[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
        mask = coverage > _INK
        ground = image[mask].mean(0)
        _paint(image, coverage, _contrasting_colour(rng, ground) if any_colours else 1 - ground / 2)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        masks.append(mask)
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    noisy = image + rng.normal(0, 0.02, image.shape)
    return Scene((255 * np.clip(noisy, 0, 1)).astype(np.uint8), labels, np.array(boxes), np.array(masks))


def _with_a_repeated(rng: np.random.Generator, count: int) -> np.ndarray:
    labels = rng.integers(CLASSES, size=count)
    labels[-1] = labels[0]
    return labels


def _cropped(digit: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(digit.max(1) > 0.2), np.flatnonzero(digit.max(0) > 0.2)
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _warped(rng: np.random.Generator, digit: np.ndarray, height: int) -> np.ndarray:
    """The digit enlarged to `height` pixels, slightly rotated and sheared, cropped to its ink again."""
    scale = height / digit.shape[0]
    angle, shear = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, shear], [0, 1]]) * scale
    side = 2 * 26
    centre = np.array([digit.shape[1] - 1, digit.shape[0] - 1]) / 2
    shift = (side - 1) / 2 - matrix @ centre
    canvas = cv2.warpAffine(digit, np.c_[matrix, shift], (side, side), flags=cv2.INTER_CUBIC)
    canvas = np.clip(canvas, 0, 1)
    rows, columns = np.flatnonzero(canvas.max(1) > _INK), np.flatnonzero(canvas.max(0) > _INK)
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(rng: np.random.Generator, shape: tuple[int, ...], boxes: list[_Box]) -> tuple[int, int]:
    """A uniformly drawn place that overlaps no box; where 100 draws find none, the one that overlaps least."""
    height, width = shape
    best, best_overlap = (0, 0), SIZE * SIZE
    for _ in range(100):
        top, left = int(rng.integers(0, SIZE - height + 1)), int(rng.integers(0, SIZE - width + 1))
        overlap = sum(
            max(0, min(left + width, x1) - max(left, x0)) * max(0, min(top + height, y1) - max(top, y0))
            for x0, y0, x1, y1 in boxes
        )
        if overlap < best_overlap:
            best, best_overlap = (top, left), overlap
        if overlap == 0:
            break
    return best


def _contrasting_colour(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    for _ in range(100):
        colour = rng.uniform(0, 1, 3)
        if np.abs(colour - ground).sum() > 0.9:
            return colour
    return np.round(1 - ground)


def _paint(image: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> None:
    image += coverage[..., None] * (colour - image)


def _background(rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(4)
    first, second = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
    if kind == 0:
        coarse = rng.uniform(0, 1, (rng.integers(2, 9), rng.integers(2, 9), 3))
        return np.clip(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), 0, 1)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind == 1:
        blend = (along - along.min()) / np.ptp(along)
    elif kind == 2:
        across = np.cos(angle) * y - np.sin(angle) * x
        warp = rng.uniform(0, 0.15) * np.sin(2 * np.pi * rng.uniform(1, 3) * across)
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 8) * (along + warp))
    else:
        centre_y, centre_x = rng.uniform(0, 1, 2)
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 8) * np.hypot(y - centre_y, x - centre_x))
    background: np.ndarray = first + blend[..., None] * (second - first)
    return background


def _draw_stroke(rng: np.random.Generator, image: np.ndarray) -> None:
    start, end = rng.integers(0, SIZE, 2), rng.integers(-20, 21, 2)
    coverage = np.zeros((SIZE, SIZE), np.float32)
    cv2.line(coverage, start.tolist(), (start + end).tolist(), 1.0, int(rng.integers(1, 4)), cv2.LINE_AA)
    _paint(image, coverage, rng.uniform(0, 1, 3))


def _draw_fragment(rng: np.random.Generator, image: np.ndarray, digit: np.ndarray) -> None:
    """A piece of a digit, too small to read."""
    height, width = rng.integers(2, 5, 2)
    top = rng.integers(0, max(1, digit.shape[0] - height + 1))
    left = rng.integers(0, max(1, digit.shape[1] - width + 1))
    piece = digit[top : top + height, left : left + width]
    side = int(rng.integers(4, 10))
    glyph = np.clip(cv2.resize(piece, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    top, left = rng.integers(0, SIZE - side + 1, 2)
    coverage = np.zeros((SIZE, SIZE), np.float32)
    coverage[top : top + side, left : left + side] = glyph
    _paint(image, coverage, rng.uniform(0, 1, 3))

"""Masks of maps, and the boxes around their regions."""

import numpy as np
import pytest

from pytorch_grad_cam.utils.regions import boxes_of, otsu_mask, outlines_of


def test_the_threshold_parts_the_values_best():
    """Otsu's threshold has the least variance within the two parts, of all thresholds."""
    heat = np.random.default_rng(0).beta(2, 5, (24, 32)).astype(np.float32)
    heat[5:10, 5:12] += 0.9 * (1 - heat[5:10, 5:12])
    levels = (255 * heat).astype(np.uint8)
    parts = [(levels[levels <= level], levels[levels > level]) for level in range(levels.min(), levels.max())]
    within = [low.var() * low.size + high.var() * high.size for low, high in parts]
    np.testing.assert_array_equal(otsu_mask(heat), levels > levels.min() + int(np.argmin(within)))


def test_a_blank_map_has_no_region():
    mask = otsu_mask(np.zeros((6, 8), dtype=np.float32))
    assert mask.dtype == bool
    assert not mask.any()
    assert boxes_of(mask) == []


def test_a_box_cuts_out_its_region():
    mask = np.zeros((12, 16), dtype=bool)
    mask[2:5, 3:9] = mask[8, 14] = mask[9, 15] = mask[6:12, 0] = True
    boxes = boxes_of(mask)
    assert boxes == [(3, 2, 9, 5), (0, 6, 1, 12), (14, 8, 16, 10)], "the largest first; diagonal pixels are together"
    assert sum(mask[top:bottom, left:right].sum() for left, top, right, bottom in boxes) == mask.sum()


@pytest.mark.parametrize("heat", [np.zeros((1, 4, 4)), np.zeros((0, 4)), np.full((2, 2), np.nan), np.full((2, 2), 7.0)])
def test_no_map(heat):
    with pytest.raises(ValueError, match=r"expected \(H, W\)|expected \[0, 1\]|NaN"):
        otsu_mask(heat)


def test_no_mask():
    with pytest.raises(ValueError, match=r"shape \(4,\), expected \(H, W\)"):
        boxes_of(np.ones(4))


def covered_by(outlines, shape):
    """By the rule of even and odd: how many upright edges lie to the left of each pixel."""
    crossings = np.zeros(shape, int)
    for outline in outlines:
        for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                crossings[min(y0, y1) : max(y0, y1), x0:] += 1
    return crossings % 2 == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_outlines_cover_the_pixels_and_no_others(share):
    mask = np.random.default_rng(0).random((19, 23)) < share
    outlines = outlines_of(mask)
    np.testing.assert_array_equal(covered_by(outlines, mask.shape), mask)
    for outline in outlines:  # nothing but corners
        turns = zip(outline[-1:] + outline[:-1], outline, outline[1:] + outline[:1], strict=True)
        assert all(before[0] != after[0] and before[1] != after[1] for before, _, after in turns)


def test_outlines_of_holes_and_of_diagonal_neighbours():
    ring = np.ones((3, 3))
    ring[1, 1] = 0
    assert outlines_of(ring) == [[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 2), (2, 2), (2, 1), (1, 1)]]
    assert sorted(map(len, outlines_of(np.eye(2)))) == [4, 4]
    assert outlines_of(np.zeros((2, 2))) == []


def test_outlines_of_what_is_no_mask():
    with pytest.raises(ValueError, match=r"the mask has shape \(3,\), expected \(H, W\)"):
        outlines_of(np.ones(3))

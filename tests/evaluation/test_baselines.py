"""Maps that look at no model."""

import numpy as np
import pytest
import torch

from pytorch_grad_cam.evaluation.baselines import baseline_maps
from pytorch_grad_cam.metrics.localisation import energy_pointing_game, pointing_game


def test_noise_is_of_the_image_alone_and_at_chance():
    images = torch.zeros(3, 3, 8, 10)
    first = baseline_maps(images, [4, 5, 6], None, 0)["random map"]
    again = baseline_maps(images[:1], [5], None, 0)["random map"]
    assert torch.equal(first[1], again[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, baseline_maps(images, [4, 5, 6], None, 1)["random map"])
    many = baseline_maps(torch.zeros(1500, 1, 8, 10), range(1500), None, 0)["random map"]
    box = np.tile([2, 1, 6, 5], (1500, 1))
    for metric in (pointing_game, energy_pointing_game):
        assert float(metric(many, box).mean()) == pytest.approx(16 / 80, abs=0.04)


def test_the_centre_is_the_highest():
    for size in ((9,), (9, 11), (5, 7, 9)):
        found = baseline_maps(torch.zeros(2, 3, *size), [0, 1], None, 0)["centre Gaussian"]
        assert found.shape == (2, *size)
        middle = tuple(length // 2 for length in size)
        assert float(found[(1, *middle)]) == float(found.max()) == 1
        assert float(found.min()) == 0
        for axis in range(1, len(size) + 1):
            torch.testing.assert_close(found, found.flip(axis))


def test_edges_are_where_the_picture_changes():
    images = torch.zeros(1, 3, 8, 10)
    images[..., 5:] = 1
    found = baseline_maps(images, [0], None, 0)["edge detector"]
    assert found.shape == (1, 8, 10)
    assert (found[0, :, 4:6] == 1).all()
    assert found.sum() == 16
    assert "edge detector" not in baseline_maps(torch.zeros(1, 3, 8), [0], None, 0)


def test_the_truth_is_a_map_where_it_is_known():
    found = baseline_maps(torch.zeros(1, 3, 8, 10), [0], [[1, 2, 4, 5]], 0)["ground truth"]
    assert found.sum() == 9
    assert found[0, 2:5, 1:4].all()

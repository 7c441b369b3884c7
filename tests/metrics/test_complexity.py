"""Entropy, sparseness and similarity of maps: literal loops, limits, and what changes nothing."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from pytorch_grad_cam.metrics.complexity import entropy, sparseness
from pytorch_grad_cam.metrics.similarity import similarity

SEEDS = range(20)
both = pytest.mark.parametrize("metric", [entropy, sparseness])


def maps_of_seed(seed, count=3):
    maps = np.random.default_rng(seed).normal(size=(count, 5, 7)).astype(np.float32)
    return maps.round(1) if seed % 2 else maps


@pytest.mark.parametrize("seed", SEEDS)
def test_literally(seed):
    maps = maps_of_seed(seed)
    for cam, found_entropy, found_sparseness in zip(
        maps, entropy(maps), sparseness(torch.from_numpy(maps)), strict=True
    ):
        values = sorted(abs(float(value)) for value in cam.ravel())
        total = sum(values)
        expected = -sum(v / total * math.log(v / total) for v in values if v)
        assert float(found_entropy) == pytest.approx(expected, abs=1e-5)
        pairs = sum(abs(a - b) for a in values for b in values)
        assert float(found_sparseness) == pytest.approx(pairs / (2 * len(values) * total), abs=1e-5)


@both
def test_scale_sign_and_order_make_no_difference(metric):
    maps = maps_of_seed(2, count=6)
    found = metric(maps)
    assert found.dtype == torch.float32
    for factor in (1e-20, -1, 1e20):
        np.testing.assert_allclose(metric(maps * np.float32(factor)), found, rtol=1e-4)
    np.testing.assert_array_equal(metric(maps[::-1].copy()), found.flip(0))


def test_limits():
    one = np.zeros((1, 5, 7))
    one[0, 2, 3] = 0.4
    assert float(entropy(one)) == 0
    assert float(sparseness(one)) == pytest.approx(1 - 1 / 35)
    for value in (0, 1e-9, 3):  # a blank map counts as a constant one
        constant = np.full((1, 5, 7), value)
        assert float(entropy(constant)) == pytest.approx(math.log(35))
        assert float(sparseness(constant)) == pytest.approx(0, abs=1e-6)


@both
def test_what_is_refused(metric):
    with pytest.raises(ValueError, match="not finite"):
        metric(np.full((1, 5, 7), np.nan))
    with pytest.raises(ValueError, match="at least one map"):
        metric(np.zeros((0, 5, 7)))


@pytest.mark.parametrize("seed", SEEDS)
def test_similarity_literally(seed):
    first, second = maps_of_seed(seed), maps_of_seed(seed + 100) + maps_of_seed(seed)
    pearson = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]
    spearman = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(similarity(first, second), pearson, atol=1e-5)
    np.testing.assert_allclose(similarity(first, second, "spearman"), spearman, atol=1e-5)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_similarity_of_constant_maps(kind):
    maps = maps_of_seed(0)
    constant = np.full_like(maps, 0.1)
    assert similarity(constant, maps, kind).tolist() == [0, 0, 0]
    assert similarity(constant, constant * 7, kind).tolist() == [1, 1, 1]
    np.testing.assert_allclose(similarity(maps, -maps, kind), -1, atol=1e-6)
    np.testing.assert_allclose(similarity(maps * 1e-12 + 1e-13, maps, kind), 1, atol=1e-5)


def test_similarity_refuses():
    maps = maps_of_seed(0)
    with pytest.raises(ValueError, match="similarity is 'ssim'"):
        similarity(maps, maps, "ssim")
    with pytest.raises(ValueError, match=r"shape \(3, 5, 7\) cannot be compared with maps of shape \(2, 5, 7\)"):
        similarity(maps, maps[:2])

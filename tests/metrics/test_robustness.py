"""Max-sensitivity, infidelity, stability under flips and shifts: literal loops, limits, and what is refused."""

import numpy as np
import pytest
import torch
from nets import convolutional, images

from pytorch_grad_cam import EigenCAM, GradCAM
from pytorch_grad_cam.metrics.robustness import flip_stability, infidelity, max_sensitivity, shift_stability

SEEDS = range(20)


def draws(draw, x, samples, seed):
    generator = torch.Generator().manual_seed(seed)
    return [draw(x.shape[1:], generator=generator) for _ in range(samples)]


@pytest.fixture(scope="module")
def cam():
    return GradCAM(convolutional(), "last")


def image_and_class(seed):
    return images(seed=seed), [seed % 5, (seed + 2) % 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_max_sensitivity_literally(cam, seed):
    x, classes = image_and_class(seed)
    found = max_sensitivity(cam, x, classes, radius=0.3, samples=3, seed=seed)
    for image, category, of_image in zip(x, classes, found, strict=True):
        before = cam(image[None], [category])[0].astype(np.float64)
        norm = np.sqrt((before**2).sum())
        changes = [
            np.sqrt(((cam((image + 0.3 * (2 * u - 1))[None], [category])[0] - before) ** 2).sum()) / (norm or 1)
            for u in draws(torch.rand, x, 3, seed)
        ]
        assert float(of_image) == pytest.approx(max(changes), abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("normalise", [True, False])
def test_infidelity_literally(seed, normalise):
    model, (x, classes) = convolutional(), image_and_class(seed)
    maps = np.random.default_rng(seed).random((2, 12, 16)).astype(np.float32)
    found = infidelity(model, x, maps, classes, noise=0.5, samples=4, seed=seed, normalise=normalise)
    for image, cam_map, category, of_image in zip(x, maps, classes, found, strict=True):
        said, falls = [], []
        for noise in draws(torch.randn, x, 4, seed):
            change = 0.5 * noise
            with torch.no_grad():
                falls.append(float(model(image[None])[0, category] - model((image - change)[None])[0, category]))
            said.append(sum(float((change[c] * torch.from_numpy(cam_map)).sum()) for c in range(3)))
        beta = sum(a * b for a, b in zip(said, falls, strict=True)) / sum(a * a for a in said) if normalise else 1
        expected = sum((beta * a - b) ** 2 for a, b in zip(said, falls, strict=True)) / 4
        assert float(of_image) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_stability_literally(cam, seed):
    x, classes = image_and_class(seed)
    maps = cam(x, classes)

    def correlation(a, b):
        if a.std() == 0 or b.std() == 0:
            return float(a.std() == b.std())
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    mirrored = cam(x.flip(-1), classes)[..., ::-1]
    expected = [correlation(*pair) for pair in zip(maps, mirrored, strict=True)]
    np.testing.assert_allclose(flip_stability(cam, x, classes), expected, atol=1e-5)

    of_shifts = []
    for down, across in ((3, 0), (-3, 0), (0, 3), (0, -3)):
        rows = [min(max(i - down, 0), 11) for i in range(12)]
        columns = [min(max(j - across, 0), 15) for j in range(16)]
        shifted = cam(x[:, :, rows][..., columns], classes)
        pairs = [(i, j) for i in range(12) for j in range(16) if 0 <= i + down < 12 and 0 <= j + across < 16]
        of_shifts.append(
            [
                correlation(
                    *(np.array(v) for v in zip(*[(a[i, j], b[i + down, j + across]) for i, j in pairs], strict=True))
                )
                for a, b in zip(maps, shifted, strict=True)
            ]
        )
    np.testing.assert_allclose(shift_stability(cam, x, classes, pixels=3), np.mean(of_shifts, axis=0), atol=1e-5)


def test_a_map_that_goes_along_is_stable_and_one_that_does_not_is_not():
    def goes_along(input_tensor, targets):
        return input_tensor.abs().sum(1)

    def stays(input_tensor, targets):
        return torch.arange(192.0).reshape(1, 12, 16).expand(len(input_tensor), -1, -1)

    x = images()
    np.testing.assert_allclose(flip_stability(goes_along, x, [0, 1]), 1, atol=1e-5)
    np.testing.assert_allclose(shift_stability(goes_along, x, [0, 1], pixels=3), 1, atol=1e-5)
    np.testing.assert_allclose(max_sensitivity(stays, x, [0, 1]), 0)
    assert (flip_stability(stays, x, [0, 1]) < 0.995).all()


def test_a_map_that_says_how_the_score_falls_has_no_infidelity():
    """Of a linear model: the gradient, the same for all channels."""
    weights = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))

    class Linear(torch.nn.Module):
        def forward(self, x):
            return torch.stack([(x * weights).sum((1, 2, 3)), -(x * weights).sum((1, 2, 3))], dim=1)

    x, right = images(), weights.expand(2, -1, -1)
    for normalise, scale in ((True, 0.01), (True, 100), (False, 1)):
        np.testing.assert_allclose(infidelity(Linear(), x, right * scale, [0, 0], normalise=normalise), 0, atol=1e-4)
    wrong = infidelity(Linear(), x, right.flip(-1), [0, 0])
    blank = infidelity(Linear(), x, torch.zeros(2, 12, 16), [0, 0])
    assert (wrong > 1).all()
    assert (wrong <= blank).all()


def test_scale_and_order_make_no_difference(cam):
    x, classes = images(count=4), [0, 3, 1, 2]
    order = [2, 0, 3, 1]

    def scaled(input_tensor, targets):
        return cam(input_tensor, targets) * 7

    for metric in (max_sensitivity, flip_stability, shift_stability):
        found = metric(cam, x, classes)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(metric(scaled, x, classes), found, atol=1e-5)
        np.testing.assert_allclose(metric(cam, x[order], [classes[i] for i in order]), found[order], atol=1e-4)
    maps = cam(x, classes)
    found = infidelity(cam.model, x, maps, classes)
    np.testing.assert_allclose(infidelity(cam.model, x, maps * 7, classes), found, rtol=1e-3)
    again = infidelity(cam.model, x[order], maps[order], [classes[i] for i in order])
    np.testing.assert_allclose(again, found[order], rtol=1e-3)


def test_classes_that_are_not_given_are_those_of_the_unchanged_images(cam):
    x = images()
    highest = cam.model(x).argmax(1).tolist()
    for metric in (max_sensitivity, flip_stability, shift_stability):
        np.testing.assert_array_equal(metric(cam, x, None), metric(cam, x, highest))


def test_blank_maps_and_constant_images():
    def blank(input_tensor, targets):
        return torch.zeros(len(input_tensor), *input_tensor.shape[2:])

    x = images()
    assert max_sensitivity(blank, x, [0, 1]).tolist() == [0, 0]
    assert flip_stability(blank, x, [0, 1]).tolist() == shift_stability(blank, x, [0, 1]).tolist() == [1, 1]
    with EigenCAM(convolutional(), "last") as cam:
        assert max_sensitivity(cam, torch.zeros(1, 3, 12, 16), [0]).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cam, x: max_sensitivity(cam, x, [0, 1], samples=0), "samples is 0"),
        (lambda cam, x: infidelity(cam.model, x, np.ones((2, 12, 16)), [0, 1], samples=0), "samples is 0"),
        (lambda cam, x: infidelity(cam.model, x, np.full((2, 12, 16), np.nan), [0, 1]), "not finite"),
        (lambda cam, x: shift_stability(cam, x, [0, 1], pixels=0), "pixels is 0"),
        (lambda cam, x: shift_stability(cam, x, [0, 1], pixels=6), "pixels is 6 for images"),
        (lambda cam, x: flip_stability(lambda **_: np.full((2, 12, 16), np.nan), x, [0, 1]), "not finite"),
        (lambda cam, x: flip_stability(lambda **_: np.ones((2, 3, 3)), x, [0, 1]), "the maps have shape"),
    ],
)
def test_what_is_refused(cam, call, message):
    with pytest.raises(ValueError, match=message):
        call(cam, images())

"""Deletion, insertion, average drop and gain: literal loops, several targets, what is shared, what is refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam.metrics.average_drop import AverageDrop, AverageGain
from pytorch_grad_cam.metrics.baselines import baseline_of, blurred
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.deletion_insertion import Deletion, Insertion
from pytorch_grad_cam.metrics.road import ROADCombined, ROADMostRelevantFirst
from pytorch_grad_cam.metrics.shared_scores import scored_in_common
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

SEEDS = range(20)
METRICS = {
    "deletion": Deletion(steps=6),
    "insertion": Insertion(steps=6),
    "average drop": AverageDrop(),
    "average gain": AverageGain(),
}
every_metric = pytest.mark.parametrize("name", METRICS)


def case(seed, rank=2, count=2):
    """A network, images, maps of which some values are equal, and probabilities as targets."""
    model, x = convolutional(rank, seed=seed), images(rank, count, seed)
    maps = np.random.default_rng(seed).random((count, *x.shape[2:])).astype(np.float32)
    targets = [ClassifierOutputSoftmaxTarget((seed + i) % 5) for i in range(count)]
    return model, x, np.round(maps, 1 if seed % 2 else 7), targets


def probability(model, image, target):
    with torch.no_grad():
        return float(target(model(image[None])[0]))


def literal_curve(model, image, cam, target, steps, first, last):
    """The pixels of the map one by one: `first` is changed into `last`, the highest pixel first."""
    ranked = sorted(np.ndindex(cam.shape), key=lambda p: -cam[p])
    changed, done, scores = first.clone(), 0, []
    for step in range(steps + 1):
        while done < math.ceil(step * len(ranked) / steps):
            changed[(slice(None), *ranked[done])] = last[(slice(None), *ranked[done])]
            done += 1
        scores.append(probability(model, changed, target))
    return scores


def area(scores):
    return sum((a + b) / 2 for a, b in itertools.pairwise(scores)) / (len(scores) - 1)


def literally_blurred(image):
    """A Gaussian of 11 pixels, the border repeated, along one axis after the other."""
    weights = np.exp(-(np.arange(-5, 6) ** 2) / 50)
    weights /= weights.sum()
    found = image.double().numpy()
    for axis in range(1, found.ndim):
        length = found.shape[axis]
        found = sum(
            w * found.take(np.clip(np.arange(length) + i - 5, 0, length - 1), axis) for i, w in enumerate(weights)
        )
    return torch.from_numpy(found).float()


@pytest.mark.parametrize("seed", SEEDS)
def test_curves_literally(seed):
    model, x, maps, targets = case(seed)
    steps = 3 + seed % 4
    baseline = ("zero", "mean", "blur")[seed % 3]
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    others = {"zero": torch.zeros_like(x), "mean": mean, "blur": torch.stack([*map(literally_blurred, x)])}[baseline]
    rows = list(zip(x, maps, targets, others, strict=True))
    deleted = [literal_curve(model, image, cam, target, steps, image, other) for image, cam, target, other in rows]
    inserted = [literal_curve(model, image, cam, target, steps, other, image) for image, cam, target, other in rows]
    for metric, expected in ((Deletion(steps, baseline), deleted), (Insertion(steps, baseline), inserted)):
        shares, curves = metric.curve(x, maps, targets, model)
        np.testing.assert_allclose(curves, expected, atol=1e-5)
        np.testing.assert_allclose(shares, np.arange(steps + 1) / steps, atol=1e-6)
        found = metric(x, maps, targets, model)
        np.testing.assert_allclose(found, [area(scores) for scores in expected], atol=1e-5)
        assert found.dtype == np.float32


@pytest.mark.parametrize("seed", SEEDS)
def test_average_drop_and_gain_literally(seed):
    model, x, maps, targets = case(seed)
    drops, gains = [], []
    for image, cam, target in zip(x, maps, targets, strict=True):
        before = probability(model, image, target)
        after = probability(model, image * torch.from_numpy((cam - cam.min()) / (cam.max() - cam.min())), target)
        drops.append(100 * max(0, before - after) / before)
        gains.append(100 * max(0, after - before) / (1 - before))
    np.testing.assert_allclose(AverageDrop()(x, maps, targets, model), drops, atol=1e-4)
    np.testing.assert_allclose(AverageGain()(x, maps, targets, model), gains, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes(rank):
    model, x, maps, targets = case(3, rank)
    expected = [
        area(literal_curve(model, i, c, t, 5, literally_blurred(i), i))
        for i, c, t in zip(x, maps, targets, strict=True)
    ]
    np.testing.assert_allclose(Insertion(5)(x, maps, targets, model), expected, atol=1e-5)


@every_metric
def test_scale_and_order_make_no_difference(name):
    model, x, maps, targets = case(2, count=5)
    found = METRICS[name](x, maps, targets, model)
    assert found.std() > 0 or name == "average gain"
    for scale in (1e-4, 100):
        np.testing.assert_allclose(METRICS[name](x, maps * np.float32(scale), targets, model), found, atol=1e-3)
    order = [3, 0, 4, 1, 2]
    again = METRICS[name](x[order], maps[order], [targets[i] for i in order], model)
    np.testing.assert_allclose(again, found[order], atol=1e-5)


@every_metric
def test_several_targets_an_image(name):
    model, x, maps, _ = case(4, count=3)
    maps = np.stack([maps, maps[::-1]], axis=1)
    lists = [[ClassifierOutputSoftmaxTarget(i), ClassifierOutputSoftmaxTarget(i + 2)] for i in range(3)]
    found = METRICS[name](x, torch.from_numpy(maps), lists, model)
    for k in range(2):
        of_one = METRICS[name](x, maps[:, k], [row[k] for row in lists], model)
        np.testing.assert_allclose(found[:, k], of_one, atol=1e-5)


class Counting(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.shown = model, []

    def forward(self, x):
        self.shown.append(x.clone())
        return self.model(x)


def test_what_is_asked_in_common_is_what_each_gives_alone():
    model, x, maps, targets = case(1, count=3)
    metrics = [
        *METRICS.values(), ROADCombined([20, 70]), ROADMostRelevantFirst(50), DropInConfidence(),
        IncreaseInConfidence(),
    ]  # fmt: skip
    counting = Counting(model)
    together = scored_in_common(metrics, x, maps, targets, counting)
    for metric, found in zip(metrics, together, strict=True):
        np.testing.assert_allclose(found, metric(x, maps, targets, model), atol=1e-5)
    assert sum(map(len, counting.shown)) == 3 * (1 + 6 + 6 + 1 + 1 + 4 + 1 + 1 + 1)
    assert [len(batch) for batch in counting.shown] == [3] + [8] * 7 + [3 * 21 - 56]


def test_fifty_steps_of_both_are_101_forwards_of_an_image():
    """The image itself is the end of one curve and the beginning of the other."""
    model, x, maps, targets = case(0, count=1)
    counting = Counting(model)
    scored_in_common([Deletion(), Insertion()], x, maps, targets, counting)
    assert sum(map(len, counting.shown)) == 101
    assert len(counting.shown) == 1 + 13


def test_classes_that_are_not_given_are_those_of_the_unchanged_images():
    model, x, maps, _ = case(5)
    highest = model(x).argmax(1).tolist()
    np.testing.assert_array_equal(Deletion(4)(x, maps, None, model), Deletion(4)(x, maps, highest, model))


def test_a_better_map_is_better(digits_net):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.demo import example_scene, preprocess_scene

    scene = preprocess_scene(example_scene())
    good = GradCAM(digits_net, "layer4")(scene, 5)
    noise = np.random.default_rng(0).random(good.shape).astype(np.float32)
    targets = [lambda output: output.sigmoid()[5]]
    of_maps = {
        name: [float(METRICS[name](scene, cam, targets, digits_net)[0]) for cam in (good, noise, 1 - good)]
        for name in ("deletion", "insertion")
    }
    assert of_maps["deletion"] == sorted(of_maps["deletion"])
    assert of_maps["insertion"] == sorted(of_maps["insertion"], reverse=True)


def test_the_model_and_the_images_are_left_as_they_were():
    model, x, maps, targets = case(0)
    before, model = x.clone(), model.train()
    scored_in_common([*METRICS.values()], x, maps, targets, model)
    assert torch.equal(x, before)
    assert all(module.training for module in model.modules())


@every_metric
def test_degenerate_inputs(name):
    """A blank map is the order of the pixels; of constant images the whole curve is one score."""
    model, x, maps, targets = case(0)
    blank = METRICS[name](x, np.zeros_like(maps), targets, model)
    if name in ("deletion", "insertion"):
        row_by_row = np.broadcast_to(-np.arange(maps[0].size).reshape(maps[0].shape), maps.shape).astype(np.float32)
        np.testing.assert_array_equal(blank, METRICS[name](x, row_by_row, targets, model))
        same = torch.zeros_like(x)
        score = probability(model, same[0], targets[0])
        assert METRICS[name](same, maps, targets, model)[0] == pytest.approx(score, abs=1e-6)
    else:
        assert np.isfinite(blank).all()
    for bad, message in ((maps * np.nan, "not finite"), (maps[:1], "the maps have shape"), (maps[:, :4], "maps have")):
        with pytest.raises(ValueError, match=message):
            METRICS[name](x, bad, targets, model)
    with pytest.raises(ValueError, match=r"expected \(2, 2, 12, 16\) for 2 targets an image"):
        METRICS[name](x, maps, [[0, 1], [1, 2]], model)


def test_one_class():
    """Its softmax is 1 whatever is shown: nothing falls, nothing is gained."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    _, x, maps, _ = case(0)
    targets = [ClassifierOutputSoftmaxTarget(0)] * 2
    for name, value in (("deletion", 1), ("insertion", 1), ("average drop", 0), ("average gain", 0)):
        np.testing.assert_allclose(METRICS[name](x, maps, targets, model), value, atol=1e-6)


def test_blur_is_of_every_rank_and_keeps_a_constant():
    for rank in (1, 2, 3):
        x = images(rank)
        torch.testing.assert_close(blurred(x)[0], literally_blurred(x[0]), atol=1e-5, rtol=0)
        torch.testing.assert_close(blurred(torch.ones_like(x)), torch.ones_like(x))


def test_own_baselines():
    model, x, maps, targets = case(0)
    grey = Deletion(4, torch.tensor([0.1, 0.2, 0.3])[:, None, None])(x, maps, targets, model)
    assert np.array_equal(
        grey, Deletion(4, lambda x: torch.tensor([0.1, 0.2, 0.3])[:, None, None])(x, maps, targets, model)
    )
    assert not np.array_equal(grey, Deletion(4)(x, maps, targets, model))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Deletion(0), "steps is 0"),
        (lambda: Insertion(-1), "steps is -1"),
        (lambda: baseline_of("noise", images()), "baseline is 'noise', expected 'zero', 'mean', 'blur'"),
        (lambda: baseline_of(torch.zeros(2, 2, 2, 2), images()), r"baseline has shape \(2, 2, 2, 2\)"),
        (lambda: AverageDrop()(*case(0)[1:3], [0, 1], lambda_net(-1.0)), "scores lie from -1 to -1, expected prob"),
        (lambda: AverageGain()(*case(0)[1:3], [0, 1], lambda_net(3.0)), r"expected probabilities in \[0, 1\]"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def lambda_net(value):
    class Constant(nn.Module):
        def forward(self, x):
            return x.new_full((len(x), 5), value)

    return Constant()

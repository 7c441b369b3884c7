"""Randomised parameters: literally, on a copy of the model; the model is put back exactly; other classes."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from nets import Remembering, Transformer, convolutional, images
from scipy.stats import spearmanr
from torch import nn

from pytorch_grad_cam import EigenCAM, GradCAM, HiResCAM
from pytorch_grad_cam.metrics.randomisation import (
    cascading_randomisation,
    efficient_mprt,
    kept,
    mprt,
    random_logit,
    randomise,
    randomised_modules,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

SEEDS = range(20)
NAMES = ["head", "hidden", "conv", "stem"]


def reset(model, name, seed):
    torch.manual_seed(seed)
    model.get_submodule(name).reset_parameters()


def rank_correlation(a, b):
    constant = [float(each.std()) == 0 for each in (a, b)]
    return float(all(constant)) if any(constant) else spearmanr(a.ravel(), b.ravel())[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_cascade_literally(seed):
    model, x, classes = convolutional(seed=seed), images(seed=seed), [seed % 5, 1]
    order = ("top_down", "bottom_up")[seed % 2]
    found = cascading_randomisation(GradCAM(model, "last"), x, classes, order, seed=seed)
    names = NAMES if order == "top_down" else NAMES[::-1]
    assert list(found) == names
    before = GradCAM(model, "last")(x, classes)
    again = copy.deepcopy(model)
    for name in names:
        reset(again, name, seed)
        after = GradCAM(again, "last")(x, classes)
        expected = [rank_correlation(*pair) for pair in zip(before, after, strict=True)]
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
    of_all = mprt(GradCAM(model, "last"), x, classes, order=order, seed=seed)
    np.testing.assert_allclose(of_all, torch.stack([*found.values()]).mean(0), atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS[::4])
def test_the_smooth_form_literally(seed):
    model, x, classes = convolutional(seed=seed), images(seed=seed), [3, 1]
    found = cascading_randomisation(GradCAM(model, "last"), x, classes, "bottom_up", samples=3, noise=0.2, seed=seed)

    def smooth(network):
        generator = torch.Generator().manual_seed(seed)
        draws = [torch.zeros(3, 12, 16), *(torch.randn(3, 12, 16, generator=generator) for _ in range(2))]
        noisy = [[image + 0.2 * (image.max() - image.min()) * draw for image in x] for draw in draws]
        return np.mean([GradCAM(network, "last")(torch.stack(each), classes) for each in noisy], axis=0)

    again = copy.deepcopy(model)
    reset(again, "stem", seed)
    expected = [rank_correlation(*pair) for pair in zip(smooth(model), smooth(again), strict=True)]
    np.testing.assert_allclose(found["stem"], expected, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_efficient_form_literally(seed):
    model, x, classes = convolutional(seed=seed), images(seed=seed), [3, 1]
    found = efficient_mprt(GradCAM(model, "last"), x, classes, bins=10, seed=seed)
    again = copy.deepcopy(model)
    for name in NAMES:
        reset(again, name, seed)

    def entropies(network):
        of_maps = []
        for cam_map in GradCAM(network, "last")(x, classes):
            shares = np.histogram(cam_map.astype(np.float64), bins=10)[0] / cam_map.size
            of_maps.append(-sum(p * np.log(p) for p in shares if p))
        return np.array(of_maps)

    before, after = entropies(model), entropies(again)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(before == after, 0, (after - before) / before)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def state_of(model):
    return {
        name: (id(tensor), tensor.data_ptr(), tensor.clone())
        for name, tensor in model.state_dict(keep_vars=True).items()
    }


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_put_back_exactly(fails):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 5)).train()
    x = images()
    model(x).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    loss = model(x).square().sum()  # a graph of the user's, alive all the time
    before, generator = state_of(model), torch.get_rng_state()
    calls = []

    class Failing:
        def __init__(self):
            self.model = model

        def __call__(self, input_tensor, targets):
            calls.append(1)
            if fails and len(calls) == 3:
                raise RuntimeError("in the middle")
            return input_tensor.abs().sum(1)

    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            mprt(Failing(), x, [0, 1])
    else:
        mprt(Failing(), x, [0, 1])
        efficient_mprt(Failing(), x, [0, 1])
    for name, (identity, pointer, values) in state_of(model).items():
        assert (identity, pointer) == before[name][:2]
        assert torch.equal(values, before[name][2])
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training for module in model.modules())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    loss.backward()


class Forgetful(dict):
    """Keeps nothing."""

    def setdefault(self, key, value):
        return value


@pytest.mark.parametrize("training", [False, True])
def test_what_the_model_has_made_of_its_parameters_is_made_anew(training):
    x, fresh, used = images(), Remembering(), Remembering().train(training)
    fresh.cache = Forgetful()
    with torch.no_grad():
        scores = used(x)
    cache, kept_factors = used.cache, dict(used.cache)
    for call in (cascading_randomisation, efficient_mprt):
        expected, found = (call(HiResCAM(model, "stem"), x, [0, 1]) for model in (fresh, used))
        for pair in (
            zip(expected.values(), found.values(), strict=True) if isinstance(found, dict) else [(expected, found)]
        ):
            torch.testing.assert_close(*pair)
    assert used.cache is cache
    assert used.cache == kept_factors
    assert all(module.training is training for module in used.modules())
    assert torch.equal(used(x), scores)


def test_parameters_without_a_reset_are_shuffled():
    model = Transformer()
    names = [name for name, _ in randomised_modules(model)]
    assert names[-1] == ""
    assert {"head", "patch", "attention", "norm"} <= {*names}
    token = model.token.detach().clone()
    with kept(model):
        randomise(model, seed=1)
        assert not torch.equal(model.token, token)
        assert torch.equal(model.token.flatten().sort().values, token.flatten().sort().values)
    assert torch.equal(model.token, token)


def test_a_map_of_the_image_alone_never_changes_and_of_the_classes_neither():
    class OfImage:
        model = convolutional()

        def __call__(self, input_tensor, targets):
            return input_tensor.abs().sum(1)

    x = images()
    np.testing.assert_allclose(mprt(OfImage(), x, [0, 1]), 1, atol=1e-6)
    assert efficient_mprt(OfImage(), x, [0, 1]).tolist() == [0, 0]
    np.testing.assert_allclose(random_logit(OfImage(), x, [0, 1]), 1, atol=1e-6)
    with EigenCAM(convolutional(), "last") as cam:
        np.testing.assert_allclose(random_logit(cam, x, [0, 1]), 1, atol=1e-5)


def test_random_logit_of_a_target_that_is_a_class():
    x, cam = images(), GradCAM(convolutional(), "last")
    np.testing.assert_array_equal(random_logit(cam, x, [ClassifierOutputTarget(3), 1]), random_logit(cam, x, [3, 1]))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_logit_literally(seed):
    """Whatever other class is drawn, the number is the correlation with its map, and it is never the own class."""
    model, x, classes = convolutional(seed=seed), images(seed=seed), [seed % 5, (seed + 1) % 5]
    cam = GradCAM(model, "last")
    asked = []

    class Recording:
        def __init__(self):
            self.model = model

        def __call__(self, input_tensor, targets):
            asked.append(list(targets))
            return cam(input_tensor, targets)

    found = random_logit(Recording(), x, classes, seed=seed)
    assert asked[0] == classes
    assert all(a != b for a, b in zip(*asked, strict=True))
    for image, own, other, of_image in zip(x, *asked, found, strict=True):
        a, b = cam(image[None], [own])[0], cam(image[None], [other])[0]
        constant = [each.std() == 0 for each in (a, b)]
        expected = float(all(constant)) if any(constant) else np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert float(of_image) == pytest.approx(expected, abs=1e-4)


def test_order_and_scale_make_no_difference():
    cam = GradCAM(convolutional(), "last")
    x, classes, order = images(count=4), [0, 3, 1, 2], [2, 0, 3, 1]

    class Scaled:
        model = cam.model

        def __call__(self, input_tensor, targets):
            return cam(input_tensor, targets) * 5

    for metric in (mprt, efficient_mprt, random_logit):
        found = metric(cam, x, classes)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(metric(Scaled(), x, classes), found, atol=1e-3)
        np.testing.assert_allclose(metric(cam, x[order], [classes[i] for i in order]), found[order], atol=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda cam, x: mprt(cam, x, [0, 1], order="sideways"), ValueError, "order is 'sideways'"),
        (lambda cam, x: mprt(cam, x, [0, 1], kind="ssim"), ValueError, "similarity is 'ssim'"),
        (lambda cam, x: mprt(cam, x, [0, 1], samples=0), ValueError, "samples is 0"),
        (lambda cam, x: mprt(lambda **_: x, x, [0, 1]), ValueError, "no `model` to randomise"),
        (lambda cam, x: efficient_mprt(cam, x, [0, 1], bins=1), ValueError, "bins is 1"),
        (lambda cam, x: random_logit(cam, x, [0]), ValueError, "1 classes for 2 images"),
        (
            lambda cam, x: random_logit(cam, x, [0, len]),
            TypeError,
            "built-in function len> is no class, so that there is",
        ),
        (lambda cam, x: random_logit(cam, x, [0, 9]), IndexError, "class 9 does not exist: the model has 5"),
        (lambda cam, x: randomised_modules(nn.ReLU()), ValueError, "ReLU has no parameters"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(GradCAM(convolutional(), "last"), images())


def test_a_model_with_one_class_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="the model has one class"):
        random_logit(GradCAM(model, "1"), images(), [0, 0])


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_tables_of_every_kind_are_kept(kind):
    """Those of a module itself are ordered ones before torch 2.5."""
    model = nn.Linear(2, 2)
    model.made = kind(before=1)
    with kept(model):
        model.made["within"] = 2
    assert model.made == kind(before=1)

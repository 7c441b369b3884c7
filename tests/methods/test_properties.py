"""What holds for any shape, rank, batch, layout, target and layer: drawn by hypothesis."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import CONVOLUTIONS, POOLINGS
from torch import nn

import pytorch_grad_cam as P

pytestmark = pytest.mark.slow

CLASSES = 4
# Deterministic functions of an image; the wrappers and RandomCAM have tests of their own.
METHODS = (
    P.GradCAM, P.HiResCAM, P.GradCAMElementWise, P.GradCAMPlusPlus, P.XGradCAM, P.LayerCAM, P.ShapleyCAM, P.EigenCAM,
    P.EigenGradCAM, P.SegEigenCAM, P.KPCA_CAM, P.FEM, P.FullGrad, P.AblationCAM, P.ScoreCAM, P.FinerCAM,
)  # fmt: skip
many = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


class ChannelsLast(nn.Module):
    """What is before and behind it is channels first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.movedim(1, -1)


class Tokens(nn.Module):
    """(N, C, *spatial) to tokens behind one of their mean, and back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).mT
        return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)


class Net(nn.Module):
    """Two convolutions and a linear classifier; `target` returns the map in one of three layouts."""

    def __init__(self, rank: int, widths: tuple[int, int], layout: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convolution = CONVOLUTIONS[rank]
        self.early = nn.Sequential(convolution(3, widths[0], 3, padding=1), nn.ReLU())
        self.late = nn.Sequential(convolution(widths[0], widths[1], 3, padding=1), nn.ReLU())
        self.target = {"first": nn.Identity(), "last": ChannelsLast(), "tokens": Tokens()}[layout]
        self.layout = layout
        self.head = nn.Sequential(POOLINGS[rank](1), nn.Flatten(), nn.Linear(widths[1], CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.late(self.early(x))
        made = self.target(features)
        if self.layout == "last":
            made = made.movedim(-1, 1)
        if self.layout == "tokens":
            made = made[:, 1:].mT.unflatten(2, features.shape[2:])
        return self.head(made)


@st.composite
def cases(draw, layouts=("first", "last", "tokens")):
    rank = draw(st.sampled_from([1, 2, 3]))
    layout = draw(st.sampled_from([each for each in layouts if each != "tokens" or rank == 2]))
    size = tuple(draw(st.integers(5, 9)) for _ in range(rank))
    widths = draw(st.tuples(st.integers(2, 5), st.integers(2, 6).filter(lambda width: width not in size)))
    seed = draw(st.integers(0, 1000))
    model = Net(rank, widths, layout, seed).eval()
    x = torch.randn(draw(st.integers(1, 4)), 3, *size, generator=torch.Generator().manual_seed(seed))
    categories = [draw(st.integers(0, CLASSES - 1)) for _ in x]
    return model, x, categories


def maps_of(method, model, x, targets, layers="target", **options):
    with method(model, [] if method is P.FullGrad else layers, **options) as cam:
        return cam(x, targets)


def tolerance(method) -> dict:
    return {"atol": 1e-3 if method is P.KPCA_CAM else 1e-4, "rtol": 0}


@many
@given(cases(), st.sampled_from(METHODS))
def test_result_of_anything(case, method):
    model, x, categories = case
    maps = maps_of(method, model, x, categories)
    assert maps.shape == (len(x), *x.shape[2:])
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    highest = maps.reshape(len(x), -1).max(1)
    assert ((highest == 0) | (highest == 1)).all()
    assert maps.min() >= 0


@many
@given(cases(), st.sampled_from(METHODS))
def test_a_batch_is_its_images(case, method):
    model, x, categories = case
    whole = maps_of(method, model, x, categories)
    for index in range(len(x)):
        alone = maps_of(method, model, x[index : index + 1], categories[index : index + 1])
        np.testing.assert_allclose(whole[index], alone[0], **tolerance(method))


@many
@given(cases(), st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_permuted_images(case, method, random):
    model, x, categories = case
    order = random.sample(range(len(x)), len(x))
    permuted = maps_of(method, model, x[order], [categories[index] for index in order])
    np.testing.assert_allclose(permuted, maps_of(method, model, x, categories)[order], **tolerance(method))


@many
@given(cases(layouts=("first",)), st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_permuted_channels(case, method, random):
    """Of the target layer, and with them what reads them: the same network."""
    model, x, categories = case
    expected = maps_of(method, model, x, categories)
    order = random.sample(range(model.late[0].out_channels), model.late[0].out_channels)
    with torch.no_grad():
        model.late[0].weight.copy_(model.late[0].weight[order])
        model.late[0].bias.copy_(model.late[0].bias[order])
        model.head[2].weight.copy_(model.head[2].weight[:, order])
    np.testing.assert_allclose(maps_of(method, model, x, categories), expected, **tolerance(method))


@many
@given(cases(layouts=("first",)), st.sampled_from(METHODS))
def test_flipped_images_of_an_equivariant_network(case, method):
    """Kernels that are the same from left to right: the flipped image has the flipped map."""
    model, x, categories = case
    with torch.no_grad():
        for convolution in (model.early[0], model.late[0]):
            convolution.weight.copy_((convolution.weight + convolution.weight.flip(-1)) / 2)
    flipped = maps_of(method, model, x.flip(-1), categories)
    np.testing.assert_allclose(np.flip(flipped, -1), maps_of(method, model, x, categories), **tolerance(method))


@many
@given(cases(layouts=("first",)), st.sampled_from(METHODS))
def test_order_of_the_layers(case, method):
    model, x, categories = case
    maps = [maps_of(method, model, x, categories, layers=layers) for layers in (["early", "late"], ["late", "early"])]
    np.testing.assert_allclose(*maps, **tolerance(method))


@many
@given(cases(), st.sampled_from([P.GradCAM, P.LayerCAM, P.EigenGradCAM]), st.data())
def test_forms_of_targets(case, method, data):
    """A number, a list, a tensor, targets, functions: the same maps."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x, _ = case
    category = data.draw(st.integers(0, CLASSES - 1))
    expected = maps_of(method, model, x, [category] * len(x))
    forms = [
        category,
        np.int64(category),
        np.array([category] * len(x)),
        torch.tensor([category] * len(x)),
        [ClassifierOutputTarget(category)] * len(x),
        lambda scores: scores[category],
        [lambda scores: scores[category]] * len(x),
    ]
    found = maps_of(method, model, x, data.draw(st.sampled_from(forms)))
    np.testing.assert_allclose(found, expected, atol=1e-6)

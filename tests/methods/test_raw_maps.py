"""Maps that are not rectified, not scaled, or not joined: `relu`, `normalize` and `fuse`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attentive import Attentive
from nets import convolutional, images
from PIL import Image

from pytorch_grad_cam import (
    LIFTCAM,
    RISE,
    SESS,
    EigenCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    HiResCAM,
    LayerCAM,
    LeGrad,
    RefineCAM,
    explain,
)
from pytorch_grad_cam.demo import example_scene, preprocess_scene


def activation_and_gradient(model, layer, x, category):
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    scores = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[:, category].sum(), kept[0])
    return kept[0].detach(), gradient


def drawn(evidence, x):
    """Evidence (N, *grid) at the size of the images."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[x.ndim - 2]
    return F.interpolate(evidence[:, None], size=x.shape[2:], mode=mode, align_corners=False)[:, 0]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_raw_maps_are_the_evidence(rank):
    """As captum's LayerGradCam and LayerGradientXActivation, summed over the channels, give it."""
    model, x = convolutional(rank).double(), images(rank).double()
    a, g = activation_and_gradient(model, model.last, x, 1)
    expected = {
        GradCAM: (a * g.mean(tuple(range(2, g.ndim)), keepdim=True)).sum(1),
        HiResCAM: (a * g).sum(1),
    }
    for method, evidence in expected.items():
        with method(model, model.last, relu=False, normalize=None) as cam:
            maps = cam(x, 1, as_tensor=True)
        assert maps.min() < 0 < maps.max()
        torch.testing.assert_close(maps, drawn(evidence, x).float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_contributions_of_channels(rank):
    """As captum's attributions to a layer, channel by channel."""
    model, x = convolutional(rank).double(), images(rank).double()
    for method, weights in {GradCAM: grad_means, HiResCAM: lambda g: g}.items():
        layers = [model.first, model.last]
        found = method(model, layers).contributions(x, [1, 3])
        several = method(model, layers, relu=False).contributions(x, [[1, 3]] * 2)
        for layer, of_layer, of_both in zip(layers, found, several, strict=True):
            for image, category in enumerate((1, 3)):
                a, g = activation_and_gradient(model, layer, x, category)
                torch.testing.assert_close(of_layer[image], (a * weights(g))[image])
                torch.testing.assert_close(of_both[:, image], a * weights(g))


def grad_means(gradients):
    return gradients.mean(tuple(range(2, gradients.ndim)), keepdim=True)


def test_contributions_leave_the_cam_as_it_was():
    model, x = convolutional(), images()
    cam = GradCAM(model, model.last)
    expected = cam(x, 1)
    assert cam.contributions(x, lambda scores: -scores.abs().sum())[0].shape == model[:4](x).shape
    np.testing.assert_array_equal(cam(x, 1), expected)
    assert "evidence" not in vars(cam)


@pytest.mark.parametrize("kind", [EigenCAM, FullGrad, RISE, LeGrad])
def test_contributions_of_a_map_that_is_no_sum(kind):
    model, layers = (Attentive("fused"), None) if kind is LeGrad else (convolutional(), "last")
    options = {"masks": 4} if kind is RISE else {}
    cam = kind(model, layers if kind.uses_layers else None, **options)
    with pytest.raises(ValueError, match=f"a map of {kind.__name__} is no weighted sum of channels"):
        cam.contributions(images(), 3)


@pytest.mark.parametrize("kind", [GradCAM, LIFTCAM])
def test_a_layer_that_is_named_twice(kind):
    maps = [kind(convolutional(), layers)(images(), 3) for layers in (["last"], ["last", "last"])]
    np.testing.assert_allclose(*maps, atol=1e-6)


def test_explain_draws_signed_maps_in_diverging_colours(digits_net):
    scene = Image.fromarray(example_scene())
    explanation = explain(digits_net, scene, "HiResCAM", [5], "layer4", relu=False, normalize="max", preprocess=of_demo)
    assert explanation.is_signed
    assert explanation.default_cmap == "blue_red"
    assert np.abs(explanation.maps).max() == 1
    with pytest.raises(ValueError, match=r"maps in \[0, 1\] or \[-1, 1\]: pass normalize='max'"):
        explain(digits_net, scene, "HiResCAM", [5], normalize=None, preprocess=of_demo)


def of_demo(picture):
    return preprocess_scene(np.array(picture))[0]


def test_each_choice():
    model, x = convolutional(2).double(), images(2).double()
    a, g = activation_and_gradient(model, model.last, x, 1)
    evidence = (a * g).sum(1)
    largest = drawn(evidence / evidence.abs().amax((1, 2), keepdim=True), x)
    positive = drawn(evidence.relu(), x)
    lowest, highest = drawn(evidence, x).amin((1, 2), keepdim=True), drawn(evidence, x).amax((1, 2), keepdim=True)
    expected = {
        (False, "max"): largest / largest.abs().amax((1, 2), keepdim=True),
        (True, None): positive,
        (True, "max"): positive / positive.amax((1, 2), keepdim=True),
        (False, "minmax"): (drawn(evidence, x) - lowest) / (highest - lowest),
    }
    for (relu, normalize), maps in expected.items():
        found = HiResCAM(model, model.last, relu=relu, normalize=normalize)(x, 1, as_tensor=True)
        torch.testing.assert_close(found, maps.float(), atol=1e-6, rtol=1e-5)


def test_minus_one_target_is_the_other_sign():
    model, x = convolutional(2), images(2)
    cam = GradCAM(model, model.last, relu=False, normalize="max")
    against = cam(x, lambda scores: -scores[1])
    np.testing.assert_allclose(cam(x, 1), -against, atol=1e-6)


@pytest.mark.parametrize(
    ("fuse", "joined"),
    [
        ("mean", lambda maps: maps.mean(1)),
        ("max", lambda maps: maps.take_along_dim(maps.abs().argmax(1, keepdim=True), 1)[:, 0]),
        ("product", lambda maps: maps[:, 0] * maps[:, 1]),
        (None, lambda maps: maps),
    ],
)
def test_layers_are_joined_as_asked(fuse, joined):
    model, x = convolutional(2).double(), images(2).double()
    layers = [model.first, model.last]
    raw = []
    for layer in layers:
        a, g = activation_and_gradient(model, layer, x, 1)
        raw.append(drawn((a * g).sum(1), x))
    expected = joined(torch.stack(raw, dim=1))
    found = HiResCAM(model, layers, relu=False, normalize=None, fuse=fuse)(x, 1, as_tensor=True)
    torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=1e-5)


def test_maps_of_each_layer_are_those_of_the_layer_alone():
    model, x = convolutional(2), images(2)
    layers = [model.first, model.last]
    each = LayerCAM(model, layers, fuse=None)(x, [[1, 2]] * len(x))
    assert each.shape == (len(x), 2, 2, *x.shape[2:])
    for number, layer in enumerate(layers):
        alone = LayerCAM(model, layer)(x, [[1, 2]] * len(x))
        np.testing.assert_allclose(each[:, :, number], alone, atol=1e-6)


def test_the_largest_of_two_layers_as_torch_cam_fuses_them():
    """Each layer's map scaled from 0 to 1, enlarged, and of both the higher value; here it is scaled once more."""
    model, x = convolutional(2).double(), images(2).double()
    of_layers = []
    for layer in (model.first, model.last):
        a, g = activation_and_gradient(model, layer, x, 1)
        evidence = (a * g.relu()).sum(1).relu()
        low, high = evidence.amin((1, 2), keepdim=True), evidence.amax((1, 2), keepdim=True)
        of_layers.append(drawn((evidence - low) / (high - low), x))
    expected = torch.maximum(*of_layers)
    low = expected.amin((1, 2), keepdim=True)
    expected = (expected - low) / (expected.amax((1, 2), keepdim=True) - low)
    found = LayerCAM(model, [model.first, model.last], fuse="max")(x, 1, as_tensor=True)
    torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=1e-5)


def test_non_finite_evidence_is_blank_whatever_is_asked():
    model, x = convolutional(2), images(2)
    x[1, 0, 2, 2] = torch.nan
    with pytest.warns(UserWarning, match="non-finite"):
        maps = GradCAM(model, model.last, relu=False, normalize=None)(x, 1)
    assert np.isfinite(maps).all()
    assert maps[0].any()
    assert not maps[1].any()


def test_smoothed_raw_maps_and_full_gradients():
    model, x = convolutional(2), images(2)
    smoothed = GradCAM(model, model.last, relu=False, normalize="max")(x, 1, aug_smooth=True)
    assert smoothed.min() < 0
    raw, scaled = FullGrad(model, normalize="max")(x, 1), FullGrad(model)(x, 1)
    assert raw.max() == pytest.approx(1)
    lowest = raw.min((1, 2), keepdims=True)
    np.testing.assert_allclose((raw - lowest) / (1 - lowest), scaled, atol=1e-5)


def test_finer_cam_hands_the_choice_on():
    model, x = convolutional(2), images(2)
    maps = FinerCAM(model, model.last, relu=False, normalize="max")(x, 1)
    assert np.abs(maps).max((1, 2)) == pytest.approx(1)
    assert maps.min() < 0


class JoinsItself(GradCAM):
    def aggregate_multi_layers(self, cam_per_target_layer):
        return super().aggregate_multi_layers(cam_per_target_layer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: GradCAM(model, model.last, normalize="sum"), "normalize is 'sum', expected 'minmax', 'max' or"),
        (lambda model: GradCAM(model, model.last, fuse="sum"), "fuse is 'sum', expected 'mean', 'max', 'product' or"),
        (lambda model: RefineCAM(model, model.last, normalize=None), "RefineCAM joins maps in .* takes no normalize="),
        (lambda model: SESS(model, model.last, relu=False), "SESS joins maps in .* takes no relu="),
        (lambda model: JoinsItself(model, model.last, relu=False), "JoinsItself joins maps in .* by a step of its own"),
    ],
)
def test_what_is_not_taken(make, message):
    with pytest.raises(ValueError, match=message):
        make(convolutional(2))


def test_what_is_the_default():
    model, x = convolutional(2), images(2)
    default = GradCAM(model, model.last)(x, 1)
    np.testing.assert_array_equal(GradCAM(model, model.last, relu=True, normalize="minmax", fuse="mean")(x, 1), default)

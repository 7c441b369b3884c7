"""Nothing in a call waits for the device between the first forward and the result, but one look whether maps are blank.

On a CPU there is nothing to wait for; what would wait on a GPU are operations that hand a value to Python, or whose
result has a size that depends on values.
"""

import warnings

import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_grad_cam import (
    KPCA_CAM,
    EigenCAM,
    EigenGradCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
from pytorch_grad_cam.engine.cam_warning import CamWarning

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "item")
METHODS = [
    EigenCAM,
    EigenGradCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    KPCA_CAM,
    LayerCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
]


class Waits(TorchDispatchMode):
    """Counts the operations that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if name in WAITING or by_mask:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def waits_of(cam, x, *args, **options) -> list[str]:
    cam(x, *args, **options)  # what is found out at the first call may wait
    with Waits() as waits, warnings.catch_warnings():
        warnings.simplefilter("error")
        cam(x, *args, **options)
    return waits.seen


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("targets", [None, 3, [3, 1], [[3, 1, 0], [1, 2, 3]]], ids=str)
@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_one_wait_a_call(kind, targets, eigen_smooth):
    model = convolutional()
    cam = kind(model, [] if kind is FullGrad else ["first", "last"])
    assert len(waits_of(cam, images(), targets, eigen_smooth=eigen_smooth, as_tensor=True)) == 1


def test_reasons_of_many_blank_maps_wait_no_longer_than_that_of_one():
    model, x = convolutional(), images(count=1)
    with torch.no_grad():  # all activations speak against every class
        model.hidden.weight.abs_()
        model.head.weight.abs_().neg_()
    cam = GradCAM(model, "last", check_place=False)
    waits = []
    for count in (1, 5):
        with Waits() as of_call, pytest.warns(CamWarning, match="speaks against the target") as warned:
            cam(x, [list(range(count))], as_tensor=True)
        assert len(warned) == count
        waits.append(of_call.seen)
    assert waits[0] == waits[1]


@pytest.mark.parametrize("kind", [GradCAM, LayerCAM, EigenCAM, EigenGradCAM, KPCA_CAM, ShapleyCAM])
@pytest.mark.parametrize("count", [2, 8])
def test_one_wait_a_call_behind_tokens(kind, count):
    """With eight images there are enough tokens that rows of zeros are left out of the backward pass."""
    cam = kind(Transformer().eval(), "norm")
    assert len(waits_of(cam, images(count=count), None, as_tensor=True)) == 1


def test_probabilities_wait_once_more():
    """Whether rounding has lost their gradient; what a network only hands on, as here by a view, is not waited for."""
    for end, expected in ((nn.Softmax(1), 2), (nn.Unflatten(1, (5, 1)), 1)):
        model = convolutional().append(end)
        cam = GradCAM(model, "last", output_transform=lambda output: output.flatten(1))
        assert len(waits_of(cam, images(), 3, as_tensor=True)) == expected


def test_augmentations_wait_once_each():
    cam = GradCAM(convolutional(), "last")
    # Six augmentations, one of which is the image itself.
    assert len(waits_of(cam, images(), None, True, as_tensor=True)) == 6


def test_the_highest_class_is_not_brought_to_the_host():
    cam, x = GradCAM(convolutional(), "last"), images()
    maps = cam(x)
    classes = cam.outputs.argmax(1).tolist()
    np.testing.assert_array_equal(maps, cam(x, classes))


def test_the_search_that_a_blank_map_triggers_is_remembered(monkeypatch):
    from pytorch_grad_cam.locate import found_layers

    model, searches = convolutional(), []
    search = found_layers.Search
    monkeypatch.setattr(found_layers, "Search", lambda *args: searches.append(1) or search(*args))
    model.pool.register_forward_hook(lambda module, inputs, output: output * 0)
    cam = GradCAM(model, ["first"])
    for expected in (1, 1, 2):
        x = images() if expected == 1 else torch.randn(1, 3, 20, 20)
        with pytest.warns(UserWarning, match="zero gradient"):
            cam(x, 3)
        assert len(searches) == expected


class FrozenBackbone(nn.Module):
    """A backbone under `no_grad`, as of many fine-tuned models, and a head; counts its forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.forwards, self.with_gradients = convolutional(), 0, []
        self.net.stem.register_forward_hook(lambda *_: self.with_gradients.append(torch.is_grad_enabled()))

    def forward(self, x):
        self.forwards += 1
        with torch.no_grad():
            x = self.net[:4](x)
        return self.net[4:](x)


def test_autograd_costs_nothing_in_front_of_the_layer():
    model = convolutional()
    seen = []
    for name in ("stem", "last", "head"):
        getattr(model, name).register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    for options, in_front in (({}, False), ({"compute_input_gradient": True}, True), ({"detach": False}, True)):
        cam = GradCAM(model, "last", **options)
        cam(images(), 3)
        seen.clear()
        cam(images(), 3)
        assert seen == [in_front, True, True]
    assert torch.is_grad_enabled()


def test_a_backbone_under_no_grad_runs_once_more_in_the_first_call_alone():
    model = FrozenBackbone().eval()
    cam = GradCAM(model, "net.last", check_place=False)
    expected = GradCAM(model.net, "last")(images(), 3)
    for forwards in (2, 3, 4):
        np.testing.assert_array_equal(cam(images(), 3), expected)
        assert model.forwards == forwards
    assert not any(model.with_gradients)


@pytest.mark.parametrize("kind", [EigenCAM, GradCAM, HiResCAM, KPCA_CAM, LayerCAM])
def test_a_new_cam_of_a_known_model_runs_it_once(kind):
    """What was found out about a model's layer is not found out again: many make a CAM for each image."""
    model, runs = convolutional(), []
    model.register_forward_hook(lambda *_: runs.append(1))
    kind(model, "last")(images(), 3)
    runs.clear()
    with kind(model, "last") as cam:
        cam(images(), 3)
    assert len(runs) == 1

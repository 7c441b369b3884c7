"""Names of methods, keywords and targets: what is meant is found or said."""

from functools import partial

import numpy as np
import pytest
import torch
from every_method import METHODS
from nets import convolutional

from pytorch_grad_cam import BaseCAM, CamWarning, EigenCAM, FinerCAM, GradCAM, explain
from pytorch_grad_cam.explanations import methods
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.methods import methods_of
from pytorch_grad_cam.utils.model_targets import (
    BinaryClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    FinerWeightedTarget,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
)

X = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(0))
HOW = {"layers": "last", "align": "cell"}


@pytest.fixture(scope="module")
def net():
    return convolutional()


@pytest.mark.parametrize("name", ["GradCAM", "Grad-CAM", "grad_cam", "grad cam", "GRADCAM"])
def test_a_method_in_any_spelling(name, net):
    assert explain(net, X, name, **HOW).panels[0].method == "GradCAM"


@pytest.mark.parametrize("name", ["GradCAM++", "Grad-CAM++", "GradCAMPlusPlus", "grad_cam_plusplus"])
def test_grad_cam_plusplus_in_any_spelling(name):
    assert methods.method_called(name).__name__ == "GradCAMPlusPlus"


def test_all_methods_are_those_of_any_network_that_take_no_hours():
    names = {method.__name__ for method in methods_of("all")}
    assert names == {method.__name__ for method in METHODS} - {"SSCAM", "ISCAM"}


def test_a_method_that_does_not_exist_has_a_neighbour(net):
    with pytest.raises(ValueError, match=r"no method is called 'Grad-CAN'; did you mean gradcam"):
        explain(net, X, "Grad-CAN")


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("method", "explain takes no 'method'; did you mean 'methods'"),
        ("target", "did you mean 'targets'"),
        ("target_layers", "did you mean 'layers'"),
        ("layer", "did you mean 'layers'"),
        ("preproces", "did you mean 'preprocess'"),
        ("spatial_form", "did you mean 'spatial_from'"),
        ("cmap", "an argument of what is shown: overlay, grid, compare"),
        ("device", r"model\.to\(device\)"),
        ("xyzzy", "explain takes no 'xyzzy', and neither do the methods"),
    ],
)
def test_keywords_are_checked_here(keyword, message, net):
    with pytest.raises(TypeError, match=message):
        explain(net, X, **{keyword: 1})


class OfOldTimes(BaseCAM):
    """With the constructor of a subclass of grad-cam 1.x."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        return np.ones(activations.shape[:2])


def test_a_subclass_with_three_arguments(net):
    found = explain(net, X, [OfOldTimes, EigenCAM], layers="last")
    np.testing.assert_allclose(found.maps[0], OfOldTimes(net, ["last"])(X[None])[0], atol=1e-6)
    assert "maps of OfOldTimes: cells are even tiles, for its constructor takes no align" in found.assumptions


def test_an_option_goes_to_the_methods_that_take_it(net):
    found = explain(net, X, ["fem", "eigencam"], k=1, **HOW)
    assert [panel.method for panel in found.panels] == ["FEM", "EigenCAM"]


def test_an_instance_by_partial(net):
    found = explain(net, X, partial(FinerCAM, base_method=EigenCAM), **HOW)
    np.testing.assert_allclose(found.maps, EigenCAM(net, "last")(X[None]), atol=1e-5)


def test_methods_of_installed_packages(net, monkeypatch):
    class Point:
        name, load = "Own-CAM", staticmethod(lambda: OfOldTimes)

    methods._installed.cache_clear()
    monkeypatch.setattr(methods, "entry_points", lambda group: [Point] if group == "grad_cam.methods" else [])
    assert explain(net, X, "owncam", layers="last").panels[0].method == "OfOldTimes"
    methods._installed.cache_clear()


def test_named_targets(net):
    targets = {"3 rather than 1": lambda scores: scores[3] - scores[1], "three": 3}
    found = explain(net, X, targets=targets, **HOW)
    assert [(panel.name, panel.category) for panel in found.panels] == [("3 rather than 1", None), ("three", 3)]
    expected = [GradCAM(net, "last")(X[None], target)[0] for target in targets.values()]
    np.testing.assert_allclose(found.maps, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (BinaryClassifierOutputTarget(1), "BinaryClassifierOutputTarget(1)"),
        (RawScoresOutputTarget(), "RawScoresOutputTarget()"),
        (SemanticSegmentationTarget(3, np.ones((4, 6))), "SemanticSegmentationTarget(3, <4 x 6>)"),
        (FinerWeightedTarget(1, [2, 3], 0.5), "FinerWeightedTarget(1, [2, 3], 0.5)"),
        (FasterRCNNBoxScoreTarget([1], np.zeros((1, 4))), "FasterRCNNBoxScoreTarget([1], <1 x 4>, 0.5)"),
    ],
)
def test_targets_say_what_they_are(target, shown):
    assert repr(target) == shown


def test_a_users_target_without_a_repr_has_its_classs_name(net):
    class Difference:
        def __call__(self, scores):
            return scores[1] - scores[2]

    assert explain(net, X, targets=Difference(), **HOW).panels[0].name == "Difference"


@pytest.mark.parametrize(("scale", "warns"), [(255, True), (1, False)])
def test_pictures_that_were_not_scaled_are_told_of_by_the_classes_too(scale, warns, net, recwarn):
    x = X.abs()[None] / X.abs().max() * scale
    with GradCAM(net, "last") as cam:
        cam(x, 1)
        cam(x, 2)
    assert [warning.category for warning in recwarn if "divide by 255" in str(warning.message)] == [CamWarning] * warns


def test_a_result_is_an_explanation(net):
    assert isinstance(explain(net, X, **HOW), Explanation)

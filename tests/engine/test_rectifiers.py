"""The tensor behind a rectifier that is no module of its own, as behind torchvision's DenseNet.features."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

import pytorch_grad_cam as P

RECTIFIERS = {
    "in place": lambda x: F.relu(x, inplace=True),
    "function": torch.relu,
    "up to 6, in place": lambda x: F.hardtanh(x, 0.0, 6.0, inplace=True),
    "clamped": lambda x: x.clamp(0, 6),
    "clamped from below": lambda x: x.clamp_min(0),
}
TAKE_RECTIFIED = (
    "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise", "EigenCAM", "FEM", "KPCA_CAM",
    "ScoreCAM", "AblationCAM",
)  # fmt: skip
TAKE_WHAT_IS_RETURNED = ("GradCAM", "ShapleyCAM")


class Net(nn.Module):
    """Features that are rectified behind the module that returns them, and again in a module of its own, which leaves
    them as they are.
    """

    def __init__(self, rectify) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 8, 3, 2, 1))
        for parameter in self.features[-1].parameters():
            parameter.data *= 8  # so that some are above 6
        self.rectify, self.rectified, self.head = rectify, nn.Identity(), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.rectified(self.rectify(self.features(x))).square().mean((2, 3)))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rectify", RECTIFIERS.values(), ids=RECTIFIERS)
@pytest.mark.parametrize("name", TAKE_RECTIFIED)
def test_methods_for_rectified_activations_get_them(name, rectify, x):
    """By the features' name as by that of a module which has them rectified; in the first call and later ones."""
    cam, expected = (getattr(P, name)(Net(rectify).eval(), layer) for layer in ("features", "rectified"))
    for _ in range(2):
        maps = cam(x, [1, 2])
        assert maps.any()
        np.testing.assert_allclose(maps, expected(x, [1, 2]), atol=1e-6)
    assert list(cam.rectifiers) == [cam.model.features]


@pytest.mark.parametrize("name", TAKE_WHAT_IS_RETURNED)
def test_other_methods_get_what_the_layer_returns(name, x):
    plain = Net(torch.relu).eval()
    maps = getattr(P, name)(Net(RECTIFIERS["in place"]).eval(), "features")(x, [1, 2])
    np.testing.assert_array_equal(maps, getattr(P, name)(plain, "features")(x, [1, 2]))
    assert not getattr(P, name)(plain, "features").rectifiers


class Unnamed(Net):
    """Features whose rectified values no module returns."""

    def forward(self, x):
        return self.head(self.rectify(self.features(x)).square().mean((2, 3)))


@pytest.mark.parametrize("name", TAKE_RECTIFIED)
def test_found_layers(name, x):
    rectify = RECTIFIERS["up to 6, in place"]
    cam, expected = getattr(P, name)(Unnamed(rectify).eval()), getattr(P, name)(Net(rectify).eval(), "rectified")
    for _ in range(2):
        np.testing.assert_allclose(cam(x, [1, 2]), expected(x, [1, 2]), atol=1e-6)
    assert cam.location.name == "features"
    assert str(cam.location).endswith("; explained behind the ReLU up to 6 that follows it")


def test_densenets_features():
    """With the numbers that 1.5.7 has there, by the accident of an operation in place: signs would leave FEM blank."""
    torch.manual_seed(0)
    net = models.DenseNet(4, (2, 2), 8, num_classes=5).eval()
    x = torch.randn(1, 3, 64, 64)
    rectified = net.features(x).relu().detach()
    seen = []
    for layers in ("features", None):
        cam = P.LayerCAM(net, layers)
        cam.get_cam_image = lambda image, layer, targets, a, g, smooth: seen.append(a) or a.sum(1)
        cam(x, 0)
        assert list(map(str, cam.rectifiers.values())) == ["ReLU"]
        torch.testing.assert_close(seen[-1], rectified)
    assert "explained behind the ReLU that follows it" in str(cam.location)
    assert "behind the ReLU" not in str(P.GradCAM(net).location)


class AlsoRead(Net):
    """Features that are rectified, and read as they are too."""

    def forward(self, x):
        features = self.features(x)
        return self.head((features.relu() + features.tanh()).mean((2, 3)))


class RunsTwice(Net):
    """Features of which one run is rectified, the other not."""

    def forward(self, x):
        return self.head((self.features(x).relu() + self.features(x.flip(-1)).sin()).mean((2, 3)))


class Returned(Net):
    """Features that are rectified for the scores, and returned beside them."""

    def forward(self, x):
        features = self.features(x)
        return self.head(features.relu().mean((2, 3))), features


@pytest.mark.parametrize("name", ["LayerCAM", "FEM"])
@pytest.mark.parametrize("kind", [AlsoRead, RunsTwice, Returned])
def test_what_is_read_otherwise_too_is_not_rectified(kind, name, x):
    cam = getattr(P, name)(kind(None).eval(), "features")
    cam(x, [1, 2])
    assert not cam.rectifiers


def test_leaky_and_shifted_rectifiers_are_none(x):
    for rectify in (F.leaky_relu, lambda x: x.clamp(min=-1), lambda x: x.clamp(max=0), F.gelu):
        cam = P.LayerCAM(Net(rectify).eval(), "features")
        cam(x, [1, 2])
        assert not cam.rectifiers


@pytest.mark.parametrize(("name", "first"), [("LayerCAM", 1), ("FEM", 2)])
def test_cost(name, first, x):
    """A forward; without gradients one more where nothing is known of the layer."""
    net, runs = Net(torch.relu).eval(), []
    net.head.register_forward_hook(lambda *_: runs.append(1))
    cam = getattr(P, name)(net, "features", check_place=False)
    for forwards in (first, 1, 1):
        runs.clear()
        cam(x, [1, 2])
        assert len(runs) == forwards


def test_several_targets_and_layers(x):
    cam = P.LayerCAM(Net(RECTIFIERS["in place"]).eval(), ["features.0", "features"])
    expected = P.LayerCAM(Net(RECTIFIERS["in place"]).eval(), ["features.0", "rectified"])
    np.testing.assert_allclose(cam(x, [[1, 2], [3, 4]]), expected(x, [[1, 2], [3, 4]]), atol=1e-6)
    assert list(cam.rectifiers) == [cam.model.features]

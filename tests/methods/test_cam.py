"""The original CAM: against its oracle, GradCAM and other heads."""

import numpy as np
import pytest
import torch
from nets import CLASSES, images, state_of
from torch import nn

from benchmarks.oracles import ORACLES, finished_map
from pytorch_grad_cam import CAM, GradCAM
from pytorch_grad_cam.cam import cam_weights
from pytorch_grad_cam.demo import example_scene, preprocess_scene

POOLINGS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def pooled(rank=2, pooling=None, behind=None):
    """Two convolutions, pooling over all positions, and one linear layer."""
    torch.manual_seed(3)
    net = nn.Sequential()
    net.add_module("stem", CONVOLUTIONS[rank](3, 6, 3, stride=2, padding=1))
    net.add_module("first", nn.ReLU())
    net.add_module("conv", CONVOLUTIONS[rank](6, 8, 3, padding=1))
    net.add_module("last", nn.ReLU())
    net.add_module("pool", pooling or POOLINGS[rank](1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("behind", behind or nn.Identity())
    net.add_module("head", nn.Linear(8, CLASSES))
    return net.eval()


def test_cam_weights():
    head = torch.tensor([[1.0, 2], [3, 5], [0, -1]])
    assert cam_weights(torch.tensor([[0.0, 1, 0], [1, -1, 0]]), head).tolist() == [[3, 5], [-2, -3]]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_map_is_the_formulas(rank):
    model, x = pooled(rank).double(), images(rank).double()
    for image, category in zip(x, model(x).argmax(1).tolist(), strict=True):
        expected = finished_map(ORACLES["CAM"](model, model.last, image, category), x.shape[2:])
        assert expected.max() > 0.99
        np.testing.assert_allclose(CAM(model, model.last)(image[None], category)[0], expected, atol=1e-5)


def test_it_is_grad_cam_times_the_number_of_positions():
    model, x = pooled(), images(count=3)
    how = {"relu": False, "normalize": None}
    cells = model[:4](x)[0, 0].numel()
    found = CAM(model, "last", **how)(x, [[0, 3, 1]] * 3)
    np.testing.assert_allclose(found, cells * GradCAM(model, "last", **how)(x, [[0, 3, 1]] * 3), atol=1e-5)
    np.testing.assert_allclose(CAM(model)(x), GradCAM(model, "last")(x), atol=1e-5)


def test_targets_that_are_no_class():
    model, x = pooled(), images()
    how = {"relu": False, "normalize": None}
    cam = CAM(model, "last", **how)
    difference = cam(x, lambda scores: scores[1] - 2 * scores[3])
    np.testing.assert_allclose(difference, cam(x, 1) - 2 * cam(x, 3), atol=1e-5)
    of_probability = cam(x, lambda scores: scores.softmax(0)[1])
    expected = GradCAM(model, "last", **how)(x, lambda scores: scores.softmax(0)[1])
    np.testing.assert_allclose(of_probability, model[:4](x)[0, 0].numel() * expected, atol=1e-5)


def test_the_bundled_network_and_one_forward_of_it(digits_net):
    scene, forwards = preprocess_scene(example_scene()), []
    handle = digits_net.register_forward_hook(lambda *_: forwards.append(1))
    cam = CAM(digits_net, "layer4")
    cam(scene, 5)
    forwards.clear()
    maps = cam(scene, [[5, 3]])
    handle.remove()
    assert len(forwards) == 1
    np.testing.assert_allclose(maps, GradCAM(digits_net, "layer4")(scene, [[5, 3]]), atol=1e-5)


def test_without_gradients_and_in_half_precision():
    model, x = pooled().requires_grad_(False), images()
    expected = CAM(model, "last")(x, 1)
    with torch.inference_mode():
        np.testing.assert_array_equal(CAM(model, "last")(x.clone(), 1), expected)
    before = state_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_allclose(CAM(model, "last")(x, 1), expected, atol=0.05)
    assert state_of(model) == before
    assert CAM(model, "last")(x[:0]).shape == (0, *x.shape[2:])


class Rectifying(nn.Module):
    """As torchvision's DenseNet: rectified by a function behind the layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.classifier = nn.Conv2d(3, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


def test_the_tensor_behind_a_rectifier():
    model, x = Rectifying().eval(), images()
    expected = torch.relu(model.features(x)) * model.classifier.weight[1][:, None, None]
    found = CAM(model, "features", relu=False, normalize="max")(x, 1)
    grid = expected.sum(1).detach()
    largest = grid.abs().amax((1, 2), keepdim=True)
    drawn = nn.functional.interpolate((grid / largest)[:, None], x.shape[2:], mode="bilinear")[:, 0]
    np.testing.assert_allclose(found, drawn / drawn.abs().amax((1, 2), keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (pooled(), "first"),
        (pooled(pooling=nn.AdaptiveMaxPool2d(1)), "last"),
        (pooled(behind=nn.LayerNorm(8)), "last"),
        (pooled(behind=nn.Linear(8, 8)), "last"),
        (nn.Sequential(*pooled()[:4], nn.Flatten(), nn.LazyLinear(CLASSES)), 3),
    ],
    ids=["earlier layer", "highest value", "norm", "two linear layers", "no pooling"],
)
def test_other_heads_are_refused_with_the_way_out(model, layer):
    module = model[layer] if isinstance(layer, int) else layer
    model(images())
    with pytest.raises(ValueError, match=r"global average pooling and one linear layer.*GradCAM"):
        CAM(model, module)(images(), 1)

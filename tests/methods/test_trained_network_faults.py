"""Faults that trained networks showed, each by a small net of its kind; the others: see the README here."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pytorch_grad_cam import FEM, AblationCAM, GradCAM, LayerCAM


class Cube(nn.Module):
    """Channels last inside, as converted TensorFlow graphs are: 16 channels of 16 x 16 cells."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.act, self.head = nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.act(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("kind", [GradCAM, LayerCAM])
def test_a_cube_by_name_is_read_as_it_is_found(kind):
    net, x = Cube().eval(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = kind(net, "act", reshape_transform=lambda output: output.permute(0, 3, 1, 2))(x, [1, 2])
    np.testing.assert_allclose(kind(net, "act")(x, [1, 2]), expected, atol=1e-6)
    found = kind(net)
    np.testing.assert_allclose(found(x, [1, 2]), expected, atol=1e-6)


class SigmoidTail(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        parts = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 32, 3, 2, 1), nn.ReLU()
        self.body, self.head = nn.Sequential(*parts), nn.Linear(32, 2)

    def forward(self, x):
        return torch.sigmoid(self.head(self.body(x).mean((2, 3))))


class Convolved(TorchFunctionMode):
    """Counts the images that go through a convolution."""

    def __init__(self):
        super().__init__()
        self.images = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.images += len(args[0]) if function is F.conv2d else 0
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("is_graph", "layer"), [(False, "body"), (False, "body.3"), (True, "body.3"), (True, None)])
def test_what_is_in_front_of_the_layer_runs_once(is_graph, layer):
    """Of 32 channels, by a layer that is nested or a node of a graph: each of two convolutions at most twice."""
    net, x = SigmoidTail().eval(), torch.randn(1, 3, 32, 32)
    cam = AblationCAM(torch.fx.symbolic_trace(net) if is_graph else net, layer)
    cam(x, 0)
    with Convolved() as convolved:
        cam(x, 0)
    assert convolved.images <= 4


def test_boxes_before_probabilities_are_not_taken_for_scores():
    class BoxesFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
            self.box, self.face = nn.Linear(8, 4), nn.Linear(8, 2)

        def forward(self, x):
            features = self.body(x).mean((2, 3))
            return self.box(features), self.face(features).softmax(-1)

    net, x = BoxesFirst().eval(), torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"output\[0\] \(1, 4\), output\[1\] \(1, 2\)\. Say which"):
        GradCAM(net)(x, 1)
    assert GradCAM(net, output_transform=lambda output: output[1])(x, 1).shape == (1, 32, 32)


def test_a_blank_map_of_fem_speaks_against_no_target():
    """Of two values, as many of each, none is two deviations above the mean."""
    net = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    halves = torch.linspace(0, 1, 2).repeat_interleave(16).expand(1, 3, 32, 32)
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        maps = FEM(net.eval(), "1", check_place=False)(halves, 3)
    said = " ".join(str(each.message) for each in issued)
    assert not maps.any()
    assert "blank" in said
    assert "against" not in said

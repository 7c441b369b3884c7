"""Second derivatives through a Hardsigmoid."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import images
from torch import nn

from pytorch_grad_cam import ShapleyCAM
from pytorch_grad_cam.engine.torch_quirks.hardsigmoid import TwiceDifferentiableHardsigmoid


class InPlainOperations(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 3).clamp(0, 6) / 6


def gated(gate: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), gate)

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squeeze = squeeze

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.squeeze(8 * x)

    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), Gated(), nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.parametrize("inplace", [False, True])
def test_shapley_cam_before_a_hardsigmoid(inplace):
    model, reference = gated(nn.Hardsigmoid(inplace)), gated(InPlainOperations())
    scores = model(images()), reference(images())
    reference.load_state_dict(model.state_dict())
    assert scores[0].shape == (2, 5)
    expected = ShapleyCAM(reference, "0")(images(), 3)
    np.testing.assert_allclose(ShapleyCAM(model, "0")(images(), 3), expected, atol=1e-6)


def test_values_and_both_derivatives():
    x = torch.tensor([-4.0, -3.0, -1.0, 2.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)
    expected = F.hardsigmoid(x)
    with TwiceDifferentiableHardsigmoid():
        found = F.hardsigmoid(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(found.square().sum(), x, create_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), x)[0])
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.testing.assert_close(second, torch.tensor([0, 0, 1, 1, 0, 0]) / 18.0, check_dtype=False)

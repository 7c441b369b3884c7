"""Models of which a part is quantised."""

import numpy as np
import pytest
import torch
from nets import images
from torch import nn
from torch.ao.quantization import quantize_dynamic

from pytorch_grad_cam import AblationCAM, EigenCAM, FullGrad, GradCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.locate import locate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Shortcut(nn.Module):
    """A quantised layer with a way round it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mlp, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stem(x).mean((2, 3))
        return self.head(features + self.mlp(features).relu())


@pytest.fixture
def behind() -> nn.Module:
    return quantize_dynamic(Shortcut().eval(), {"mlp"})


@pytest.mark.parametrize("ours", [GradCAM, LayerCAM, FullGrad])
@pytest.mark.parametrize("layer", [None, "stem"])
def test_no_gradient_goes_round(behind, ours, layer):
    with pytest.raises(ValueError, match=r"through Linear, which is quantised: explain the model as it was before, or"):
        ours(behind, layer)(images(), 3)
    assert not any(module._forward_hooks for module in behind.modules())


def test_all_layers_quantised():
    model = quantize_dynamic(Shortcut().eval(), {nn.Linear})
    for found in (lambda: GradCAM(model, "stem")(images(), 3), lambda: locate(model, images())):
        with pytest.raises(ValueError, match=r"is quantised"):
            found()


@pytest.mark.parametrize("ours", [EigenCAM, AblationCAM, ScoreCAM])
def test_methods_without_gradients(behind, ours):
    assert ours(behind, "stem")(images(), 3).max() == 1


def test_in_front_of_the_layer():
    class Late(Shortcut):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.stem(self.mlp(x.mT).mT).relu().mean((2, 3)))

    def late(quantised: bool) -> nn.Module:
        model = Late()
        model.mlp = nn.Linear(images().shape[2], 8)
        return quantize_dynamic(model.eval(), {"mlp"}) if quantised else model.eval()

    found, expected = (GradCAM(late(quantised), "stem")(images(), 3) for quantised in (True, False))
    np.testing.assert_allclose(found, expected, atol=0.2)


class Int8Weight(nn.Parameter):
    """As torchao's are: the module remains a Linear, and its weight is of another class."""

    __module__ = "torchao.quantization"


class OfTorchao(nn.Linear):
    """A Linear with such a weight. rounded: the activations are quantised, too, so that the derivative ends there."""

    def __init__(self, rounded: bool) -> None:
        super().__init__(8, 8)
        self.weight, self.rounded = Int8Weight(self.weight.detach()), rounded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x.detach() * 100).round() / 100 if self.rounded else x)


@pytest.mark.parametrize("layer", [None, "stem"])
def test_no_gradient_goes_round_a_layer_of_torchao_whose_activations_are_quantised(layer):
    model = Shortcut().eval()
    model.mlp = OfTorchao(rounded=True)
    with pytest.raises(ValueError, match=r"through OfTorchao, which is quantised"):
        GradCAM(model, layer)(images(), 3)
    assert EigenCAM(model, "stem")(images(), 3).max() == 1


def test_weights_of_torchao_alone_leave_the_gradient():
    model = Shortcut().eval()
    expected = GradCAM(model, "stem")(images(), 3)
    mlp, model.mlp = model.mlp, OfTorchao(rounded=False)
    model.mlp.weight.data, model.mlp.bias = mlp.weight.data, mlp.bias
    np.testing.assert_allclose(GradCAM(model, "stem")(images(), 3), expected, atol=1e-6)

"""Where the tail is affine AblationCAM takes one gradient, and it gives what ablating each channel gives."""

import numpy as np
import pytest
import torch
from nets import images
from torch import nn

from pytorch_grad_cam import AblationCAM, AblationLayer
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.perturbation.ablated_scores import score_falls
from pytorch_grad_cam.perturbation.affine_tail import contributions
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget

CHANNELS = 8


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def net(*tail: nn.Module, features: int = CHANNELS) -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2), nn.ReLU())
    return nn.Sequential(body, *tail, nn.Linear(features, 5)).eval()


def pooled() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


AFFINE = {
    "global pooling": lambda: net(*pooled()),
    "mean": lambda: net(Lambda(lambda x: x.mean((2, 3)))),
    "two linear layers": lambda: net(*pooled(), nn.Linear(CHANNELS, CHANNELS)),
    "convolution": lambda: net(nn.Conv2d(CHANNELS, CHANNELS, 3), *pooled()),
    "scaled and shifted": lambda: net(*pooled(), Lambda(lambda x: 3 * x + 1)),
    "channels last": lambda: net(Lambda(lambda x: x.permute(0, 2, 3, 1).mean((1, 2)))),
    "dropout in evaluation": lambda: net(*pooled(), nn.Dropout()),
    "two ways": lambda: net(Lambda(lambda x: torch.cat([x.mean((2, 3)), x[:, :, 0, 0]], 1)), features=2 * CHANNELS),
}
NOT_AFFINE = {
    "rectifier": lambda: net(*pooled(), nn.Linear(CHANNELS, CHANNELS), nn.ReLU()),
    "rectifier in place at once": lambda: net(Lambda(lambda x: x.sub_(0.1).relu_()), *pooled()),
    "layer norm": lambda: net(*pooled(), nn.LayerNorm(CHANNELS)),
    "square": lambda: net(*pooled(), Lambda(lambda x: x * x)),
    "product of two": lambda: net(*pooled(), Lambda(lambda x: x * x.flip(1))),
    "one over it": lambda: net(*pooled(), Lambda(lambda x: 1 / (1 + x))),
    "Gram matrix": lambda: net(Lambda(lambda x: (x.flatten(2) @ x.flatten(2).mT).mean(2))),
    "maximum": lambda: net(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    "rectifier by comparison": lambda: net(
        *pooled(), nn.Linear(CHANNELS, CHANNELS, bias=False), Lambda(lambda x: x * (x > 0))
    ),
    "detached maximum": lambda: net(*pooled(), Lambda(lambda x: x - x.amax(1, keepdim=True).detach())),
    "norm": lambda: net(*pooled(), Lambda(lambda x: x / x.norm(dim=1, keepdim=True))),
}


def one_by_one(model: nn.Module, x: torch.Tensor, category: int) -> np.ndarray:
    """The falls of the score, a forward with a hook for each channel."""
    falls = []
    with torch.no_grad():
        score = model(x)[0, category]
        for channel in range(CHANNELS):

            def without(module, inputs, output, channel=channel):
                output = output.clone()
                output[:, channel] = 0
                return output

            handle = model[0].register_forward_hook(without)
            falls.append(float(score - model(x)[0, category]))
            handle.remove()
    return np.array(falls)


def found_by(model: nn.Module, x: torch.Tensor, target) -> tuple[torch.Tensor | None, np.ndarray]:
    with torch.no_grad(), PartialForward(model, model[0], x) as tail:
        scores = target(tail.scores[0]).reshape(1)
        falls = score_falls(tail, 0, [target], scores, tail.layer_output[0], AblationLayer(), 1, 3)
        return contributions(tail, 0, [target], 1), falls[:, 0].numpy()


@pytest.mark.parametrize("name", [*AFFINE, *NOT_AFFINE])
def test_falls_are_those_of_ablating(name):
    model, x = {**AFFINE, **NOT_AFFINE}[name]().double().requires_grad_(False), images(count=1).double()
    added, falls = found_by(model, x, ClassifierOutputTarget(2))
    assert (added is not None) == (name in AFFINE)
    np.testing.assert_allclose(falls, one_by_one(model, x, 2), atol=1e-12)
    assert np.abs(falls).max() > 1e-3


def test_a_target_that_is_not_affine_is_ablated():
    model = AFFINE["global pooling"]().requires_grad_(False)
    added, _ = found_by(model, images(count=1), ClassifierOutputSoftmaxTarget(2))
    assert added is None


def test_a_target_that_chooses_the_highest_is_ablated():
    model = AFFINE["global pooling"]().requires_grad_(False)
    added, _ = found_by(model, images(count=1), lambda scores: scores[(-scores).argmax()])
    assert added is None


def test_an_ablation_layer_of_the_users_is_asked():
    class Halves(AblationLayer):
        def __call__(self, x):
            channels = self.indices[: len(self.activations)]
            self.activations[np.arange(len(channels)), channels] /= 2
            return self.activations

    model, x = AFFINE["global pooling"](), images(count=1)
    with AblationCAM(model, model[0], ablation_layer=Halves()) as halving, AblationCAM(model, model[0]) as zeroing:
        inputs = (x, model[0], [ClassifierOutputTarget(2)], model[0](x).detach(), None)
        halved, zeroed = (cam.get_cam_weights(*inputs) for cam in (halving, zeroing))
    torch.testing.assert_close(halved, zeroed / 2)


def test_parameters_that_require_gradients_do_not_count():
    """In a call of a CAM they are frozen; the map is the same with a model that is being trained."""
    model, x = AFFINE["global pooling"](), images(count=2)
    with AblationCAM(model, model[0]) as cam:
        trained = cam(x, [1, 2])
        frozen = (model.requires_grad_(False), cam(x, [1, 2]))[1]
    np.testing.assert_array_equal(trained, frozen)

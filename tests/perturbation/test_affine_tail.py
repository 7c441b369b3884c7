"""Where the tail is affine AblationCAM takes one gradient, and it gives what ablating each channel gives."""

import numpy as np
import pytest
import torch
from nets import images
from torch import nn

from pytorch_grad_cam import AblationCAM, AblationLayer
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import RowScores, target_scores
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
        targets = [target] * len(x)
        scores = target_scores(tail.scores, targets)[None]
        falls = score_falls(tail, [targets], scores, tail.layer_output, AblationLayer(), 1, 3)
        score_rows = RowScores([targets], x.device)
        added = contributions(lambda rows, replace: score_rows(tail(rows, replace), rows), tail.layer_output, 1)
        return None if added is None or not added[1].all() else added[0], falls[0, 0].numpy()


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


def falls_found(score, output: torch.Tensor) -> tuple[torch.Tensor, list[bool]] | None:
    """`contributions` to scores (K, rows) that are a function of the layer's output alone."""
    with torch.no_grad():
        found = contributions(lambda rows, replace: score(replace(output[rows.index])), output, 1)
    return None if found is None else (found[0], found[1].tolist())


def total(output: torch.Tensor) -> torch.Tensor:
    return output.flatten(1).sum(1)


def one_where_zero_are(*channels: int):
    """A function of the output: one where just these of four channels are zero, zero elsewhere; it has no gradient."""
    zero = torch.tensor([channel in channels for channel in range(4)])
    return lambda output: ((output.flatten(2).sum(2) == 0) == zero).all(1).float()


GATES = {"even": one_where_zero_are(0, 2), "odd": one_where_zero_are(1, 3), "all": one_where_zero_are(0, 1, 2, 3)}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("removed", GATES)
def test_a_tail_is_affine_within_a_thousandth_of_all_contributions(removed, sign):
    output = torch.rand(2, 4, 3, 3)
    size = total(output).mean()
    for share, passes in ((0.9e-3, True), (1.2e-3, False)):

        def scores(rows, share=share):
            return (total(rows) + sign * share * size * GATES[removed](rows))[None]

        added, exact = falls_found(scores, output.mul_(size / total(output)[:, None, None, None]))
        assert exact == [passes, passes]
        torch.testing.assert_close(added, output.sum((2, 3))[None])


def test_contributions_of_both_signs_do_not_cancel_in_the_tolerance():
    output = torch.tensor([1.0, -1, 2, -2])[None, :, None]
    assert falls_found(lambda rows: (total(rows) + 5e-3 * GATES["all"](rows))[None], output)[1] == [True]


def test_each_sample_and_each_score_must_be_affine():
    output = torch.rand(3, 4, 2) + torch.tensor([0.0, 2, 0])[:, None, None]
    bright = 0.95 * total(output).amax()  # the second sample is, unless one of its four channels is taken away

    def scores(rows):
        affine = total(rows[:, 1:])
        return torch.stack([affine, affine * (1 + (total(rows) > bright))])

    added, exact = falls_found(scores, output)
    assert exact == [True, False, True]
    assert added.shape == (2, 3, 4)
    assert falls_found(lambda rows: torch.stack([total(rows), total(rows).exp()]), output) is None


def test_a_sample_that_adds_nothing_is_affine():
    assert falls_found(lambda rows: total(rows)[None], torch.zeros(1, 4, 2))[1] == [True]


def test_contributions_of_half_precision_are_summed_in_float32():
    output = torch.ones(1, 2, 1000, dtype=torch.bfloat16)
    output[:, :, 0] = 1.0078125
    added, _ = falls_found(lambda rows: total(rows.float())[None], output)
    assert added.tolist() == [[[1000.0078125, 1000.0078125]]]


def test_images_whose_falls_are_not_the_contributions_are_ablated():
    """What doubles the bright images leaves no trace in the graph; the others cost no more than without them."""
    plain, rows = net(*pooled()), []
    x = torch.cat([images(count=1), 2 * images(count=1, seed=2), images(count=1, seed=3)])
    nearly = 0.95 * plain[0](x)[1].mean().detach()
    gate = Lambda(lambda x: x * (1 + (x.mean((1, 2, 3), keepdim=True) > nearly)))
    model = nn.Sequential(plain[0], gate, *plain[1:]).eval()
    with AblationCAM(model, model[0]) as cam:
        inputs = (x, model[0], [2] * 3, model[0](x).detach(), None)
        weights = cam.get_cam_weights(*inputs)
        model[1].register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
        cam.get_cam_weights(*inputs)
    assert rows == [3, 1, 3, 3, 3, 3, CHANNELS]
    for image in range(3):
        falls = one_by_one(model, x[image : image + 1], 2)
        score = model(x[image : image + 1])[0, 2].abs().item()
        np.testing.assert_allclose(weights[image], falls / score, atol=1e-5)

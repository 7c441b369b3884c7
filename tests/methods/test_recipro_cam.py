"""Recipro-CAM beside its oracle: windows, tokens, targets of other kinds, costs, what is refused."""

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import LayerIntegratedGradients, ReciproCAM
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.demo.detectors import load_digits_detector, preprocess_detector
from pytorch_grad_cam.perturbation.single_cells import windows


class CountedTokens(nn.Module):
    """Patches and a class token, which the head reads together."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.norm = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6)
        self.head = nn.Linear(12, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        patches = self.patch(x).flatten(2).mT
        tokens = self.norm(torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1))
        tokens = torch.tanh(tokens)
        return self.head(torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1))


def of_tokens(tokens):
    return tokens[:, 1:].mT.unflatten(2, (3, 4))


def picture(count=2):
    return torch.randn(count, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def with_tokens(model, x, change):
    """The logits where the tokens behind the normalisation are changed."""
    handle = model.norm.register_forward_hook(lambda module, inputs, output: change(output.clone()))
    try:
        with torch.no_grad():
            return model(x)
    finally:
        handle.remove()


def test_the_gaussian_is_that_of_the_paper():
    window = windows((3, 4), gaussian=True).reshape(3, 4, 3, 4)[1, 1]
    expected = torch.tensor([[1, 2, 1, 0], [2, 4, 2, 0], [1, 2, 1, 0]]) / 16
    torch.testing.assert_close(window, expected)
    assert windows((5,), gaussian=True)[2].tolist() == [0, 0.25, 0.5, 0.25, 0]
    assert torch.equal(windows((2, 3), gaussian=False), torch.eye(6))


@pytest.mark.parametrize("gaussian", [False, True])
def test_the_class_token_stays(gaussian):
    model, x = CountedTokens().eval(), picture()
    raw = ReciproCAM(model, "norm", of_tokens, gaussian, normalize=None, relu=False)
    raw.align = "cell"
    expected = torch.empty(2, 3, 4)
    for cell in range(12):
        row, column = divmod(cell, 4)
        window = torch.zeros(3, 4)
        if gaussian:
            for down in (-1, 0, 1):
                for across in (-1, 0, 1):
                    if 0 <= row + down < 3 and 0 <= column + across < 4:
                        window[row + down, column + across] = (2 - abs(down)) * (2 - abs(across)) / 16
        else:
            window[row, column] = 1

        def alone(tokens, window=window):
            tokens[:, 1:] *= window.flatten()[:, None]
            return tokens

        expected[:, row, column] = with_tokens(model, x, alone).softmax(1)[:, 2]
    drawn = torch.nn.functional.interpolate(expected[:, None], size=(12, 16), mode="bilinear")[:, 0]
    np.testing.assert_allclose(raw(x, 2), drawn, atol=1e-6)


def test_a_target_that_is_no_class_is_scored_as_it_is():
    model, x = convolutional(2).double(), images(2).double()
    cam = ReciproCAM(model, model.last, relu=False, normalize=None)
    two, one = cam(x, lambda scores: 2 * scores[1]), cam(x, lambda scores: scores[1])
    np.testing.assert_allclose(two, 2 * one, atol=1e-6)
    assert np.abs(cam(x, 1) - one).max() > 0.01, "of a class it is the probability"


def test_several_targets_ask_the_tail_once_and_a_later_call_the_model_once():
    model, x = CountedTokens().eval(), picture()
    cam = ReciproCAM(model, "norm", of_tokens, check_place=False)
    cam(x, 1)
    model.batches.clear()
    several = cam(x, [[0, 1, 3]] * 2)
    assert model.batches == [2, 24], "the forward, and the tail of both images' twelve cells"
    for number, category in enumerate((0, 1, 3)):
        np.testing.assert_allclose(several[:, number], cam(x, category), atol=1e-6)


def test_layers_that_run_twice_have_the_mean_of_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.again, self.head = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.again(torch.tanh(self.again(self.first(x))))).mean((2, 3)))

    model, x = Twice().eval(), picture()
    both = ReciproCAM(model, "again", normalize=None)(x, 1)
    each = [ReciproCAM(model, "again", call_index=index, normalize=None)(x, 1) for index in (0, 1)]
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-4


def test_no_gradient_is_needed():
    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return (self.net(x).detach() * 64).round() / 64

    maps = ReciproCAM(Rounded().eval(), "net.last")(images(), 1)
    assert (maps.max((1, 2)) == 1).all()


def test_a_transform_that_mixes_numbers_is_refused():
    model, x = CountedTokens().eval(), picture()
    with pytest.raises(ValueError, match="shown alone where the layer's output holds it in numbers of its own"):
        ReciproCAM(model, "norm", lambda tokens: of_tokens(tokens) * 0.5)(x, 1)


@pytest.mark.parametrize("of_tails", [ReciproCAM, LayerIntegratedGradients])
@pytest.mark.parametrize("style", ["dense", "queries"])
def test_detections_are_refused(of_tails, style):
    detector, scene = load_digits_detector(style), preprocess_detector(example_scene(), style)
    with pytest.raises(ValueError, match="follows no detections"):
        of_tails(detector)(scene, 6)

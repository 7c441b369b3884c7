"""Recipro-CAM beside its oracle: windows, tokens, targets of other kinds, costs, what is refused."""

from functools import partial

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
    tried = [2, 2]  # two cells with all positions and with few, which the mean of the patches does not stand
    assert model.batches[-3:] == [*tried, 24]
    model.batches.clear()
    several = cam(x, [[0, 1, 3]] * 2)
    assert model.batches == [2, 24], "the forward, and the tail of both images' twelve cells"
    for number, category in enumerate((0, 1, 3)):
        np.testing.assert_allclose(several[:, number], cam(x, category), atol=1e-6)


class ClassTokenLast(nn.Module):
    """A class token behind the patches reads them by attention; the head reads it, or the mean of all tokens."""

    def __init__(self, reads_patches=False):
        super().__init__()
        torch.manual_seed(3)
        self.reads_patches = reads_patches
        self.patch, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.tokens = []

    def forward(self, x):
        tokens = self.norm(torch.cat([self.patch(x).flatten(2).mT, self.token.expand(len(x), -1, -1)], dim=1))
        self.tokens.append(tuple(tokens.shape[:2]))
        tokens = self.attention(tokens, tokens, tokens)[0]
        return self.head(tokens.mean(1) if self.reads_patches else tokens[:, -1])


@pytest.mark.parametrize("reads_patches", [False, True])
def test_zeros_are_one_token_to_a_class_token(reads_patches):
    model, x = ClassTokenLast(reads_patches).double().eval(), picture().double()
    cam = ReciproCAM(model, "norm", lambda tokens: tokens[:, :-1].mT.unflatten(2, (3, 4)), normalize=None, relu=False)
    cam.align = "cell"
    cam(x, 2)
    model.tokens.clear()
    found = cam(x, 2)
    assert model.tokens[-1] == ((24, 13) if reads_patches else (24, 3))

    def alone(tokens, cell):
        tokens[:, [other for other in range(12) if other != cell]] = 0
        return tokens

    cells = [with_tokens(model, x, partial(alone, cell=cell)).softmax(1)[:, 2] for cell in range(12)]
    expected = torch.stack(cells, dim=1).reshape(2, 1, 3, 4)
    drawn = torch.nn.functional.interpolate(expected, size=(12, 16), mode="bilinear")[:, 0]
    np.testing.assert_allclose(found, drawn, atol=1e-7)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_pooled_map_shows_a_cell_by_one_position(pooled):
    """A position that sees its neighbours first is no mean of what is there alone."""
    torch.manual_seed(0)
    shapes, behind = [], nn.Identity() if pooled else nn.Conv2d(5, 5, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(3, 5, 4, 4), behind, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    model = model.double().eval()
    model[2].register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    x = picture().double()
    found = ReciproCAM(model, model[0], normalize=None, relu=False, check_place=False)(x, 1)
    assert shapes[-1] == ((24, 5, 1, 1) if pooled else (24, 5, 3, 4))
    with torch.no_grad():
        maps = model[0](x)
        alone = maps.flatten(2)[:, :, :, None] * torch.eye(12).double()
        rows = alone.permute(0, 3, 1, 2).reshape(24, 5, 3, 4)
        expected = model[1:](rows).softmax(1)[:, 1].reshape(2, 1, 3, 4)
    drawn = torch.nn.functional.interpolate(expected, size=(12, 16), mode="bilinear")[:, 0]
    np.testing.assert_allclose(found, drawn, atol=1e-7)


def test_what_is_known_of_a_tail_is_forgotten_with_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    model, x = model.double().eval(), picture().double()
    cam = ReciproCAM(model, model[0], normalize=None, relu=False, check_place=False)
    cam(x, 1)
    model[1] = nn.Conv2d(5, 5, 3, padding=1).double()
    expected = ReciproCAM(model, model[0], normalize=None, relu=False, check_place=False)(x, 1)
    np.testing.assert_allclose(cam(x, 1), expected, atol=1e-7)


def test_cells_that_say_the_same_are_asked_again_in_the_next_call():
    torch.manual_seed(0)
    behind, last = nn.Conv2d(5, 5, 3, padding=1), (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    model = nn.Sequential(nn.Conv2d(3, 5, 4, 4, bias=False), behind, *last).double().eval()
    x = picture().double()
    options = {"normalize": None, "relu": False, "check_place": False}
    cam = ReciproCAM(model, model[0], **options)
    cam(torch.zeros_like(x), 1)
    np.testing.assert_allclose(cam(x, 1), ReciproCAM(model, model[0], **options)(x, 1), atol=1e-7)


def test_cells_of_zeros_do_not_decide():
    """The rim of a padded picture is zero behind convolutions without a bias: alone it says the same either way."""
    torch.manual_seed(0)
    first, second = (nn.Conv2d(*channels, 3, padding=1, bias=False) for channels in ((3, 5), (5, 5)))
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    model, x = model.double().eval(), torch.zeros(2, 3, 6, 6).double()
    x[1, :, 2:4, 2:4] = 1
    found = ReciproCAM(model, model[1], normalize=None, relu=False, check_place=False, align="cell")(x, 1)[1]
    with torch.no_grad():
        alone = model[:2](x)[1].flatten(1)[:, :, None] * torch.eye(36).double()
        expected = model[2:](alone.permute(2, 0, 1).unflatten(2, (6, 6))).softmax(1)[:, 1].reshape(6, 6)
    np.testing.assert_allclose(found, expected, atol=1e-7)


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

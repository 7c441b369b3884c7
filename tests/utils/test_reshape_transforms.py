import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import images
from torch import nn

from pytorch_grad_cam import AblationCAM, EigenCAM, HiResCAM
from pytorch_grad_cam.utils.reshape_transforms import (
    fasterrcnn_reshape_transform,
    swinT_reshape_transform,
    vit_reshape_transform,
)


def tokens_of(grid: torch.Tensor, extra: int) -> torch.Tensor:
    """A map (N, C, H, W) as tokens behind `extra` others, which hold -1."""
    tokens = grid.flatten(2).mT
    return torch.cat([torch.full((len(grid), extra, grid.shape[1]), -1.0), tokens], dim=1)


@pytest.mark.parametrize("extra", [0, 1, 2, 5])
@pytest.mark.parametrize("side", [14, 16, 24])
def test_square_vit(extra, side):
    grid = torch.randn(2, 3, side, side)
    assert torch.equal(vit_reshape_transform(tokens_of(grid, extra)), grid)


@pytest.mark.parametrize("extra", [0, 1, 4])
def test_any_vit(extra):
    grid = torch.randn(2, 3, 7, 28)
    assert torch.equal(vit_reshape_transform(tokens_of(grid, extra), height=7, width=28), grid)


def test_swin():
    grid = torch.randn(2, 3, 7, 7)
    assert torch.equal(swinT_reshape_transform(grid.movedim(1, -1)), grid)
    assert torch.equal(swinT_reshape_transform(tokens_of(grid, 0)), grid)
    wide = torch.randn(2, 3, 4, 9)
    assert torch.equal(swinT_reshape_transform(wide.movedim(1, -1)), wide)
    assert torch.equal(swinT_reshape_transform(tokens_of(wide, 0), height=4, width=9), wide)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vit_reshape_transform(torch.zeros(1, 60, 3)), "60 tokens are no square grid"),
        (
            lambda: vit_reshape_transform(torch.zeros(1, 60, 3), 8, 8),
            "60 tokens are no grid of 8 x 8 behind up to 16 others",
        ),
        (lambda: vit_reshape_transform(torch.zeros(1, 60, 3), 6, 7), "60 tokens are no grid of 6 x 7"),
        (lambda: vit_reshape_transform(torch.zeros(1, 60, 3), height=8), "pass both or neither"),
        (lambda: vit_reshape_transform(torch.zeros(1, 3, 7, 7)), r"expected tokens .* \(1, 3, 7, 7\)"),
        (lambda: swinT_reshape_transform(torch.zeros(1, 60, 3)), "60 tokens are no grid of 7 x 7"),
        (lambda: swinT_reshape_transform(torch.zeros(1, 64, 3), height=4), "pass both or neither"),
        (lambda: swinT_reshape_transform(torch.zeros(1, 64, 3), width=4), "pass both or neither"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("channels", [(4, 4), (3, 5, 2)])
def test_levels_of_a_pyramid_are_joined_at_the_size_of_the_coarsest(channels):
    torch.manual_seed(0)
    levels = {str(i): torch.randn(2, c, 16 >> i, 24 >> i) for i, c in enumerate(channels)}
    joined = fasterrcnn_reshape_transform(levels)
    last = list(levels.values())[-1]
    assert joined.shape == (2, sum(channels), *last.shape[2:])
    torch.testing.assert_close(joined[:, -channels[-1] :], last.abs())
    resized = torch.nn.functional.interpolate(levels["0"].abs(), size=last.shape[2:], mode="bilinear")
    torch.testing.assert_close(joined[:, : channels[0]], resized)


class Pyramid(nn.Module):
    """Levels of one size or two, with values of both signs, and a score of all of them."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.levels = Levels(stride)
        self.heads = nn.ModuleDict({"0": nn.Linear(6, 5), "pool": nn.Linear(4, 5)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = self.levels(x)
        return sum(self.heads[name](level.tanh().mean((2, 3))) for name, level in levels.items())


class Levels(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 4, 3, stride, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.fine(x)
        return {"0": fine, "pool": self.coarse(fine)}


def test_gradients_of_a_pyramid_keep_their_sign():
    """For levels of one size HiResCAM is the sum of gradient times activation, whatever their signs."""
    model, x = Pyramid(stride=1), images()
    levels = {name: level.detach().requires_grad_() for name, level in model.levels(x).items()}
    score = sum(model.heads[name](level.tanh().mean((2, 3))) for name, level in levels.items())[:, 3].sum()
    gradients = dict(zip(levels, torch.autograd.grad(score, list(levels.values())), strict=True))
    expected = torch.stack([(gradients[name] * levels[name]).sum(1) for name in levels]).sum(0)
    assert (expected < 0).any()
    runs = []

    class Kept(HiResCAM):
        def evidence(self, run):
            runs.append(super().evidence(run))
            return runs[-1]

    Kept(model, "levels", fasterrcnn_reshape_transform)(x, 3)
    torch.testing.assert_close(runs[0], expected)


@pytest.mark.parametrize("ours", [EigenCAM, AblationCAM])
def test_pyramids_without_gradients_as_in_1_x(ours):
    def in_1_x(levels):
        size = levels["pool"].shape[-2:]
        return torch.cat([F.interpolate(level.abs(), size, mode="bilinear") for level in levels.values()], dim=1)

    model = Pyramid(stride=2)
    found, expected = (
        ours(model, "levels", transform)(images(), 3) for transform in (fasterrcnn_reshape_transform, in_1_x)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)

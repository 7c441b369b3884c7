"""Which versions of the image the layers in front of a map look at."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from nets import CLASSES
from torch import nn

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.locate.views import Views


def features(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())


class Looking(nn.Module):
    """A branch looks at the image as it is, another one at what `sees` makes of it with what the first has found."""

    def __init__(self, sees, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.sees, self.first, self.second = sees, features(channels), features(channels)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        found = self.first(x)
        maps = found, self.second(self.sees(x, found))
        return self.head(torch.cat([each.mean((2, 3)) for each in maps], 1))


def warped(scale, shift):
    """A spatial transformer, whose parameters hardly depend on what the first branch found."""

    def sees(x, found):
        theta = torch.tensor([[scale, 0.0, shift], [0.0, 1.0, 0.0]]) + 1e-3 * found.mean()
        return F.grid_sample(x, F.affine_grid(theta.expand(len(x), 2, 3), x.shape, align_corners=False))

    return sees


def glimpse(x, found):
    """The part around the strongest cell, in half of the image's size, as of two-stage networks."""
    row, column = divmod(int(found[0].sum(0).argmax()), found.shape[3])
    top, left = min(4 * row, x.shape[2] // 2), min(4 * column, x.shape[3] // 2)
    return x[:, :, top : top + x.shape[2] // 2, left : left + x.shape[3] // 2]


def said(model, layer, channels=3):
    x = torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GradCAM(model.eval(), layer)(x, 1)
    return [str(each.message) for each in caught if "may lie in the wrong place" in str(each.message)]


@pytest.mark.parametrize(
    ("sees", "what"),
    [
        (warped(0.5, 0.5), "crops the 32x32 image"),
        (warped(-1.0, 0.0), "mirrors or turns the 32x32 image"),
        (glimpse, "crops the 32x32 image"),
        (lambda x, _: x[..., 8:24, 8:24], r"reads the part 8 to 24 x 8 to 24 of it"),
    ],
)
def test_a_branch_that_sees_a_part_is_warned_of(sees, what):
    model = Looking(sees)
    (message,) = said(model, "second")
    assert what in message
    assert not said(model, "first"), "which sees all of the image"


@pytest.mark.parametrize("sees", [warped(1.0, 0.0), lambda x, _: F.avg_pool2d(x, 2), lambda x, _: x / 2 + 1])
def test_a_branch_that_sees_the_image_in_its_place_is_not_warned_of(sees):
    assert not said(Looking(sees), "second")


def test_features_of_as_many_channels_as_the_image_are_no_view_of_it():
    """Of grey images one channel of features, as of spatial attention: what sees the image is in front of them."""
    model = Looking(lambda x, found: F.interpolate(found[:, :1, :4, :4], size=(16, 16)), channels=1)
    assert sizes_of_views(model, model.second, channels=1) == [32]


def sizes_of_views(model, layer, channels=3):
    image = torch.rand(1, channels, 32, 32).requires_grad_()
    with Views(model.eval(), image, layer) as views:
        model(image)
    return [read.shape[2] for read in views.of_run(0)]


def test_views_of_a_run():
    model = Looking(glimpse)
    sizes = {model.first: [32], model.second: [16], model.second[2]: [16], model.second[0]: [16], model.head: [32, 16]}
    assert {layer: sizes_of_views(model, layer) for layer in sizes} == sizes

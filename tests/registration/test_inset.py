"""Maps of networks whose convolutions and pooling use up the border of the image."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning


def said(cam, x):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cam(x, 1)
    return [str(each.message) for each in caught if "towards the border" in str(each.message)]


class Energies(nn.Module):
    """As ShallowConvNet hears an EEG: convolutions over time and over the electrodes, squares, their moving mean."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.time, self.space = nn.Conv2d(1, 8, (1, 25), bias=False), nn.Conv2d(8, 8, (22, 1), bias=False)
        self.mean = nn.AvgPool2d((1, 75), (1, 15))

    def forward(self, x):
        return self.mean(self.space(self.time(x)) ** 2).mean((2, 3))


@pytest.mark.parametrize("at", [100, 900])
def test_a_map_beside_what_the_cells_look_at_is_announced_and_the_way_out_is_right(at):
    eeg = torch.zeros(1, 1, 22, 1000)
    eeg[..., at - 5 : at + 5] = torch.randn(22, 10, generator=torch.Generator().manual_seed(1))
    model = Energies().eval()
    with pytest.warns(CamWarning, match="mean is drawn up to 42 pixels too far .* align=.receptive_field"):
        LayerCAM(model)(eeg, 1)
    cam = LayerCAM(model, align="receptive_field")
    assert not said(cam, eeg)
    over_time = cam(eeg, 1)[0].mean(0)
    assert abs(over_time @ np.arange(1000) / over_time.sum() - at) < 7.5  # half of a cell's step


def lenet(padding=0):
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 6, 5, padding=padding), nn.Conv2d(6, 16, 5, padding=padding)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2), *head).eval()


def test_of_lenet_it_is_announced_once_for_each_layer_and_size():
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(lenet())
    assert ["up to 4 pixels" in each for each in said(cam, x)] == [True]
    assert not said(cam, x)
    assert not said(GradCAM(lenet(), check_place=False), x)
    assert not said(GradCAM(lenet("same")), x)
    assert not said(GradCAM(lenet(2)), x)
    assert ["up to 5 pixels" in each for each in said(GradCAM(lenet(), "3"), x)] == [True]


def test_poolings_may_have_lists():
    """As those of torchvision's MViT."""
    model, x = lenet("same"), torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    expected = GradCAM(model)(x, 1)
    model[2] = nn.MaxPool2d([2, 2], [2, 2])
    np.testing.assert_array_equal(GradCAM(model)(x, 1), expected)

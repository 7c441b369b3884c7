"""PathCAM: what the path is, and what is told where it says nothing."""

import math
import warnings

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import CamWarning, GradCAM, LayerCAM, PathCAM
from pytorch_grad_cam.path_cam import along_path, blurred_by_cells, rectified_layer_cam
from pytorch_grad_cam.registration import registration_of


class Branching(nn.Module):
    """A stem, a block with a shortcut, and a last layer: the convolution in the block is on no path of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.block = Shortcut()
        self.last = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.last(self.block(self.stem(x))).mean((2, 3)))


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return x + self.relu(self.conv(x))


def test_rectified_layer_cam_by_hand():
    """Channel 1: 2 * 3 at the first position; channel 2: 4 * 1 at the last; what is negative in either says nothing."""
    activations = torch.tensor([[[3.0, -1.0, 2.0], [-5.0, 1.0, 4.0]]])
    grads = torch.tensor([[[2.0, 3.0, -1.0], [1.0, -2.0, 1.0]]])
    assert rectified_layer_cam(activations, grads).tolist() == [[6.0, 0.0, 4.0]]


def test_along_path_by_hand():
    """The path's maps, each scaled to [0, 1], are (0, 1, 1/2) and (0, 1/2, 1): their mean is 3/4, its square 9/16."""
    of_class = torch.tensor([[[1.0, 0.5, -1.0]]])
    path = torch.tensor([[[0.0, 2.0, 1.0], [1.0, 2.0, 3.0]]])
    assert along_path(of_class, path).tolist() == [[[0.0, 9 / 64, -9 / 16]]]


def test_the_path_is_what_every_path_goes_through():
    """Found, or in front of a named layer, or named: not the convolution beside the shortcut."""
    model, x = Branching().eval(), images()
    by_names = PathCAM(model, ["stem", "block", "last"])(x, 3)
    assert not np.allclose(by_names, PathCAM(model, ["stem", "block.relu", "block", "last"])(x, 3), atol=1e-3)
    with PathCAM(model) as cam:
        np.testing.assert_allclose(cam(x, 3), by_names, atol=1e-6)
        assert cam.location.name == "last"
    np.testing.assert_allclose(PathCAM(model, model.last)(x, 3), by_names, atol=1e-6)


def test_the_finest_maps_are_not_on_a_path_that_has_coarser_ones():
    torch.manual_seed(3)
    stages = [nn.Sequential(nn.Conv2d(3 if n == 0 else 6, 6, 3, 2, 1), nn.ReLU()) for n in range(3)]
    model = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()
    x = torch.randn(2, 3, 24, 32)
    found = PathCAM(model)(x, 3)
    np.testing.assert_allclose(found, PathCAM(model, ["1", "2"])(x, 3), atol=1e-6)
    assert not np.allclose(found, PathCAM(model, ["0", "1", "2"])(x, 3), atol=1e-3)


def test_of_named_layers_the_last_is_grad_cams():
    model, x = convolutional(), images()
    one, other = (PathCAM(model, names)(x, [3, 1]) for names in (["first", "last"], ["last", "first"]))
    assert not np.allclose(one, other, atol=1e-2)
    of_class = torch.from_numpy(GradCAM(model, "last")(x, [3, 1]))[:, None]
    path = torch.from_numpy(LayerCAM(model, "first")(x, [3, 1]))[:, None]
    expected = blurred_by_cells(along_path(of_class, path), (6, 8))[:, 0].numpy()
    np.testing.assert_allclose(one, expected / expected.max((1, 2), keepdims=True), atol=0.02)  # not scaled in between


def test_a_path_of_other_images_sizes_and_classes_is_found_anew():
    model = Branching().eval()
    with PathCAM(model) as cam:
        for size in ((12, 16), (20, 24), (12, 16)):
            x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))
            np.testing.assert_allclose(cam(x, [1, 2]), PathCAM(model)(x, [1, 2]), atol=1e-6)
            several = cam(x, [[1, 3], [2, 0]])
            assert several.shape == (2, 2, *size)
            np.testing.assert_allclose(several[:, 0], cam(x, [1, 2]), atol=1e-6)


def test_signed_maps_keep_what_speaks_against_the_class():
    model, x = Branching().eval(), images()
    signed = PathCAM(model, relu=False, normalize="max")(x, 3)
    assert (signed < 0).any()
    assert (signed > 0).any()
    lowest = np.array([each.argmin() for each in signed])
    plain = GradCAM(model, "last", relu=False, normalize="max")(x, 3).reshape(len(x), -1)
    assert (plain[np.arange(len(x)), lowest] < 0).all()


def test_the_gaussian_is_a_quarter_of_a_cell_on_each_axis():
    """Of a cell 8 high and 16 wide: 2 and 4 px. Half a sigma further a Gaussian is exp(-1/8) of its highest value."""
    maps = torch.zeros(1, 1, 32, 64)
    maps[..., 16, 32] = 1
    found = blurred_by_cells(maps, (4, 4))[0, 0] / blurred_by_cells(maps, (4, 4)).max()
    expected = math.exp(-1 / 8)
    torch.testing.assert_close(found[[15, 17, 16, 16], [32, 32, 30, 34]], torch.full((4,), expected))


def test_a_network_of_one_map_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()
    with pytest.warns(CamWarning, match="no map in front of Grad-CAM's layer"):
        maps = PathCAM(model)(images(), 3)
    np.testing.assert_array_equal(maps, GradCAM(model)(images(), 3))


class Apart(nn.Module):
    """The place of what is bright in the first map, moved to the other half in the last one."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        last = self.last(self.first(x).roll(8, dims=-1))
        return torch.stack([last.mean((1, 2, 3)), -last.mean((1, 2, 3))], dim=1)


def test_a_map_that_is_blank_because_the_layers_disagree():
    x = torch.zeros(1, 3, 12, 16)
    x[..., 2:6, 2:6] = 1
    with pytest.warns(CamWarning, match="the map is blank: no position is high both in Grad-CAM's map and in those"):
        assert not PathCAM(Apart(), ["first", "last"], check_place=False)(x, 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        assert PathCAM(Branching().eval())(images(), 3).any()


@pytest.mark.parametrize("layers", [["stem", "last"], ["stem", "block", "last"]])
def test_all_layers_of_the_path_are_registered_by_the_same_forwards(layers):
    """24 with noise and one by geometry, however many layers; each as `registration_of` registers it alone."""
    x, forwards = images(), {}
    for align in ("cell", "receptive_field"):
        net, alone, counted = Branching().eval(), Branching().eval(), []
        net.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        with PathCAM(net, layers, align=align) as cam:
            cam(x, 1)
            for layer, registration in cam.registrations.items():
                name = next(name for name, module in net.named_modules() if module is layer)
                assert registration == registration_of(alone, name, x[:1])
        forwards[align] = len(counted)
    assert forwards["receptive_field"] - forwards["cell"] == 25


def test_the_gaussian_is_not_rounded_in_autocast():
    maps = torch.rand(1, 1, 32, 64)
    expected = blurred_by_cells(maps, (4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(blurred_by_cells(maps, (4, 4)), expected)


def test_the_path_stays_where_grad_cams_layer_does():
    """Of the first layer even tiles are ruled out, of the last one not."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 8, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    net = net.append(nn.Flatten()).append(nn.Linear(8, 5)).eval()
    x = torch.randn(1, 3, 48, 64)
    assert [registration_of(net, layer, x).source for layer in ("1", "3")] == ["measurement", "tiles"]
    with PathCAM(net, ["1", "3"], align="receptive_field", check_place=False) as cam:
        found = cam(x, 2)
        assert [*cam.registrations] == [net[3]]
    np.testing.assert_array_equal(found, PathCAM(net, ["1", "3"], align="cell", check_place=False)(x, 2))

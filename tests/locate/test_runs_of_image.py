"""Layers that run for several images: a map is made of the runs that read the image asked about."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning

CLASSES = 3


class Siamese(nn.Module):
    """Two images through the same encoder; they may have other sizes."""

    def __init__(self, joined=torch.sub):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head, self.joined = nn.Linear(8, CLASSES), joined

    def forward(self, first, second):
        features = [self.encoder(image).mean((2, 3)) for image in (first, second)]
        return self.head(self.joined(*features).square())


def pair(other=(24, 24)):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 24, 24, generator=generator), torch.randn(2, 3, *other, generator=generator)


def expected(model, images, which, target):
    """Grad-CAM of the encoder's run for one of the images, literally."""
    runs = []
    with torch.enable_grad(), model.encoder.register_forward_hook(lambda _, __, output: runs.append(output)):
        scores = model(*images)
    gradient = torch.autograd.grad(scores[:, target].sum(), runs[which])[0]
    evidence = (gradient.mean((2, 3), keepdim=True) * runs[which]).sum(1).clamp(min=0)
    lowest, highest = evidence.amin((1, 2), keepdim=True), evidence.amax((1, 2), keepdim=True)
    return ((evidence - lowest) / (highest - lowest).clamp(min=1e-30)).detach()


@pytest.mark.parametrize("layer", ["encoder", None])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("other", [(24, 24), (32, 16)])
def test_each_image_has_the_map_of_its_own_run(layer, which, other):
    model, images = Siamese().eval(), pair(other)
    cam = GradCAM(model, layer, spatial_from=which)
    for _ in range(2):
        drawn = torch.from_numpy(cam(images, 1))
        assert drawn.shape == (2, *images[which].shape[2:])
        of_cells = nn.functional.interpolate(
            expected(model, images, which, 1)[:, None], drawn.shape[1:], mode="bilinear"
        )
        for found, wanted in zip(drawn, of_cells[:, 0], strict=True):
            assert np.corrcoef(found.flatten(), wanted.flatten())[0, 1] > 0.99


@pytest.mark.parametrize("cam_class", [EigenCAM, LayerCAM, ScoreCAM])
def test_every_method_and_keyword_arguments(cam_class):
    model, images = Siamese().eval(), pair()
    alone = cam_class(model, "encoder", call_index=1, spatial_from="second")
    named = {"first": images[0], "second": images[1]}
    for layer in ("encoder", None):
        found = cam_class(model, layer, spatial_from="second")(named, 1)
        np.testing.assert_allclose(found, alone(named, 1), atol=1e-5)


def test_a_run_of_another_image_that_is_asked_for_is_warned_of():
    with pytest.warns(CamWarning, match="may lie in the wrong place"):
        GradCAM(Siamese().eval(), "encoder", call_index=1)(pair(), 1)


def test_runs_that_read_parts_of_one_image_are_all_drawn():
    class TwoScales(Siamese):
        def forward(self, first, second):
            return super().forward(first, nn.functional.avg_pool2d(first, 2) + 0 * second.mean())

    model, images = TwoScales().eval(), pair()
    both = GradCAM(model, "encoder")(images, 1)
    assert not np.allclose(both, GradCAM(model, "encoder", call_index=0)(images, 1))


def test_a_single_image_costs_no_forward_more():
    model, seen = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), []
    model.register_forward_hook(lambda *_: seen.append(1))
    GradCAM(model, "0", check_place=False)((pair()[0],), 1)
    assert len(seen) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_sees_the_image_turned_is_warned_of(seed):
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(seed)
            layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
            self.body, self.head = nn.Sequential(*layers), nn.Linear(8, CLASSES)

        def forward(self, x):
            return sum(self.head(self.body(image).mean((2, 3))) for image in (x, x.flip(2, 3)))

    image = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(seed))
    with pytest.warns(CamWarning, match="may lie in the wrong place: the model mirrors or turns the 48x48 image"):
        GradCAM(Turning().eval(), "body")(image, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        GradCAM(Turning().eval(), "body", call_index=0)(image, 1)

"""What holds for trained weights, by the bundled network: scenes of digits, and digits on a photo.

The photo is scikit-image's `chelsea`, by Stefan van der Walt, CC0.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import pytorch_grad_cam
from benchmarks.digits import evaluate, scenes_got_right
from benchmarks.real.__main__ import compared, figures
from pytorch_grad_cam import FullGrad, GradCAM
from pytorch_grad_cam.demo import load_digits_net, preprocess_scene
from pytorch_grad_cam.registration import registration_of

pytestmark = pytest.mark.slow

PHOTO = Path(__file__).parents[1] / "data/cat.png"
METHODS = (
    "GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise", "EigenCAM", "EigenGradCAM",
    "KPCA_CAM", "FEM", "ShapleyCAM", "AblationCAM", "FullGrad", "PathCAM", "LIFTCAM", "ReciproCAM", "SegEigenCAM",
    "LayerIntegratedGradients",
)  # fmt: skip


class WithoutItsLastRectifier(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        block = self.block
        return block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + block.downsample(x)


class InDenseNetsForm(nn.Module):
    """The digits network as torchvision writes its DenseNets: the last rectifier is a function, in place."""

    def __init__(self, net):
        super().__init__()
        stages = net.layer1, net.layer2, net.layer3, WithoutItsLastRectifier(net.layer4[0])
        self.features, self.fc = nn.Sequential(net.conv1, net.bn1, net.relu, *stages), net.fc

    def forward(self, x):
        return self.fc(F.relu(self.features(x), inplace=True).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    return load_digits_net()


@pytest.fixture(scope="module")
def scenes(net):
    return scenes_got_right(net, 40, seed=2)


def hits_and_energy(cam, scenes):
    found = evaluate(lambda images, labels: cam(images, labels.tolist()), scenes)
    return found["hit"], found["energy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, "ScoreCAM"])
@pytest.mark.parametrize("layer", ["features", None])
def test_no_method_is_worse_where_the_last_rectifier_is_a_function(net, scenes, name, layer):
    """The same scores; by the layer that users name and by the one that is found."""
    method, dense = getattr(pytorch_grad_cam, name), InDenseNetsForm(net).eval()
    plain = hits_and_energy(method(net, [] if name == "FullGrad" else "layer4"), scenes)
    hits, energy = hits_and_energy(method(dense, [] if name == "FullGrad" else layer), scenes)
    assert hits > plain[0] - 0.03
    assert energy > plain[1] - 0.03


def points(cam, scenes):
    """Hit and energy of each digit's map, (digits, 2), and each digit's scene."""
    found, numbers = [], []
    for number, scene in enumerate(scenes):
        maps = cam(preprocess_scene(scene.image), [scene.labels.tolist()])[0]
        for (left, top, right, bottom), cam_map in zip(scene.boxes, maps, strict=True):
            inside = np.zeros(cam_map.shape, bool)
            inside[top:bottom, left:right] = True
            hit, _, energy = figures(cam_map, inside, ~inside)
            found.append((hit, energy))
            numbers.append(number)
    return np.array(found), np.array(numbers)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "EigenGradCAM", "FullGrad"])
@pytest.mark.parametrize("probes", [0, 32])
def test_registered_maps_are_not_worse_than_tiles(net, scenes, name, probes):
    """Measured with noise, as a call does, or with other scenes: neither hits nor energy are lower by more than their
    standard error. This network looks a third of a cell beside its tiles, which scenes show and noise does not.
    """
    model = load_digits_net()  # its own: what is measured is kept for it
    method = getattr(pytorch_grad_cam, name)
    named = [] if name == "FullGrad" else "layer4"
    if probes:
        others = [preprocess_scene(scene.image) for scene in scenes_got_right(model, probes, seed=3)]
        assert registration_of(model, "layer4", torch.cat(others)).source == "measurement"
    plain, pictures = points(method(model, named), scenes)
    registered, _ = points(method(model, named, align="receptive_field"), scenes)
    said = [compared(*columns, pictures) for columns in zip(plain.T, registered.T, strict=True)]
    assert "lower" not in said


def test_fullgrad_times_grad_cam_points_better_than_either(net, scenes):
    """The README's product: hits and energy."""
    whole, coarse = FullGrad(net), GradCAM(net, "layer4")
    product = evaluate(lambda x, y: whole(x, y.tolist()) ** 3 * coarse(x, y.tolist()), scenes)
    for cam in (whole, coarse):
        hits, energy = hits_and_energy(cam, scenes)
        assert product["hit"] > hits
        assert product["energy"] > 1.4 * energy


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "EigenGradCAM"])
def test_digits_on_a_photo(net, name):
    """On a ground that no scene has: the maps point at the digits that the network reads there. Chance is 0.08."""
    photo = np.array(Image.open(PHOTO).convert("RGB"))
    seen = []
    for scene in scenes_got_right(net, 40, seed=5):
        image = photo.copy()
        for mask in scene.masks:
            image[mask] = 255 if image[mask].mean() < 128 else 0
        seen.append(scene._replace(image=image))
    x = preprocess_scene(np.stack([scene.image for scene in seen]))
    with torch.no_grad():
        highest = net(x).topk(2).indices.sort().values.tolist()
    read = [scene for scene, digits in zip(seen, highest, strict=True) if digits == sorted(scene.labels)]
    assert len(read) > 10
    hits, energy = hits_and_energy(getattr(pytorch_grad_cam, name)(net, "layer4"), read)
    assert hits > 0.7
    assert energy > 2 * np.mean([(box[2] - box[0]) * (box[3] - box[1]) for s in read for box in s.boxes]) / 64**2

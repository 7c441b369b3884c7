"""Pictures as ultralytics' networks take them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pytorch_grad_cam.zoo.letterbox import Letterbox
from pytorch_grad_cam.zoo.preprocessing import own_preprocessing

GREY = 114 / 255


def picture(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "shape", "rows", "columns"),
    [
        ((64, 64), (64, 64), (0, 64), (0, 64)),
        ((32, 64), (32, 64), (0, 32), (0, 64)),  # a multiple of the stride: nothing is added
        ((40, 128), (32, 64), (6, 26), (0, 64)),
        ((10, 3), (64, 32), (0, 64), (6, 25)),  # 64 x 19: six columns before it, seven behind
        ((1, 100), (32, 64), (15, 16), (0, 64)),
    ],
)
def test_what_is_of_the_picture_and_what_is_grey(size, shape, rows, columns):
    shown = Letterbox(64, 64, 32)(picture(*size))
    assert shown.shape == (3, *shape)
    of_picture = torch.zeros(shape, dtype=torch.bool)
    of_picture[slice(*rows), slice(*columns)] = True
    assert torch.all(shown[:, ~of_picture] == GREY)
    assert torch.all((shown[:, of_picture] != GREY).any(0))


def test_pixels_are_those_of_the_picture_where_it_fits():
    image = picture(20, 64)
    shown = Letterbox(64, 64, 32)(image)
    assert torch.equal(shown[:, 6:26], torch.from_numpy(np.array(image)).movedim(-1, 0) / 255)


def test_stretched():
    shown = Letterbox(64, 96, 32, is_stretched=True)(picture(10, 50))
    assert shown.shape == (3, 64, 96)


@pytest.mark.parametrize("is_stretched", [False, True])
def test_as_ultralytics_makes_them(is_stretched):
    theirs = pytest.importorskip("ultralytics.data.augment").LetterBox
    for height, width in ((300, 500), (37, 11), (640, 640), (5, 700)):
        image = picture(height, width)
        expected = theirs((320, 320), auto=not is_stretched, scale_fill=is_stretched, stride=32)(image=np.array(image))
        shown = Letterbox(320, 320, 32, is_stretched)(image)
        assert torch.equal(shown, torch.from_numpy(expected).movedim(-1, 0) / 255)


class Network(nn.Module):
    """What ultralytics' networks say of themselves."""

    def __init__(self, stride=(8.0, 16.0, 32.0), **said):
        super().__init__()
        self.stride, self.yaml = torch.tensor(stride), {"nc": 5}
        for name, value in said.items():
            setattr(self, name, value)


class Decoder(nn.Module):
    num_queries = 300


@pytest.mark.parametrize(
    ("network", "expected", "origin"),
    [
        (Network(), Letterbox(640, 640, 32), "ultralytics' (a letterbox within 640 x 640 px, ultralytics' default)"),
        (Network(args={"imgsz": 320}), Letterbox(320, 320, 32), "ultralytics' (a letterbox within 320 x 320 px)"),
        (
            Network(stride=(8.0, 64.0), args=SimpleNamespace(imgsz=[200, 320])),
            Letterbox(256, 320, 64),
            "ultralytics' (a letterbox within 256 x 320 px)",
        ),
        (
            Network(stride=(32.0,), args={"imgsz": 640}, head=Decoder()),
            Letterbox(640, 640, 32, is_stretched=True),
            "ultralytics' (stretched to 640 x 640 px)",
        ),
    ],
)
def test_a_network_of_ultralytics_has_its_predictors(network, expected, origin):
    found = own_preprocessing(network)
    assert (found.function, found.origin, found.is_assumed) == (expected, origin, False)
    assert (found.mean, found.std) == ((0.0,), (1.0,))


def test_a_classifier_of_ultralytics_sees_the_centre():
    found = own_preprocessing(Network(stride=(1.0,), args={"imgsz": 64}, task="classify"))
    assert found.function(picture(100, 300)).shape == (3, 64, 64)
    assert found.origin == "ultralytics' for classifiers (the centre 64 x 64 px)"

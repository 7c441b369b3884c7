"""Pictures of any form are what their files would be."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.zoo.pictures import as_picture
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

SCENE = example_scene()
GREY = SCENE.mean(2).astype(np.uint8)
ALPHA = np.dstack([SCENE, np.full((64, 64), 30, np.uint8)])


def encoded():
    file = io.BytesIO()
    Image.fromarray(SCENE).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (SCENE, SCENE),
        (SCENE.transpose(2, 0, 1), SCENE),
        (SCENE / 255, SCENE),
        (SCENE.astype(np.uint16) * 257, SCENE),
        (ALPHA, SCENE),
        (GREY, np.dstack([GREY] * 3)),
        (GREY[..., None], np.dstack([GREY] * 3)),
        (GREY[None], np.dstack([GREY] * 3)),
        (GREY.astype(np.uint16) << 8, np.dstack([GREY] * 3)),
        (GREY > 100, np.dstack([255 * (GREY > 100)] * 3)),
        (torch.from_numpy(SCENE), SCENE),
        (torch.from_numpy(SCENE).permute(2, 0, 1), SCENE),
        (encoded(), SCENE),
    ],
    ids=["rgb", "first", "floats", "16 bits", "alpha", "2-D", "last", "1", "grey 16", "bool", "tensor", "chw", "bytes"],
)
def test_forms(image, expected):
    np.testing.assert_array_equal(np.asarray(as_picture(image)), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (cv2.imread("typo.jpg"), r"None, as cv2\.imread returns it"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\), expected a path"),
        (np.zeros((5, 5, 2), np.uint8), r"shape \(5, 5, 2\), expected a path"),
        (np.zeros((4, 4, 3), np.int64), "dtype int64"),
        (SCENE.astype(float), r"values from .* expected \[0, 1\]"),
        (b"no image", "the 8 bytes are no image"),
        (7, "the image is int, expected a path"),
    ],
)
def test_what_is_no_picture(image, message):
    with pytest.raises(ValueError, match=message) as raised:
        as_picture(image)
    assert isinstance(raised.value, UnusableInput) or "dtype" in message or "values" in message

"""Boxes and masks in the original picture's pixels, through any preprocessing."""

import numpy as np
import pytest
import torch
from nets import convolutional
from PIL import Image, ImageOps
from torchvision import transforms

from pytorch_grad_cam import explain
from pytorch_grad_cam.zoo.placement import placement_of

NORMALISE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def letterbox(image):
    return transforms.functional.to_tensor(ImageOps.pad(image, (64, 64), color=(114, 114, 114)))


def mirrored(image):
    return transforms.functional.to_tensor(ImageOps.mirror(image.resize((32, 32))))


@pytest.mark.parametrize(
    ("preprocess", "size", "x", "y"),
    [
        (
            transforms.Compose([transforms.Resize((64, 96)), transforms.ToTensor(), NORMALISE]),
            (480, 320),
            (5, 0),
            (5, 0),
        ),
        (
            transforms.Compose([transforms.Resize(128), transforms.CenterCrop(96), transforms.ToTensor(), NORMALISE]),
            (512, 256),
            (2, 2 * 80),
            (2, 2 * 16),
        ),
        (letterbox, (256, 128), (4, 0), (4, -4 * 16)),
        (mirrored, (320, 160), (-10, 320), (5, 0)),
        (lambda image: transforms.functional.to_tensor(image.convert("L"))[:, 8:], (40, 48), (1, 0), (1, 8)),
    ],
    ids=["resize", "resize and crop", "letterbox", "mirror", "crop alone, grey"],
)
def test_where_the_input_lies(preprocess, size, x, y):
    placement = placement_of(preprocess, size)
    for found, expected, side in ((placement.x, x, size[0]), (placement.y, y, size[1])):
        assert found[0] == pytest.approx(expected[0], rel=0.02)
        assert found[1] == pytest.approx(expected[1], abs=0.01 * side + 0.5)


def test_what_scales_each_picture_by_itself_has_no_place():
    def standardised(image):
        pixels = transforms.functional.to_tensor(image.resize((32, 32)))
        return (pixels - pixels.mean()) / (pixels.std() + 1e-6)

    assert placement_of(standardised, (64, 64)) is None
    found = explain(convolutional(), np.zeros((64, 64, 3), np.uint8), "eigencam", preprocess=standardised)
    with pytest.raises(ValueError, match="its preprocessing does more than resize and cut"):
        found.boxes(in_original=True)


def test_boxes_and_masks_of_a_photo_on_its_side(tmp_path):
    """The input is the middle of the upright picture; what lies outside is in no mask."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 400, 3), np.uint8)).save(
        tmp_path / "photo.png", exif=exif
    )
    steps = transforms.Compose([transforms.Resize(50), transforms.CenterCrop(48), transforms.ToTensor()])
    found = explain(convolutional(), tmp_path / "photo.png", "eigencam", preprocess=steps)
    assert found.original_size == (400, 200)
    (mask,), (original,) = found.masks(0.5), found.masks(0.5, in_original=True)
    assert original.shape == (400, 200)
    assert not original[:100].any()
    assert not original[302:].any()
    assert original.sum() == pytest.approx(16 * mask.sum(), rel=0.05)
    (boxes,), (in_original,) = found.boxes(0.5), found.boxes(0.5, in_original=True)
    for (left, top, right, bottom), mapped in zip(boxes, in_original, strict=True):
        expected = [4 * left + 4, 4 * top + 104, 4 * right + 4, 4 * bottom + 104]
        np.testing.assert_allclose(mapped, expected, atol=3)


def test_inputs_that_were_given_have_no_original():
    found = explain(convolutional(), torch.zeros(3, 24, 32), "eigencam")
    assert found.original_size is None
    with pytest.raises(ValueError, match="the inputs were given"):
        found.masks(in_original=True)

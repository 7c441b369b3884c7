import cv2
import numpy as np
import pytest
import torch

from pytorch_grad_cam.sobel_cam import sobel_cam
from pytorch_grad_cam.utils.image import deprocess_image, preprocess_image, scale_cam_image, show_cam_on_image

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.random((6, 8, 3)).astype(np.float32)
MASK = RANDOM.random((6, 8)).astype(np.float32)


def test_overlay_is_the_blend_of_picture_and_colours():
    colours = cv2.applyColorMap(np.uint8(255 * MASK), cv2.COLORMAP_JET) / 255
    expected = np.uint8(255 * (0.7 * colours + 0.3 * IMAGE))
    found = show_cam_on_image(IMAGE, MASK, image_weight=0.3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_rgb_swaps_the_colours_only():
    black = np.zeros((1, 1, 3), np.float32)
    hottest = np.ones((1, 1), np.float32)
    assert show_cam_on_image(black, hottest, use_rgb=True)[0, 0].tolist() == [64, 0, 0]
    assert show_cam_on_image(black, hottest)[0, 0].tolist() == [0, 0, 64]


def test_brightness_of_the_picture_stays():
    """grad-cam 1.5.7 stretches the blend so that its brightest value is 255."""
    for grey in (0, 0.25, 0.9):
        found = show_cam_on_image(np.full((2, 2, 3), float(grey)), np.ones((2, 2)), image_weight=1)
        assert np.abs(found - 255 * grey).max() <= 0.5


@pytest.mark.parametrize("image", [np.uint8(255 * IMAGE), IMAGE.astype(np.float64), np.round(255 * IMAGE) / 255])
def test_kinds_of_images(image):
    expected = show_cam_on_image(np.float32(np.uint8(255 * IMAGE)) / 255, MASK)
    assert np.abs(show_cam_on_image(image, MASK).astype(int) - expected).max() <= 2


def test_mask_of_one_image_and_a_hair_outside():
    assert (show_cam_on_image(IMAGE, MASK[None]) == show_cam_on_image(IMAGE, MASK)).all()
    top = np.full((2, 2), 1.0, np.float32)
    grey = np.full((2, 2, 3), 0.5, np.float32)
    assert (show_cam_on_image(grey, top * 1.01) == show_cam_on_image(grey, top)).all(), "hottest, not wrapped to cold"
    assert (show_cam_on_image(grey, top * -0.01) == show_cam_on_image(grey, top * 0)).all()
    assert show_cam_on_image(np.zeros((2, 2, 3), np.float32), 0 * top, image_weight=1.0).max() == 0


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (IMAGE, MASK[:5], r"mask has shape \(5, 8\), the image \(6, 8, 3\)"),
        (IMAGE, MASK[None].repeat(2, 0), r"mask has shape \(2, 6, 8\)"),
        (IMAGE[..., 0], MASK, r"image has shape \(6, 8\)"),
        (IMAGE[..., :2], MASK, r"image has shape \(6, 8, 2\)"),
        (255 * IMAGE, MASK, "image has values from"),
        (IMAGE - 0.5, MASK, "image has values from"),
        (IMAGE, 2 * MASK, "mask has values from"),
        (IMAGE, MASK * np.nan, "mask contains NaN"),
        (IMAGE * np.nan, MASK, "image contains NaN"),
        (np.int64(255 * IMAGE), MASK, "dtype int64"),
    ],
)
def test_refused(image, mask, message):
    with pytest.raises(ValueError, match=message):
        show_cam_on_image(image, mask)


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_refused_weight(weight):
    with pytest.raises(ValueError, match="image_weight"):
        show_cam_on_image(IMAGE, MASK, image_weight=weight)


def test_inputs_are_left_alone():
    image, mask = IMAGE.copy(), MASK.copy()
    show_cam_on_image(image, mask)
    preprocess_image(image)
    deprocess_image(image)
    scale_cam_image(mask[None], (3, 3))
    assert (image == IMAGE).all()
    assert (mask == MASK).all()


@pytest.mark.parametrize("image", [IMAGE, IMAGE.astype(np.float64), np.uint8(255 * IMAGE)])
def test_preprocess(image):
    batch = preprocess_image(image, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
    assert batch.dtype == torch.float32
    assert batch.shape == (1, 3, 6, 8)
    torch.testing.assert_close(batch[0, 1], torch.from_numpy((IMAGE[..., 1] - 0.5) / 0.3), atol=0.02, rtol=0)


def test_deprocess():
    gradient = RANDOM.normal(3, 7, (50, 50, 3))
    picture = deprocess_image(gradient)
    assert picture.dtype == np.uint8
    assert abs(picture.mean() - 127) < 1
    assert abs(picture.std() - 25.5) < 1


@pytest.mark.parametrize("scale", [1, 1e-8, 1e-30, 1e8])
def test_scaling_is_relative(scale):
    ramp = np.linspace(-1, 1, 16).reshape(1, 4, 4) * scale
    np.testing.assert_allclose(scale_cam_image(ramp), np.linspace(0, 1, 16).reshape(1, 4, 4), atol=1e-6)


def test_scaling_of_a_constant_and_of_a_volume():
    assert not scale_cam_image(np.full((2, 3, 3), 4.0)).any()
    volume = scale_cam_image(RANDOM.random((2, 3, 4, 5)), target_size=(10, 8, 6))
    assert volume.shape == (2, 6, 8, 10)
    assert volume.dtype == np.float32
    assert 0 <= volume.min() <= volume.max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scaling_refuses_what_is_not_finite(value):
    maps = RANDOM.random((2, 3, 3))
    maps[1, 0, 2] = value
    with pytest.raises(ValueError, match="maps are not finite"):
        scale_cam_image(maps)


def test_enlarging_agrees_with_opencv():
    maps = scale_cam_image(RANDOM.random((2, 5, 7)))
    expected = np.stack([cv2.resize(m, (21, 13)) for m in maps])
    np.testing.assert_allclose(scale_cam_image(maps, (21, 13)), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 14), (10, 14, 4), (1, 10, 14, 3)])
def test_preprocess_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\)"):
        preprocess_image(np.zeros(shape, np.float32))


def test_edges_are_the_mean_of_both_sobel_gradients():
    photo = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    gradients = [np.abs(cv2.Sobel(grey, cv2.CV_64F, *axes)).clip(max=255) for axes in ((1, 0), (0, 1))]
    np.testing.assert_allclose(sobel_cam(photo), np.mean(gradients, axis=0), atol=0.5)

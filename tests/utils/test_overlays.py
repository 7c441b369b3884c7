"""Maps over signals, volumes and videos."""

import numpy as np
import pytest
from PIL import Image

from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.overlays import montage, save_gif, show_cam_on_signal, show_cam_on_volume

RNG = np.random.default_rng(0)


def test_signal():
    signal, heat = RNG.normal(size=(2, 50)), np.linspace(0, 1, 50)
    figure = show_cam_on_signal(signal, heat)
    curves, strip = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in curves.lines], signal)
    np.testing.assert_array_equal(strip.images[0].get_array()[0], heat)
    assert curves.get_xlim() == pytest.approx((0, 49), abs=1)


def test_slices_have_numbers():
    pictures = np.full((3, 16, 20, 3), 90, np.uint8)
    numbered = montage(pictures, [7, 8, 9])
    assert numbered.shape == (32, 40, 3)
    cells = numbered[:16, :20], numbered[:16, 20:], numbered[16:, :20]
    for cell in cells:
        assert cell.min() < 90 < cell.max()
        assert (cell[12:, 12:] == 90).all()
    assert not np.array_equal(cells[0], cells[1])


@pytest.mark.parametrize("shape", [(4, 6, 8), (4, 6, 8, 3)])
def test_slices_of_a_volume(shape):
    volume, heat = RNG.random(shape), RNG.random((4, 6, 8))
    shown = show_cam_on_volume(volume, heat, image_weight=0.4)
    colour = volume if len(shape) == 4 else np.repeat(volume[..., None], 3, axis=3)
    np.testing.assert_array_equal(shown[2], show_cam_on_image(colour[2], heat[2], use_rgb=True, image_weight=0.4))


def test_montage_row_by_row():
    pictures = RNG.integers(1, 256, (5, 4, 6, 3), np.uint8)
    joined = montage(pictures)
    np.testing.assert_array_equal(joined[:4, 6:12], pictures[1])
    np.testing.assert_array_equal(joined[4:, :6], pictures[3])
    assert not joined[4:, 12:].any()


def test_animation(tmp_path):
    pictures = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 120, 255)])
    save_gif(pictures, tmp_path / "video.gif", frames_per_second=20)
    with Image.open(tmp_path / "video.gif") as animation:
        assert (animation.n_frames, animation.info["duration"]) == (3, 50)
        animation.seek(2)
        assert np.asarray(animation.convert("RGB")).min() == 255


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: show_cam_on_signal(np.zeros((2, 5)), np.zeros(4)), r"expected \(C, L\) and \(L,\)"),
        (lambda: show_cam_on_signal(np.zeros(5), np.full(5, 3.0)), r"expected \[0, 1\]"),
        (lambda: show_cam_on_volume(np.zeros((4, 6, 8)), np.zeros((4, 8, 6))), r"expected \(D, H, W\)"),
        (lambda: show_cam_on_volume(np.full((4, 6, 8), 9.0), np.zeros((4, 6, 8))), r"expected \[0, 1\]"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()

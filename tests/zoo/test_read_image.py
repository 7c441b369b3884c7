"""Pictures of files and of Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from pytorch_grad_cam import explain
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.zoo.classifiers import UnusableInput
from pytorch_grad_cam.zoo.read_image import read_image

GREY = np.arange(64 * 64).reshape(64, 64)


def turned(file):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(example_scene()).save(file, exif=exif)


def deep(file):
    Image.fromarray((16 * GREY).astype(np.uint16)).save(file)


@pytest.mark.parametrize(("write", "name"), [(turned, "turned.png"), (deep, "deep.png"), (deep, "deep.tif")])
def test_a_pillow_image_is_its_file(write, name, tmp_path, digits_net):
    write(tmp_path / name)
    with Image.open(tmp_path / name) as opened:
        shown = explain(digits_net, opened, targets=5).picture
    np.testing.assert_array_equal(shown, explain(digits_net, tmp_path / name, targets=5).picture)


def test_sixteen_bits_of_other_formats(tmp_path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 64 64 65535 " + (16 * GREY).astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "deep.pgm"))[..., 0], 16 * GREY // 256)


@pytest.mark.parametrize("pixels", [GREY / 4095, GREY - 2000.0, 1000 * GREY], ids=["unit", "signed", "integers"])
def test_thirty_two_bits_go_from_their_lowest_value_to_their_highest(pixels, tmp_path, digits_net):
    image = Image.fromarray(pixels.astype(np.float32 if pixels.dtype == float else np.int32))
    image.save(tmp_path / "deep.tif")
    expected = np.stack([np.rint(GREY / 4095 * 255)] * 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif"), expected)
    np.testing.assert_array_equal(explain(digits_net, image, targets=5).picture, expected)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_a_file_of_sixteen(bits, name, tmp_path, digits_net):
    """X-ray and other detectors have 10 to 14 bits: unscaled, 12 of them would become 16 grey levels."""
    image = Image.fromarray((2 ** (bits - 2) + GREY * 2 ** (bits - 1) // 4096).astype(np.uint16))
    image.save(tmp_path / name)
    read = np.asarray(read_image(tmp_path / name))
    assert (read.min(), read.max(), len(np.unique(read))) == (0, 255, 256)
    np.testing.assert_array_equal(explain(digits_net, image, targets=5).picture, read)


@pytest.mark.parametrize(("highest", "expected"), [(2**14, 2**14 // 256), (2**16 - 1, 255)])
def test_sixteen_bits_that_use_their_range_keep_it(highest, expected, tmp_path):
    Image.fromarray(np.linspace(256, highest, 64).reshape(8, 8).astype(np.uint16)).save(tmp_path / "deep.png")
    read = np.asarray(read_image(tmp_path / "deep.png"))
    assert (read.min(), read.max()) == (1, expected)


def test_values_that_are_not_finite(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(UnusableInput, match=r"nan\.tif .*not finite"):
        read_image(tmp_path / "nan.tif")


def test_a_number_in_the_exif_that_says_it_is_text(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0100] = 6, 8
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "JPEG", exif=exif)
    width_as_number, width_as_text = b"\x01\x00\x00\x04", b"\x01\x00\x00\x02"
    (tmp_path / "broken.jpg").write_bytes(written.getvalue().replace(width_as_number, width_as_text))
    with pytest.raises(UnusableInput, match=r"broken\.jpg is no image that Pillow can read"):
        read_image(tmp_path / "broken.jpg")

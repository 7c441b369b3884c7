"""Whatever comes in: a result of the promised form or a clear error, nothing else.

`FUZZ_INPUTS=100000 pytest tests/project/test_fuzz.py` tries so many of each kind.
"""

import io
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from pytorch_grad_cam.cli.options import parser as command_line_parser
from pytorch_grad_cam.engine.targets import resolve_targets, target_scores
from pytorch_grad_cam.utils.image import (
    deprocess_image,
    preprocess_image,
    scale_accross_batch_and_channels,
    scale_cam_image,
    show_cam_on_image,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from pytorch_grad_cam.zoo.class_names import category_called
from pytorch_grad_cam.zoo.read_image import read_image
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

INPUTS = int(os.environ.get("FUZZ_INPUTS", "400"))
CLEAR = (ValueError, TypeError, IndexError)
MODES = {"JPEG": ("L", "RGB", "CMYK"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "GIF": ("L", "P")}
MODES |= {"BMP": ("1", "L", "RGB"), "TIFF": ("L", "RGB", "RGBA", "CMYK", "I;16", "F"), "WEBP": ("RGB", "RGBA")}


def clear(error: BaseException) -> bool:
    return isinstance(error, CLEAR) and len(str(error)) > 10


class TestFiles:
    """Pictures of all kinds, whole and broken: an RGB picture, or one line that names the file."""

    @staticmethod
    def pictures() -> list[bytes]:
        rng = np.random.default_rng(0)
        made = []
        for form, modes in MODES.items():
            for mode in modes:
                pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
                if mode == "I;16":
                    image = Image.fromarray(rng.integers(0, 65536, (24, 32), dtype=np.uint16))
                else:
                    image = Image.fromarray(pixels).convert(mode)
                exif = Image.Exif()
                exif[0x0112] = int(rng.integers(1, 9))
                file = io.BytesIO()
                image.save(file, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
                made.append(file.getvalue())
        return made

    @staticmethod
    def broken(whole: bytes, rng: np.random.Generator) -> bytes:
        data = bytearray(whole)
        kind = rng.integers(0, 6)
        if kind == 0:
            return bytes(data[: rng.integers(0, len(data))])
        if kind == 1:
            for _ in range(rng.integers(1, 20)):
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
        elif kind == 2:
            start = rng.integers(0, len(data))
            data[start : start + rng.integers(1, 40)] = bytes(int(rng.integers(1, 40)))
        elif kind == 3:
            data[: rng.integers(1, 60)] = rng.bytes(int(rng.integers(1, 60)))
        elif kind == 4:
            data[rng.integers(0, len(data)) : 0] = rng.bytes(30)
        return bytes(data)

    def test_any_bytes(self, tmp_path):
        rng, file, pictures = np.random.default_rng(1), tmp_path / "picture", self.pictures()
        read = refused = 0
        for index in range(INPUTS):
            whole = pictures[index % len(pictures)]
            file.write_bytes(whole if index < len(pictures) else self.broken(whole, rng))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    image = read_image(str(file))
                    image.load()
                    assert image.mode == "RGB"
                    read += 1
                except UnusableInput as error:
                    assert index >= len(pictures), "the whole ones can all be read"
                    assert str(file) in str(error)
                    refused += 1
        assert read + refused == INPUTS
        assert refused > INPUTS / 10

    def test_a_turned_picture_is_turned_back(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
        assert read_image(str(tmp_path / "turned.jpg")).size == (20, 30)

    def test_sixteen_bits_keep_their_brightness(self, tmp_path):
        Image.fromarray(np.full((4, 4), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
        assert abs(int(np.asarray(read_image(str(tmp_path / "deep.png")))[0, 0, 0]) - 128) <= 1

    def test_huge_dimensions(self, tmp_path):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "PNG")
        data = bytearray(file.getvalue())
        data[16:24] = (2**20).to_bytes(4, "big") * 2
        (tmp_path / "huge.png").write_bytes(data)
        with pytest.raises(UnusableInput, match=r"huge\.png"):
            read_image(str(tmp_path / "huge.png"))


def some_array(rng: np.random.Generator):
    """Arrays of any shape, type and values, and now and then no array."""
    if rng.random() < 0.03:
        return [None, "picture", 3, [], {}, [[1, 2], [3]], b"x", object()][rng.integers(0, 8)]
    shape = tuple(rng.integers(0, 6, rng.integers(0, 5)))
    if rng.random() < 0.6:
        shape = (4, 5, 3) if rng.random() < 0.5 else (4, 5)
    values = rng.random(shape) * rng.choice([1, 1, 1, 255, 1e-8, 1e8]) - rng.choice([0, 0, 0, 0.5])
    if rng.random() < 0.1 and values.size:
        values.flat[rng.integers(0, values.size)] = rng.choice([np.nan, np.inf, -np.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = [np.float64, np.float32, np.float16, np.uint8, np.int64, bool, np.complex64, object]
        return np.asarray(values).astype(rng.choice(kinds, p=[0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]))


def attempt(call, *arguments, **options):
    """The result; None for a clear error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(*arguments, **options)
    except CLEAR as error:
        assert clear(error), repr(error)
        return None


def test_pictures_with_maps():
    rng = np.random.default_rng(2)
    made = 0
    for _ in range(INPUTS):
        image = some_array(rng) if rng.random() < 0.7 else rng.random((4, 5, 3))
        mask = some_array(rng) if rng.random() < 0.7 else rng.random((4, 5))
        weight = rng.choice([0, 0.5, 1, 1, -1, np.nan])
        found = attempt(show_cam_on_image, image, mask, use_rgb=bool(rng.integers(2)), image_weight=weight)
        if found is not None:
            made += 1
            assert found.dtype == np.uint8
            assert found.shape == np.shape(image)
    assert made > INPUTS / 100


@pytest.mark.parametrize("function", [preprocess_image, deprocess_image])
def test_images_of_any_kind(function):
    rng = np.random.default_rng(3)
    for _ in range(INPUTS):
        image = some_array(rng)
        found = attempt(function, image)
        if found is not None and function is preprocess_image:
            assert found.dtype == torch.float32
            assert found.isfinite().all()
        if found is not None and function is deprocess_image:
            assert found.dtype == np.uint8
            assert found.shape == np.shape(image)


@pytest.mark.parametrize("function", [scale_cam_image, scale_accross_batch_and_channels])
def test_scaling_anything(function):
    rng = np.random.default_rng(4)
    for _ in range(INPUTS):
        size = [(6, 4), None, (0, 3), (3,), (2, 2, 2), ("a", 2), (-1, 2), (2.5, 3)][rng.integers(0, 8)]
        found = attempt(function, some_array(rng), size)
        if found is not None:
            assert found.dtype == np.float32
            finite = found[np.isfinite(found)]
            assert finite.size == 0 or (finite.min() >= 0 and finite.max() <= 1 + 1e-6)


def some_target(rng: np.random.Generator, depth: int = 0):
    simple = [
        None, 0, 3, -1, 7, 10**12, True, 1.5, "5", b"", np.int64(2), np.array(1), np.array([1, 2]), torch.tensor(2),
        torch.tensor([1, 4]), torch.tensor([[1, 2], [3, 4]]), torch.tensor(1.0), ClassifierOutputTarget(2),
        ClassifierOutputTarget(99), ClassifierOutputTarget("a"), ClassifierOutputSoftmaxTarget(1), lambda y: y[0],
        lambda y: y, lambda y: None, lambda y: y[99], lambda: 1, dict, object(), range(2), {1: 2}, {1, 2}, np.nan,
    ]  # fmt: skip
    if depth < 2 and rng.random() < 0.4:
        made = [some_target(rng, depth + 1) for _ in range(rng.integers(0, 4))]
        return made if rng.random() < 0.7 else tuple(made)
    return simple[rng.integers(0, len(simple))]


def test_targets_of_any_form():
    rng = np.random.default_rng(5)
    outputs = torch.randn(2, 5)
    resolved = 0
    for _ in range(INPUTS):
        form = some_target(rng)
        found = attempt(resolve_targets, form, outputs)
        if found is None:
            continue
        assert len(found) == 2
        scores = attempt(target_scores, outputs, found)
        if scores is not None:
            resolved += 1
            assert scores.shape == (2,)
    assert resolved > INPUTS / 20


def test_command_lines():
    rng, parser = np.random.default_rng(6), command_line_parser()
    known = [option for action in parser._actions for option in action.option_strings]
    words = [*known, "gradcam", "5", "-1", "0", "", "é", "--", "-", "a" * 300, "nan", "layer4", "cuda", "\x00"]
    for _ in range(INPUTS):
        line = [words[rng.integers(0, len(words))] for _ in range(rng.integers(0, 6))]
        try:
            parser.parse_args(line)
        except SystemExit as stopped:
            assert stopped.code in (0, 2)


def test_names_of_classes():
    rng, categories = np.random.default_rng(7), ["cat", "tabby cat", "dog", "5", "Ärger", ""]
    for _ in range(INPUTS):
        text = "".join(rng.choice(list("catdog 5-Ä9\x00é"), rng.integers(0, 6)))
        try:
            assert 0 <= category_called(text, categories) < len(categories)
        except UnusableInput as error:
            assert len(str(error)) > 10

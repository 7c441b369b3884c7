"""`explain`, a folder and the command line with a detector: a map for each box, with its name and score."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import Queries, two_squares
from PIL import Image
from torch import nn

from pytorch_grad_cam import BoxTarget, FinerCAM, compare, explain
from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo.detectors import load_digits_detector, preprocess_detector
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

NAMES = ["background", *map(str, range(10))]


@pytest.fixture(scope="module")
def detector():
    return load_digits_detector("regions")


@pytest.fixture(scope="module")
def scene():
    return make_scene(np.random.default_rng(5), several=4)


def preprocess(image):
    return preprocess_detector(np.asarray(image.resize((64, 64))))[0]


def explained(detector, picture, **options):
    options = {"preprocess": preprocess, "categories": NAMES} | options
    return explain(detector, picture, **options)


def overlap(first, second):
    (a, b, c, d), (e, f, g, h) = first, second
    shared = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f))
    return shared / ((c - a) * (d - b) + (g - e) * (h - f) - shared)


def test_the_first_detections_each_with_box_name_and_score(detector, scene):
    explanation = explained(detector, scene.image, top=3)
    assert len(explanation) == 3
    scores = [panel.probability for panel in explanation]
    assert scores == sorted(scores, reverse=True)
    for panel in explanation:
        (box,) = panel.boxes
        right = [label for label, truth in zip(scene.labels, scene.boxes, strict=True) if overlap(box.box, truth) > 0.5]
        assert (box.name, box.score) == (panel.name, panel.probability)
        assert [str(label) for label in right] == [box.name]
        row, column = np.unravel_index(panel.map.argmax(), panel.map.shape)
        assert box.box[0] <= column <= box.box[2]
        assert box.box[1] <= row <= box.box[3]
    assert "probabilities: the scores of the detector's boxes" in explanation.assumptions


def test_boxes_are_in_pixels_of_the_original(detector, scene):
    """A picture three times as wide and twice as high, and a box in it."""
    large = Image.fromarray(scene.image).resize((192, 128), Image.Resampling.NEAREST)
    (panel,) = explained(detector, large)
    (small,) = explained(detector, scene.image)
    np.testing.assert_allclose(panel.boxes[0].box, np.array(small.boxes[0].box) * (3, 2, 3, 2), atol=1)
    assert explained(detector, large).seen(panel.boxes[0].box) == pytest.approx(small.boxes[0].box, abs=0.5)


class Letterboxed(nn.Module):
    """The detector as a network of ultralytics, which says its strides and names: a letterbox within 64 x 64."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector
        self.stride, self.yaml, self.args = torch.tensor([8.0, 64.0]), {}, {"imgsz": 64}
        self.names = dict(enumerate(NAMES))

    def forward(self, x):
        return self.detector(x)


@pytest.fixture(scope="module")
def letterboxed(detector):
    return Letterboxed(detector)


@pytest.fixture(scope="module")
def wide(scene):
    """The lower half of the scene, twice as large, 128 x 64: of whole digits a 9 and an 8."""
    return Image.fromarray(scene.image[32:]).resize((128, 64), Image.Resampling.NEAREST)


def truth_in(scene, number):
    """A digit's box in the lower half, twice as large."""
    x0, y0, x1, y1 = (2 * (scene.boxes[number] - (0, 32, 0, 32))).tolist()
    return x0, y0, x1, y1


def test_boxes_and_maps_of_a_letterbox_lie_on_the_photo(letterboxed, scene, wide):
    explanation = explain(letterboxed, wide, top=3)
    assert explanation.picture.shape == (64, 64, 3)
    assert "preprocessing: ultralytics' (a letterbox within 64 x 64 px)" in explanation.assumptions
    assert "class names: the model's own" in explanation.assumptions
    maps = explanation.maps_in_original()
    found = {panel.name: (panel.boxes[0].box, at) for panel, at in zip(explanation, maps, strict=True)}
    for number, name in ((1, "8"), (2, "9")):
        box, cam_map = found[name]
        assert overlap(box, truth_in(scene, number)) > 0.6
        assert cam_map.shape == (64, 128)
        row, column = np.unravel_index(cam_map.argmax(), cam_map.shape)
        assert box[0] <= column <= box[2]
        assert box[1] <= row <= box[3]


def test_a_box_that_is_asked_for_is_in_pixels_of_the_photo(letterboxed, scene, wide):
    box = truth_in(scene, 1)
    (panel,) = explain(letterboxed, wide, targets=BoxTarget(box, 9))
    assert overlap(panel.boxes[0].box, box) > 0.6


def test_a_box_in_a_folder_is_in_pixels_of_its_photos(letterboxed, scene, wide, tmp_path):
    wide.save(tmp_path / "wide.png")
    ((panel,),) = explain(letterboxed, str(tmp_path), targets=BoxTarget(truth_in(scene, 1), 9))
    assert overlap(panel.boxes[0].box, truth_in(scene, 1)) > 0.6


def test_a_box_outside_of_the_photo_though_in_the_letterbox(letterboxed, wide):
    with pytest.raises(ValueError, match=r"\(10, 66, 30, 76\) lies outside of the image, 128 wide and 64 high"):
        explain(letterboxed, wide, targets=BoxTarget((10, 66, 30, 76)))


def test_a_box_where_nobody_knows_what_is_shown(detector, scene):
    def contrast(image):
        return preprocess(image) / preprocess(image).max()

    with pytest.raises(ValueError, match=r"nobody knows where the box .* its preprocessing does more than resize"):
        explained(detector, scene.image, preprocess=contrast, targets=BoxTarget((10, 10, 30, 30)))


def test_a_class_a_name_a_box_and_names_of_targets(detector, scene):
    label, box = int(scene.labels[1]) + 1, tuple(scene.boxes[1].tolist())
    explanation = explained(
        detector, scene.image, targets={"by number": label, "by name": str(label - 1), "by box": BoxTarget(box, label)}
    )
    assert [panel.name for panel in explanation] == ["by number", "by name", "by box"]
    assert {panel.category for panel in explanation} == {label}
    assert overlap(explanation[2].boxes[0].box, box) > 0.5
    np.testing.assert_array_equal(explanation[0].map, explanation[1].map)


def test_names_are_numbers_where_nobody_says_them(detector, scene):
    (panel,) = explained(detector, scene.image, categories=None)
    assert panel.name == f"class {panel.category}"


def test_the_overlay_outlines_the_box(detector, scene):
    explanation = explained(detector, scene.image)
    left, top, right, bottom = (round(edge) for edge in explanation[0].boxes[0].box)
    overlay = explanation.overlay(0)
    assert (overlay[top, left + 2 : right - 2] == 255).all()
    assert (overlay[bottom - 1, left + 2 : right - 2] == 255).all()


def test_what_methods_hand_on(detector, scene):
    (panel,) = explained(detector, scene.image, methods=FinerCAM, base_method=None)
    assert panel.boxes


@pytest.mark.filterwarnings("error::pytorch_grad_cam.engine.cam_warning.CamWarning")
def test_layer_cam_is_the_default_of_detectors(detector, scene):
    """In `explain` and, beside HiResCAM, in `compare`; no warning, and it is said."""
    explanation = explained(detector, scene.image)
    assert [panel.method for panel in explanation] == ["LayerCAM"]
    assert "method: LayerCAM, as the model is a detector (assumed)" in explanation.assumptions
    figure = compare(detector, scene.image, preprocess=preprocess, categories=NAMES)
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [label.partition("\n")[0] for label in labels] == ["LayerCAM", "HiResCAM"]


def test_a_method_that_was_named_stays(detector, scene):
    with pytest.warns(CamWarning, match="GradCAM has no weights for single positions"):
        explanation = explained(detector, scene.image, methods="gradcam")
    assert [panel.method for panel in explanation] == ["GradCAM"]
    assert not any(line.startswith("method: ") for line in explanation.assumptions)


def test_nothing_detected(detector):
    with pytest.warns(CamWarning, match="nothing was detected: .* BoxTarget"):
        explanation = explained(detector, np.full((64, 64, 3), 127, np.uint8))
    assert len(explanation) == 0
    assert explanation.maps.shape == (0, 64, 64)
    assert explanation.to_dict()["panels"] == []
    with pytest.raises(ValueError, match=r"there are no maps to draw: nothing was detected: .* BoxTarget"):
        explanation.grid()


def test_a_folder_has_a_map_for_each_box(detector, scene, tmp_path):
    pictures, output = tmp_path / "in", tmp_path / "out"
    pictures.mkdir()
    Image.fromarray(scene.image).save(pictures / "scene.png")
    Image.fromarray(np.full((64, 64, 3), 127, np.uint8)).save(pictures / "nothing.png")
    with pytest.warns(CamWarning, match="nothing was detected"):
        list(explained(detector, str(pictures), top=3, output_dir=output))
    rows = {
        Path(row["path"]).name: row for row in map(json.loads, (output / "manifest.jsonl").read_text().splitlines())
    }
    panels = rows["scene.png"]["targets"]
    assert len(panels) == 3
    for panel in panels:
        assert Path(output / panel["files"]["overlay"]).is_file()
        (box,) = panel["explained_boxes"]
        assert box["name"] == panel["name"]
    assert rows["nothing.png"]["targets"] == []


CODE = """
from pytorch_grad_cam.demo.detectors import load_digits_detector, preprocess_detector
import numpy as np

def build():
    return load_digits_detector("regions")

def preprocess(image):
    return preprocess_detector(np.asarray(image))[0]
"""


def test_the_command_line(scene, tmp_path, capsys):
    code, picture, names = tmp_path / "detector.py", tmp_path / "scene.png", tmp_path / "names.txt"
    code.write_text(CODE)
    names.write_text("\n".join(NAMES))
    Image.fromarray(scene.image).save(picture)
    status = main(
        ["--model", f"{code}:build", "--preprocess", f"{code}:preprocess", "--categories", str(names)]
        + ["--image-path", str(picture), "--boxes", "3", "--output-dir", str(tmp_path / "out")]
    )
    assert status == 0
    assert len(list((tmp_path / "out").glob("scene.png.layercam.*.jpg"))) == 3
    assert "layercam for 9 (10)" in capsys.readouterr().out


class ReadsTexts(Queries):
    """The form of an open-vocabulary detector of transformers."""

    def forward(self, input_ids, pixel_values):
        return super().forward(pixel_values)


def test_a_detector_that_reads_texts_takes_a_mapping(scene):
    model = ReadsTexts(no_object=False).eval()
    with pytest.raises(
        UnusableInput, match=r"ReadsTexts does not run on a picture alone .*'pixel_values'.*the mapping"
    ):
        explain(model, Image.fromarray(scene.image), preprocess=preprocess)
    inputs = {"input_ids": torch.tensor([[1, 2]]), "pixel_values": two_squares()}
    (panel,) = explain(model, inputs, targets=[0]).panels
    assert panel.category == 0

"""`explain`, a folder and the command line with a detector: a map for each box, with its name and score."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pytorch_grad_cam import BoxTarget, FinerCAM, explain
from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo.detectors import load_digits_detector, preprocess_detector
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.engine.cam_warning import CamWarning

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
    options = {"methods": "layercam", "preprocess": preprocess, "categories": NAMES} | options
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


def test_nothing_detected(detector):
    with pytest.warns(CamWarning, match="nothing was detected: .* BoxTarget"):
        explanation = explained(detector, np.full((64, 64, 3), 127, np.uint8))
    assert len(explanation) == 0
    assert explanation.maps.shape == (0, 64, 64)
    assert explanation.to_dict()["panels"] == []


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
        + ["--image-path", str(picture), "--method", "layercam", "--boxes", "3", "--output-dir", str(tmp_path / "out")]
    )
    assert status == 0
    assert len(list((tmp_path / "out").glob("scene.png.layercam.*.jpg"))) == 3
    assert "layercam for 9 (10)" in capsys.readouterr().out

"""`--truth`: the right class of each image, told beside the model's."""

import json

import numpy as np
import pytest
from mistakes import assert_one_line
from PIL import Image

from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo.scenes import make_scene

WHERE = {"6/a.png": "6", "6/b.png": "6", "9/a.png": "9"}


@pytest.fixture
def photos(tmp_path):
    """Scenes of digits in folders called like classes, two of them with one file name."""
    rng = np.random.default_rng(0)
    for name in WHERE:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_scene(rng).image).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def run(photos, *arguments):
    return main(
        ["--model", "digits", "--image-path", str(photos), "--target-layers", "layer4", "--align", "cell"]
        + ["--output-dir", str(photos.parent / "maps"), *map(str, arguments)]
    )


def told(photos):
    rows = map(json.loads, (photos.parent / "maps/manifest.jsonl").read_text().splitlines())
    return {row["path"].removeprefix(f"{photos}/"): row.get("truth") for row in rows}


def test_the_names_of_folders(photos):
    assert run(photos, "--truth", "folders") == 0
    assert told(photos) == WHERE


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("truth.csv", "image,class\n6/a.png, 3\n9/a.png,9\n"),
        ("truth.json", '{"6/a.png": 3, "9/a.png": "9"}'),
    ],
)
def test_a_file(photos, name, text):
    """By the end of a path, so that two images of one name differ; an image that is not in it has no right class."""
    file = photos.parent / name
    file.write_text(text)
    assert run(photos, "--truth", file) == 0
    assert told(photos) == {"6/a.png": "3", "6/b.png": None, "9/a.png": "9"}


def test_by_a_file_name_alone(photos):
    file = photos.parent / "truth.json"
    file.write_text('{"b.png": 4}')
    assert run(photos, "--truth", file) == 0
    assert told(photos) == {"6/a.png": None, "6/b.png": "4", "9/a.png": None}


def test_the_page_tells_it(photos):
    page = photos.parent / "page.html"
    assert run(photos, "--truth", "folders", "--report", page) == 0
    assert page.read_text().count('data-truth="6"') == 2
    assert page.read_text().count('data-truth="9"') == 1


@pytest.mark.parametrize("report", [False, True])
def test_one_image_by_its_class(photos, capsys, report):
    page = ["--report", photos.parent / "page.html"] if report else []
    assert run(photos / "6/a.png", "--truth", "5", "--output-dir", photos.parent, *page) == 0
    assert "truth: 5\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1,2\n", "a line has 3 entries: a.png,1,2"),
        ('{"a.png": ', "is not a CSV file with a line"),
        ('{"a.png": [1]}', "says [1] of a.png, expected a class by number or name"),
        (None, "truth: the right classes are a CSV file"),
    ],
)
def test_what_is_no_truth(photos, capsys, text, message):
    file = photos.parent / "truth"
    if text is not None:
        file.write_text(text)
    assert_one_line(lambda: run(photos, "--truth", file), message, capsys)


def test_a_class_that_does_not_exist(photos, capsys):
    file = photos.parent / "truth"
    file.write_text("a.png,zebra\n")
    assert run(photos, "--truth", file) == 2
    assert "cam.py: no single class is called 'zebra'" in capsys.readouterr().err


def test_images_in_no_folder(photos, capsys):
    assert_one_line(lambda: run(photos / "6", "--truth", "folders"), "lies in no folder of a class", capsys)

"""`cam.py evaluate` over a folder."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo.scenes import make_scene


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    boxes = {}
    (tmp_path / "scenes").mkdir()
    for number in range(3):
        scene = make_scene(rng)
        Image.fromarray(scene.image).save(tmp_path / f"scenes/{number}.png")
        boxes[f"{number}.png"] = scene.boxes[:1].tolist()
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    return tmp_path


def arguments(folder, *more):
    where = ["--image-path", str(folder / "scenes"), "--output-dir", str(folder / "out")]
    return ["evaluate", *where, "--model", "digits", *more]


def test_a_folder_becomes_a_table(folder, capsys):
    asked = [
        "--method",
        "gradcam",
        "layercam",
        "--metrics",
        "entropy",
        "pointing game",
        "--truth",
        str(folder / "boxes.json"),
    ]
    assert main(arguments(folder, *asked, "--target-layers", "layer4")) == 0
    shown = capsys.readouterr().out
    assert "| GradCAM, layer4 |" in shown
    assert "ground truth" in shown
    with (folder / "out/evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows][:2] == ["GradCAM", "LayerCAM"]
    assert float(rows[-1]["pointing game"]) == 1
    assert (folder / "out/evaluation.tex").read_text().startswith(r"\begin{tabular}")
    assert Image.open(folder / "out/evaluation.png").size[0] > 100


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--metrics", "iou"], "boxes or masks are needed"),
        (["--metrics", "nothing"], "no metric is called 'nothing'"),
        (["--metrics", "entropy", "--report", "page.html"], "--report does not go with evaluate"),
        (["--metrics", "entropy", "--target-category", "1", "2"], "2 classes for 3 images"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, more, message):
    assert main(arguments(folder, *more)) == 2
    assert message in capsys.readouterr().err


def test_truth_that_is_refused(folder, capsys):
    file = folder / "wrong.json"
    for text, message in (
        ("{", "is no JSON such as"),
        ("{}", "has no boxes for '0.png'"),
        ("[1]", "is no JSON such as"),
    ):
        file.write_text(text)
        assert main(arguments(folder, "--metrics", "iou", "--truth", str(file))) == 2
        assert message in capsys.readouterr().err
    assert main(["evaluate", "--metrics", "entropy"]) == 2
    assert "evaluate needs --image-path" in capsys.readouterr().err

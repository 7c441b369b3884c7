"""Manifests of real runs are what the JSON schema of the documentation says, and it says something."""

import copy
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from pytorch_grad_cam import explain
from pytorch_grad_cam.demo import load_digits_net
from pytorch_grad_cam.demo.detectors import load_digits_detector
from pytorch_grad_cam.demo.reader import PROMPT, ReaderProcessor, load_digits_reader
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.demo.segmenter import load_digits_segmenter

pytestmark = pytest.mark.slow
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/assets/manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KINDS = ["overlay", "map", "mask", "boxes"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(make_scene(rng).image).save(folder / name)
    (folder / "c.png").write_text("no picture")
    return folder


def manifest(model, photos, output, **options):
    list(explain(model, str(photos), output_dir=str(output), **options))
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def lines(photos, tmp_path_factory):
    net, output = load_digits_net(), tmp_path_factory.mktemp("maps")
    difference = {"5 rather than 7": lambda logits: logits[5] - logits[7]}
    detector = load_digits_detector("dense")
    reader = {"prompt": PROMPT, "processor": ReaderProcessor()}
    return [
        *manifest(net, photos, output / "all", methods=["gradcam", "fullgrad"], save=KINDS, top=2),
        *manifest(net, photos, output / "maps", save=["map"], targets=difference),
        *manifest(detector, photos, output / "boxes", methods="layercam", save=KINDS, preprocess=_as_tensor),
        *manifest(load_digits_segmenter(), photos, output / "regions", save=["map"], preprocess=_as_tensor),
        *manifest(load_digits_reader(), photos, output / "words", save=KINDS, **reader),
    ]


def _as_tensor(picture):
    from torchvision.transforms.functional import to_tensor

    return to_tensor(picture)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_line_of_real_manifests_is_valid(lines):
    assert [list(VALIDATOR.iter_errors(line)) for line in lines] == [[]] * len(lines)
    assert {len(line) for line in lines} == {2, 7, 9}, "all kinds of lines"
    assert any("explained_boxes" in target for line in lines for target in line.get("targets", ()))
    assert any("explained_region" in target for line in lines for target in line.get("targets", ()))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda line: line.pop("size"),
        lambda line: line.update(size=[64]),
        lambda line: line.update(more=1),
        lambda line: line.update(error="both"),
        lambda line: line["targets"][0].update(probability=1.5),
        lambda line: line["targets"][0].pop("boxes_in_original"),
        lambda line: line["targets"][0]["files"].update(curve="a.csv"),
        lambda line: line["targets"][0]["boxes"].append([1, 2, 3]),
    ],
)
def test_other_lines_are_not(wrong, lines):
    line = copy.deepcopy(lines[0])
    assert VALIDATOR.is_valid(line)
    wrong(line)
    assert not VALIDATOR.is_valid(line)

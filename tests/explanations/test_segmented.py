"""`explain` with a segmenter: a map for each region, with its name and outline."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pytorch_grad_cam import SegmentationTarget, explain
from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo.detectors import load_digits_detector
from pytorch_grad_cam.demo.network import load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.demo.segmenter import CATEGORIES, load_digits_segmenter
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.utils.overlays import contoured
from pytorch_grad_cam.utils.regions import outlines_of


@pytest.fixture(scope="module")
def segmenter():
    return load_digits_segmenter()


@pytest.fixture(scope="module")
def scene():
    return make_scene(np.random.default_rng(5))


@pytest.fixture(scope="module")
def predicted(segmenter, scene):
    with torch.no_grad():
        return segmenter(preprocess_scene(scene.image))[0].argmax(0).numpy()


def preprocess(image):
    return preprocess_scene(np.asarray(image.resize((64, 64))))[0]


def explained(segmenter, picture, **options):
    return explain(segmenter, picture, **{"preprocess": preprocess, "categories": CATEGORIES} | options)


def test_the_classes_of_most_pixels_but_background(segmenter, scene, predicted):
    explanation = explained(segmenter, scene.image, top=2)
    counts = np.bincount(predicted.flatten(), minlength=11)
    expected = [number for number in np.argsort(-counts, kind="stable") if number != 10][:2]
    assert [panel.category for panel in explanation] == expected
    for panel in explanation:
        np.testing.assert_array_equal(panel.region, predicted == panel.category)
        assert panel.name == CATEGORIES[panel.category]
        assert panel.layer == "up3"
    number, name, share = explanation.top(1)[0]
    assert (number, name) == (10, "background")
    assert share == pytest.approx((predicted == 10).mean())
    assert "probabilities: the share of the positions where a class is predicted" in explanation.assumptions


def test_a_name_a_point_and_another_region(segmenter, scene, predicted):
    first, second = map(int, scene.labels)
    rows, columns = np.nonzero((predicted == second) & scene.masks[1])
    point = int(rows[0]), int(columns[0])
    box = np.zeros((64, 64))
    box[10:20, 30:50] = 1
    targets = [str(first), point, SegmentationTarget(second, box), lambda logits: logits[first].mean()]
    explanation = explained(segmenter, scene.image, targets=targets)
    by_name, by_point, by_mask, by_callable = explanation
    assert (by_name.category, by_point.category, by_mask.category, by_callable.category) == (
        first,
        second,
        second,
        None,
    )
    np.testing.assert_array_equal(by_name.region, predicted == first)
    assert by_point.region[point]
    assert not (by_point.region & (predicted != second)).any()
    assert by_point.name == f"{second} at {point[0]}, {point[1]}"
    np.testing.assert_array_equal(by_mask.region, box > 0)
    assert by_callable.region is None


def test_a_point_is_in_pixels_of_the_picture(segmenter, scene, predicted):
    """Three times as wide and twice as high."""
    large = Image.fromarray(scene.image).resize((192, 128), Image.Resampling.NEAREST)
    rows, columns = np.nonzero((predicted == scene.labels[0]) & scene.masks[0])
    (small,) = explained(segmenter, scene.image, targets=[(int(rows[0]), int(columns[0]))])
    (found,) = explained(segmenter, large, targets=[(2 * int(rows[0]), 3 * int(columns[0]) + 1)])
    assert found.category == small.category == scene.labels[0]
    assert (found.region == small.region).mean() > 0.98
    assert found.name == f"{found.category} at {2 * int(rows[0])}, {3 * int(columns[0]) + 1}"


def test_where_nobody_knows_the_place_of_a_point(segmenter, scene):
    def by_itself(image):
        return preprocess(image) / preprocess(image).std()

    with pytest.raises(ValueError, match=r"the point \(3, 4\).*nobody knows where in the input"):
        explained(segmenter, scene.image, targets=[(3, 4)], preprocess=by_itself)


def test_given_inputs_have_points_of_their_own(segmenter, scene, predicted):
    rows, columns = np.nonzero(predicted == scene.labels[0])
    point = int(rows[0]), int(columns[0])
    (panel,) = explain(segmenter, preprocess_scene(scene.image), targets=[point], categories=CATEGORIES)
    assert panel.region[point]


def test_the_outline_is_drawn(segmenter, scene):
    explanation = explained(segmenter, scene.image, targets=[int(scene.labels[0])])
    region, overlay = explanation[0].region, explanation.overlay()
    inner = region & np.roll(region, 1, 0) & np.roll(region, -1, 0) & np.roll(region, 1, 1) & np.roll(region, -1, 1)
    assert (overlay[region & ~inner] == 255).all()
    assert not (overlay[inner] == 255).all() if inner.any() else True


def test_a_contour():
    region = np.zeros((5, 5), bool)
    region[1:4, 1:4] = True
    drawn = contoured(np.full((5, 5, 3), 100, np.uint8), region)[..., 0]
    assert drawn.tolist() == [
        [100, 0, 0, 0, 100],
        [0, 255, 255, 255, 0],
        [0, 255, 100, 255, 0],
        [0, 255, 255, 255, 0],
        [100, 0, 0, 0, 100],
    ]
    at_the_rim = contoured(np.full((2, 3, 3), 100, np.uint8), np.array([[True, False, False]] * 2))[..., 0]
    assert at_the_rim.tolist() == [[255, 0, 100]] * 2


def test_several_images_and_the_page(segmenter, scene, tmp_path):
    other = make_scene(np.random.default_rng(6))
    explanations = list(explained(segmenter, [scene.image, other.image], top=1))
    alone = explained(segmenter, other.image, top=1)
    np.testing.assert_allclose(explanations[1].maps, alone.maps, atol=1e-5)
    page = alone.report(tmp_path / "page.html").read_text()
    assert alone[0].name in page
    json.dumps(alone.to_dict())


def test_what_is_not_there(segmenter, scene):
    with pytest.raises(ValueError, match="no single class is called 'road'"):
        explained(segmenter, scene.image, targets=["road"])
    with pytest.raises(ValueError, match="lies outside"):
        explained(segmenter, scene.image, targets=[(64, 3)])
    with pytest.raises(IndexError, match="class 11"):
        explained(segmenter, scene.image, targets=[11])
    nothing = np.setdiff1d(np.arange(10), scene.labels)[0]
    with pytest.raises(ValueError, match="predicted nowhere"):
        explained(segmenter, np.zeros((64, 64, 3), np.uint8), targets=[int(nothing)])
    with pytest.warns(CamWarning, match="nothing but background"):
        assert len(explained(segmenter, np.zeros((64, 64, 3), np.uint8))) == 0


@pytest.mark.slow
def test_one_logit_and_queries(segmenter):
    class Other(nn.Module):
        def __init__(self, form):
            super().__init__()
            self.segmenter, self.form = segmenter, form

        def forward(self, x):
            return self.form(self.segmenter(x))

    def as_queries(logits):
        return {"class_queries_logits": 9 * torch.eye(11, 12)[None], "masks_queries_logits": logits - 3}

    picture = make_scene(np.random.default_rng(5)).image
    (panel,) = explain(
        Other(lambda logits: -logits[:, 10:]), picture, preprocess=preprocess, categories=["ink"], check_place=False
    )
    assert (panel.name, panel.category) == ("ink", 0)
    assert 0 < panel.region.mean() < 0.5
    (panel,) = explained(Other(as_queries), picture, check_place=False)
    assert panel.name in CATEGORIES[:10]
    assert panel.region.any()


def test_outlines_are_in_pixels_of_the_original(segmenter, scene, predicted):
    large = Image.fromarray(scene.image).resize((192, 128), Image.Resampling.NEAREST)
    (panel,) = explanation = explained(segmenter, large, targets=[int(scene.labels[0])])
    shown = outlines_of(panel.region)
    for outline, of_shown in zip(explanation.outlines(panel), shown, strict=True):
        np.testing.assert_allclose(outline, 1.0 * np.array(of_shown) * (3, 2), atol=0.5)
    assert explanation.to_dict()["panels"][0]["explained_region"] == explanation.outlines(panel)
    given = explain(segmenter, preprocess_scene(scene.image), targets=[int(scene.labels[0])], categories=CATEGORIES)
    assert given.outlines(given[0]) == outlines_of(given[0].region)


CODE = """
from pytorch_grad_cam.demo.segmenter import load_digits_segmenter
from pytorch_grad_cam.demo.network import preprocess_scene
import numpy as np

def build():
    return load_digits_segmenter()

def preprocess(image):
    return preprocess_scene(np.asarray(image))[0]
"""


@pytest.fixture
def command(scene, tmp_path):
    code, names, photos = tmp_path / "segmenter.py", tmp_path / "names.txt", tmp_path / "photos"
    code.write_text(CODE)
    names.write_text("\n".join(CATEGORIES))
    photos.mkdir()
    Image.fromarray(scene.image).save(photos / "scene.png")
    return ["--model", f"{code}:build", "--preprocess", f"{code}:preprocess", "--categories", str(names)]


def point_in(scene, predicted, number):
    rows, columns = np.nonzero((predicted == scene.labels[number]) & scene.masks[number])
    return int(rows[0]), int(columns[0])


def test_points_on_the_command_line(command, scene, predicted, tmp_path, capsys):
    points = [f"{y},{x}" for y, x in (point_in(scene, predicted, number) for number in (0, 1))]
    output = tmp_path / "out"
    status = main(
        [*command, "--image-path", str(tmp_path / "photos/scene.png"), "--point", *points, "--output-dir", str(output)]
    )
    assert status == 0
    said = capsys.readouterr().out
    for label, point in zip(scene.labels, points, strict=False):
        assert f"for {label} at {point.replace(',', ', ')} ({label})" in said
    assert len(list(output.glob("*.jpg"))) == 2


@pytest.mark.slow
def test_regions_in_a_manifest(command, scene, predicted, tmp_path):
    y, x = point_in(scene, predicted, 0)
    output = tmp_path / "out"
    arguments = ["--image-path", str(tmp_path / "photos"), "--point", f"{y},{x}", "--output-dir", str(output)]
    assert main([*command, *arguments]) == 0
    assert main([*command, *arguments]) == 0  # the same configuration
    (line,) = (output / "manifest.jsonl").read_text().splitlines()
    (panel,) = json.loads(line)["targets"]
    (explained_panel,) = explained(segmenter=load_digits_segmenter(), picture=scene.image, targets=[(y, x)])
    expected = outlines_of(explained_panel.region)
    for outline, of_shown in zip(panel["explained_region"], expected, strict=True):
        np.testing.assert_allclose(outline, of_shown, atol=0.2)


@pytest.mark.parametrize("said", ["3", "3,", "a,b", "-1,4", "3,4,5"])
def test_what_is_no_point(said, capsys):
    with pytest.raises(SystemExit):
        main([f"--point={said}"])
    assert "is no point, such as 120,80" in capsys.readouterr().err


def test_a_point_of_what_is_no_segmenter(scene):
    for model in (load_digits_net(), load_digits_detector("dense")):
        with pytest.raises(ValueError, match=r"the point \(3, 4\) means the region there of a segmenter"):
            explain(model, preprocess_scene(scene.image), targets=[(3, 4)])

"""What a result says of itself, and its figures."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.text import Text

from pytorch_grad_cam import compare, explain
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.explanations.colours import colour_table
from pytorch_grad_cam.explanations.explanation import Explanation, Panel
from pytorch_grad_cam.explanations.figure import comparison_figure


@pytest.fixture(scope="module")
def found(digits_net):
    return explain(digits_net, example_scene(), ["gradcam", "layercam"], targets=[5, 7], layers=["layer3", "layer4"])


def test_a_short_repr(found):
    assert repr(found) == (
        "Explanation('', 8 maps 64 x 64: methods GradCAM, LayerCAM, layers layer3, layer4, classes 5 100.0%, 7 100.0%)"
    )


def test_panels_by_number_slice_and_name(found):
    assert len(found) == 8
    assert found[1] is found.panels[1]
    assert list(found) == found.panels
    assert [panel.category for panel in found["7"]] == [7] * 4
    assert {panel.layer for panel in found["layer3"]} == {"layer3"}
    assert found["LayerCAM"]["layer4"]["5"].panels == [found.panels[6]]
    assert found[:2].panels == found.panels[:2]
    with pytest.raises(KeyError, match="no panel has the method, layer or class 'layer9'"):
        found["layer9"]


def test_a_dict_that_json_knows(found):
    told = json.loads(json.dumps(found.to_dict()))
    assert told["assumptions"] == found.assumptions
    assert told["size"] == told["original_size"] == [64, 64]
    assert [row["boxes"] for row in told["panels"]] == [[list(box) for box in boxes] for boxes in found.boxes()]
    assert told["panels"][0]["boxes_in_original"] == told["panels"][0]["boxes"]
    assert [row["class"] for row in told["panels"][:2]] == [5, 7]


def test_a_row_for_each_panel(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    rows = found.to_pandas()
    assert [(row["method"], row["layer"], row["class"]) for row in rows] == [
        (panel.method, panel.layer, panel.category) for panel in found.panels
    ]
    assert {"title", "probability", "boxes", "boxes_in_original"} <= rows[0].keys()


@pytest.mark.slow
@pytest.mark.parametrize("cmap", ["jet", "viridis", "grey", "RdBu"])
def test_the_bar_has_the_colours_of_the_overlay(cmap, found):
    overlay = found.overlay(0, 0.25, cmap=cmap)
    colours = colour_table(cmap)[(255 * found.maps[0]).astype(np.uint8)].astype(float)
    np.testing.assert_allclose(overlay, np.rint(0.75 * colours + 0.25 * found.picture), atol=1)
    figure = found.grid(cmap=cmap, alpha=0.75, title="mine")
    bar = figure.axes[-1].collections[-1]
    over_white = 0.75 * colour_table(cmap) / 255 + 0.25
    np.testing.assert_allclose(bar.cmap(np.arange(256))[:, :3], over_white, atol=1e-6)
    assert figure.axes[0].get_title() == "mine"


def test_what_is_no_colour_map(found):
    with pytest.raises(ValueError, match="cmap is 'rainbows': pass 'jet'"):
        found.overlay(cmap="rainbows")
    with pytest.raises(ValueError, match=r"image_weight is 2, expected a number in \[0, 1\]"):
        found.overlay(0, 2)


@pytest.mark.slow
def test_assumptions_stand_on_the_figure(found):
    text = " ".join(found.grid()._supxlabel.get_text().split())
    assert text == "; ".join(found.assumptions)
    assert "each cell is drawn where it looks" in text


def test_layers_of_one_class_are_columns(found):
    figure = found["5"].grid()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["5 100.0%\nlayer3", "5 100.0%\nlayer4"]
    assert len({axes.get_gridspec().nrows for axes in figure.axes[:-1]} | {2}) == 1, "a row for each method"


def test_models_beside_each_other(digits_net):
    figure = compare({"one": digits_net, "other": digits_net}, example_scene(), "gradcam", targets=[5, 7])
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels == ["one\nGradCAM\nlayer4", "other\nGradCAM\nlayer4"]
    caption = " ".join(figure._supxlabel.get_text().split())
    assert caption.count("probabilities: by the given function") == 1, "what is said of both is said once"


@pytest.mark.slow
def test_pdfs_have_fonts_that_journals_take(found, tmp_path):
    found.grid().savefig(tmp_path / "figure.pdf")
    content = (tmp_path / "figure.pdf").read_bytes()
    assert re.search(rb"/Subtype\s*/(TrueType|CIDFontType2)", content)
    assert not re.search(rb"/Subtype\s*/Type3", content)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(112, 320), (64, 64), (320, 112)])
def test_labels_do_not_overlap(size):
    """Of a wide picture, rows are lower than their labels are long."""
    names = ["a long name of a class with many words in it", "another one that is longer than its column by far"]
    panels = [
        Panel(method, "layer4.1.conv2.a_long_path.of_modules", index, name, 0.5, np.zeros(size, np.float32))
        for method in ("GradCAMPlusPlus", "LayerCAM", "GradCAMElementWise")
        for index, name in enumerate(names)
    ]
    scores = np.zeros(2, np.float32)
    lines = ["an assumption that is so long that it takes more than a line below the figure"] * 3
    explanation = Explanation("photo.jpg", np.zeros((*size, 3), np.uint8), panels, scores, scores, names)
    explanation.assumptions = lines
    figure = explanation.grid()
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    labels = [text for text in texts if len(text.get_text()) > 8]
    boxes = [text.get_window_extent() for text in labels]
    for index, box in enumerate(boxes):
        for other, following in zip(labels[index + 1 :], boxes[index + 1 :], strict=True):
            assert not box.shrunk(0.98, 0.98).overlaps(following), (labels[index].get_text(), other.get_text())


@pytest.mark.slow
@pytest.mark.parametrize("models", [{""}, {"first model", "second"}], ids=len)
@pytest.mark.parametrize("names", [["one"], ["one", "two"]], ids=len)
@pytest.mark.parametrize("size", [(112, 320), (64, 64), (320, 112)])
def test_labels_of_rows_do_not_lie_over_pictures(size, names, models):
    panels = [
        Panel(method, layer, index, name, 0.5, np.zeros(size, np.float32))
        for method in ("GradCAM", "LayerCAM")
        for layer in ("layer3", "layer4")
        for index, name in enumerate(names)
    ]
    scores = np.zeros(2, np.float32)
    explanation = Explanation("photo.jpg", np.zeros((*size, 3), np.uint8), panels, scores, scores, ["one", "two"])
    figure = comparison_figure(dict.fromkeys(models, explanation))
    figure.canvas.draw()
    pictures = [axes.get_window_extent() for axes in figure.axes if axes.images]
    labels = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert labels
    assert not any(label.overlaps(picture) for label in labels for picture in pictures)


@pytest.mark.slow
def test_assumptions_of_one_model_have_its_name(found):
    other = replace(found, assumptions=["class names: others", *found.assumptions[1:]])
    caption = " ".join(comparison_figure({"one": found, "other": other})._supxlabel.get_text().split())
    assert "other: class names: others" in caption
    assert caption.count(found.assumptions[1]) == 1


def test_a_signed_map_is_one_minus_the_other(digits_net, tmp_path):
    plain = explain(digits_net, example_scene(), targets=[5, 7])
    signed = explain(digits_net, example_scene(), targets={"five": 5, "seven": 7}, signed=True)
    (panel,) = signed.panels
    assert str(panel) == "five - seven, GradCAM at layer4"
    np.testing.assert_allclose(panel.map, plain.maps[0] - plain.maps[1], atol=1e-6)
    low, high = (np.unravel_index(index, panel.map.shape) for index in (panel.map.argmin(), panel.map.argmax()))
    overlay = signed.overlay(0, 0).astype(int)
    assert overlay[low][2] > overlay[low][0], "blue is against"
    assert overlay[high][0] > overlay[high][2], "red is for"
    figure = signed.grid()
    assert figure.axes[-1].get_ylim() == (-1, 1)
    assert any(line.startswith("signed maps") for line in signed.assumptions)
    assert signed.save(tmp_path)[0].exists()
    assert signed.to_dict()["panels"][0]["boxes"] == []


@pytest.mark.parametrize("how", [{"targets": 5}, {"targets": [5, 6, 7]}, {}, {"top": 3}])
def test_a_signed_map_is_of_two_targets(how, digits_net):
    with pytest.raises(ValueError, match="pass two targets, or top=2"):
        explain(digits_net, example_scene(), signed=True, **how)

"""The file of a page: what it holds, and what it cannot."""

import json
import re
import weakref
from html.parser import HTMLParser

import numpy as np
import pytest
from pages import HOSTILE, LEVELS, PICTURE, SIZE, explanation, flat, panels, pixels, quadrants

from pytorch_grad_cam.explanations.explanation import Panel, TargetBox
from pytorch_grad_cam.explanations.report import write_report
from pytorch_grad_cam.zoo.placement import Original, Placement


class Page(HTMLParser):
    """The elements, the texts, and the JSON blocks of a file."""

    def __init__(self, file):
        super().__init__()
        self.elements, self.texts, self.blocks = [], [], []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.elements and self.elements[-1] == ("script", {"type": "application/json"}):
            self.blocks.append(json.loads(text))
            self.elements.append(("", {}))
        self.texts.append(text.strip())


def test_the_file_holds_all(tmp_path):
    made = [*panels(), Panel("EigenCAM", "layer4", None, "", float("nan"), LEVELS)]
    file = write_report([explanation(made=made, warnings=["no evidence"])], str(tmp_path / "new" / "page.html"))
    assert file == tmp_path / "new" / "page.html"
    (block,) = Page(file).blocks
    assert (block["width"], block["height"]) == (SIZE, SIZE)
    assert np.abs(pixels(block["picture"]).astype(int) - PICTURE)[4:28, 4:28].max() <= 4
    assert {tuple(panel["warnings"]) for panel in block["panels"]} == {("no evidence",)}
    assert block["versions"] == {"torch": "2.9", "numpy": "2"}
    for panel, kept in zip(made, block["panels"], strict=True):
        np.testing.assert_array_equal(pixels(kept["map"]), np.rint(255 * panel.map))
        assert [kept[key] for key in ("method", "layer", "category", "name")] == list(panel[:4])
    assert [kept["probability"] for kept in block["panels"][:3]] == [0.75, 0.2, None]
    assert block["panels"][-1]["probability"] is None


def test_fine_lines_keep_their_colours(tmp_path):
    picture = np.full((SIZE, SIZE, 3), (40, 40, 40), np.uint8)
    picture[:, ::2, 0] = picture[:, 1::2, 1] = 200
    (block,) = Page(write_report([explanation(picture=picture)], tmp_path / "page.html")).blocks
    assert np.abs(pixels(block["picture"]).astype(int) - picture).mean() < 5


def test_numbers_of_numpy(tmp_path):
    panel = Panel("GradCAM", "layer4", np.int64(3), "cat", np.float32(0.5), LEVELS)
    (block,) = Page(write_report([explanation(made=[panel])], tmp_path / "page.html")).blocks
    assert (block["panels"][0]["category"], block["panels"][0]["probability"]) == (3, 0.5)


def test_texts_are_escaped(tmp_path):
    hostile = Panel(HOSTILE, HOSTILE, 1, HOSTILE, 0.5, LEVELS)
    file = write_report([explanation(HOSTILE, [hostile], warnings=[HOSTILE])], tmp_path / "page.html")
    page = Page(file)
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert [tag for tag, _ in page.elements].count("img") == 1
    assert HOSTILE in page.texts
    assert page.blocks[0]["panels"][0]["name"] == HOSTILE
    assert page.blocks[0]["panels"][0]["warnings"] == [HOSTILE]


def test_no_address_of_a_network_is_in_the_file(tmp_path):
    text = write_report([explanation()], tmp_path / "page.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import", re.sub('base64,[^"]*', "", text))
    assert "default-src 'none'" in text


def test_names_that_are_no_unicode(tmp_path):
    file = write_report([explanation("photo\udcff.png")], tmp_path / "page.html")
    assert "photo\\udcff.png" in file.read_text()


def test_images_without_a_name_are_numbered(tmp_path):
    texts = Page(write_report([explanation(""), explanation("")], tmp_path / "page.html")).texts
    assert "Image 1" in texts
    assert "Image 2" in texts


def test_a_generator_is_never_in_memory_as_a_whole(tmp_path):
    pictures, alive = [], []

    def made():
        for _ in range(20):
            alive.append(sum(picture() is not None for picture in pictures))
            picture = PICTURE.copy()
            pictures.append(weakref.ref(picture))
            yield explanation(picture=picture)
            del picture

    write_report(made(), tmp_path / "page.html")
    assert len(pictures) == 20
    assert max(alive) <= 2


@pytest.mark.parametrize(
    ("explanations", "message"),
    [
        ([], "no explanations"),
        ([explanation(made=[])], "scene.png has no panels"),
        ([flat(LEVELS[:8])], r"scene.png by GradCAM has shape \(8, 64\).*expected \(64, 64\)"),
        ([flat(2 * LEVELS)], "values from 0.4 to 2, expected"),
        ([flat(np.full((SIZE, SIZE), np.nan, np.float32))], "values from nan to nan"),
    ],
)
def test_what_cannot_be_shown(explanations, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_report(explanations, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_could_not_be_finished_leaves_the_old_one(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("old")
    with pytest.raises(ValueError, match="no panels"):
        write_report([explanation(), explanation(made=[])], file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    write_report([explanation()], file)
    assert "scene.png" in file.read_text()


def test_what_the_page_says_of_each_image(tmp_path):
    told = {"truth": "dog", "about": {"model": "resnet50"}, "assumptions": ["names: mine"]}
    unsure = explanation("two", probabilities=(0.1, 0.5, 0))
    unsure.probabilities = np.full(3, np.nan)
    page = Page(write_report([explanation(**told), unsure], tmp_path / "page.html"))
    facts = [attributes for tag, attributes in page.elements if tag == "li"]
    assert facts[0] == {"data-predicted": "cat", "data-probability": "0.75", "data-truth": "dog", "class": "wrong"}
    assert facts[1] == {"data-predicted": "dog", "data-probability": "0"}
    assert [page.blocks[0][key] for key in ("truth", "predicted", "about", "assumptions")] == [
        "dog",
        "cat",
        {"model": "resnet50"},
        ["names: mine"],
    ]


def test_boxes_are_in_the_pixels_of_what_is_shown(tmp_path):
    """The photo of 200 x 100 px was resized to 128 x 64 px, of which the model was shown the middle."""
    placement = Placement((200, 100), (200 / 128, 50.0), (200 / 128, 0.0))
    boxes = TargetBox("dog", 0.9, (50, 25, 100, 75)), TargetBox("", None, (0, 0, 9, 9))
    found = explanation(made=[flat(quadrants(0, 1, 0, 0)).panels[0]._replace(boxes=boxes)])
    found.original = Original((200, 100), lambda size: placement)
    (block,) = Page(write_report([found], tmp_path / "page.html")).blocks
    (panel,) = block["panels"]
    assert panel["regions"] == [[32, 0, 64, 32]]
    assert panel["boxes"][0] == {"name": "dog", "score": 0.9, "box": [0, 16, 32, 48]}
    assert panel["boxes"][1]["score"] is None
    assert panel["boxes"][1]["box"][0] == pytest.approx(-32)


def test_signed_maps_have_a_middle(tmp_path):
    values = quadrants(-1, -0.5, 0, 1)
    (block,) = Page(write_report([flat(values)], tmp_path / "page.html")).blocks
    (panel,) = block["panels"]
    assert (panel["signed"], panel["regions"]) == (True, [])
    np.testing.assert_allclose(pixels(panel["map"]) / 127 - 1, values, atol=0.005)


@pytest.mark.parametrize(("size", "shown"), [((5, 4, 6), (18, 8)), ((9,), (9, 1))])
def test_of_volumes_slices_and_of_signals_a_strip(size, shown, tmp_path):
    found = explanation(
        picture=np.zeros((*size, 3), np.uint8), made=[flat().panels[0]._replace(map=np.zeros(size, np.float32))]
    )
    (block,) = Page(write_report([found], tmp_path / "page.html")).blocks
    assert (block["width"], block["height"]) == shown
    assert pixels(block["panels"][0]["map"]).shape == shown[::-1]
    expected = {"count": 5, "columns": 3, "width": 6, "height": 4} if len(size) == 3 else None
    assert block["slices"] == expected


def test_a_volume_has_the_slice_where_its_map_is_highest_and_boxes_in_each(tmp_path):
    cam_map = np.zeros((5, 4, 6), np.float32)
    cam_map[3, 1:3, 2:] = 1
    cam_map[4, 1:3, :2] = 0.9
    made = [flat().panels[0]._replace(map=cam_map)]
    found = explanation(picture=np.zeros((5, 4, 6, 3), np.uint8), made=made)
    (panel,) = Page(write_report([found], tmp_path / "page.html")).blocks[0]["panels"]
    assert panel["slice"] == 3
    assert panel["regions"] == [[2, 5, 6, 7], [6, 5, 8, 7]], "not one from one slice to the next"

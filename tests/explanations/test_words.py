"""What a model answers to a prompt: its words, their maps, and the page that shows them."""

import json

import numpy as np
import pytest
import torch
from pages import PICTURE, explanation, in_browser, panels
from PIL import Image
from vlms import CASES, IMAGE, model_called

from pytorch_grad_cam import TAM, CamWarning, LayerCAM, explain
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.demo.reader import PROMPT, DigitsReader, ReaderProcessor
from pytorch_grad_cam.engine.maps import resize, scaled_evidence
from pytorch_grad_cam.explanations.words import words_of
from pytorch_grad_cam.zoo.unusable_input import UnusableInput


@pytest.fixture(scope="module")
def reader():
    """Untrained: it says some words."""
    torch.manual_seed(0)
    return DigitsReader().eval()


HOW = {"prompt": PROMPT, "processor": ReaderProcessor(), "max_new_tokens": 3}


def test_a_panel_for_each_word(reader):
    explained = explain(reader, example_scene(), **HOW)
    said = TAM(reader)(ReaderProcessor()(example_scene()), max_new_tokens=3)
    assert explained.said == ReaderProcessor().decode(said.ids)
    assert explained.said == "".join(explained.sentence).strip()
    assert [panel.name for panel in explained] == explained.said.split()
    assert [panel.method for panel in explained] == ["TAM"] * 3
    for panel, probability, evidence in zip(explained, said.probabilities, said.evidence[0], strict=True):
        assert panel.probability == pytest.approx(float(probability))
        drawn = resize(scaled_evidence(evidence[None])[None], (64, 64))[0, 0].numpy()
        np.testing.assert_allclose(panel.map, (drawn - drawn.min()) / np.ptp(drawn), atol=1e-6)
    np.testing.assert_allclose(explained.picture, example_scene(), atol=1)
    assert explained.original_size == (64, 64)


def test_other_methods_beside_it(reader):
    explained = explain(reader, example_scene(), ["tam", LayerCAM], **HOW)
    assert [panel.method for panel in explained] == ["TAM"] * 3 + ["LayerCAM"] * 3
    assert explained.panels[3].layer == "project"
    assert all(panel.map.max() == 1 for panel in explained)


def test_several_pictures(reader):
    scenes = [example_scene(), example_scene()[:, ::-1].copy()]
    one, other = explain(reader, scenes, **HOW)
    np.testing.assert_allclose(one.maps, explain(reader, scenes[0], **HOW).maps)
    assert not np.allclose(one.maps, other.maps)


def test_a_picture_that_cannot_be_read_is_left_out_of_a_list(reader, tmp_path):
    Image.fromarray(example_scene()).save(tmp_path / "1.png")
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.warns(CamWarning, match="not explained: .*0.png is no image"):
        (explained,) = explain(reader, tmp_path, **HOW)
    assert explained.title == "1.png"


def test_what_a_prompt_needs(reader):
    with pytest.raises(ValueError, match="pass processor="):
        explain(reader, example_scene(), prompt=PROMPT)
    with pytest.raises(ValueError, match="pass a picture"):
        explain(reader, torch.zeros(1, 3, 64, 64), **HOW)
    with pytest.raises(ValueError, match="leave targets and layers out"):
        explain(reader, example_scene(), targets=["five"], **HOW)
    with pytest.raises(ValueError, match="does not know cats"):
        explain(reader, example_scene(), **{**HOW, "prompt": "read the cats"})


def test_a_blank_map_is_told(reader):
    """A head that finds nothing in any token of the image."""

    class Blank(DigitsReader):
        def get_output_embeddings(self):
            return self.head.requires_grad_(False)

    blank = Blank().eval()
    blank.head.weight.data.zero_()
    with pytest.warns(CamWarning, match="'<end>' is blank: nothing"):
        explained = explain(blank, example_scene(), prompt=PROMPT, processor=_Plain(), max_new_tokens=1)
    assert not explained.maps.any()
    assert "blank" in explained.panels[0].warnings[0]


class _Plain(ReaderProcessor):
    def decode(self, ids, skip_special_tokens=False):
        return super().decode(ids)


def test_an_answer_without_words():
    reader = DigitsReader().eval()
    reader.head.weight.data.zero_()  # the first token, which ends the answer
    with pytest.raises(ValueError, match="answers nothing to the prompt"):
        explain(reader, example_scene(), **HOW)


class _Patches:
    """A processor of patches, whose template is the prompt behind the image."""

    chat_template = "a template"

    def __init__(self, asked):
        self.asked = asked

    def apply_chat_template(self, messages, add_generation_prompt):
        assert add_generation_prompt
        return messages[0]["content"]

    def __call__(self, images, text, return_tensors):
        assert [part["type"] for part in text] == ["image", "text"]
        inputs = dict(CASES["Qwen2-VL, video"][1])
        ids = torch.tensor([[1, 58, *[IMAGE] * 24, 59, 5, 6]])
        generator = torch.Generator().manual_seed(0)
        del inputs["pixel_values_videos"], inputs["video_grid_thw"]
        return inputs | {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == IMAGE).int(),
            "pixel_values": torch.randn(96, 96, generator=generator),
            "image_grid_thw": torch.tensor([[1, 8, 12]]),
        }

    def decode(self, ids, skip_special_tokens):
        return "".join(f" w{int(token)}" for token in ids)


@pytest.mark.slow
def test_patches_of_a_whole_picture():
    """What is shown is the picture itself, at most 672 pixels long, and the map is all over it."""
    picture = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    explained = explain(model_called("Qwen2VL"), picture, prompt="what?", processor=_Patches("what?"), max_new_tokens=2)
    assert explained.maps.shape == (2, 448, 672)
    assert explained.original_size == (600, 900)
    assert explained.masks(in_original=True).shape == (2, 600, 900)


@pytest.mark.slow
def test_a_picture_that_is_shown_as_several():
    """As InternVL's tiles, which nothing names: the map of one is no map of the picture."""

    class Tiles:
        def __call__(self, images, text, return_tensors):
            return CASES["LLaVA, two images"][1]

    with pytest.raises(ValueError, match=r"shown the picture as 2 pictures.*crop_to_patches=False"):
        explain(model_called("Llava"), example_scene(), prompt="what?", processor=Tiles(), max_new_tokens=1)


@pytest.mark.slow
def test_patches_that_say_no_part_of_the_picture():
    """As Fuyu's, which cover a picture that is padded to whole patches."""

    class Patches:
        def __call__(self, images, text, return_tensors):
            return CASES["Fuyu"][1]

        def decode(self, ids, skip_special_tokens):
            return "".join(f" w{int(token)}" for token in ids)

    with pytest.raises(ValueError, match=r"image_patches, does not say which part.*call TAM\(model\)"):
        explain(model_called("Fuyu"), example_scene(), prompt="what?", processor=Patches(), max_new_tokens=1)


def test_a_folder_with_a_prompt(reader, tmp_path):
    """Each word has its files, the manifest what was said; what is there is not made again, another prompt refused."""
    for number, scene in enumerate([example_scene(), example_scene()[:, ::-1]]):
        Image.fromarray(scene).save(tmp_path / f"{number}.png")
    (tmp_path / "9.png").write_bytes(b"no picture")
    maps = tmp_path / "maps"
    how = {**HOW, "output_dir": maps, "save": ["overlay", "map"]}
    made = list(explain(reader, tmp_path, **how))
    *records, failed = map(json.loads, (maps / "manifest.jsonl").read_text().splitlines())
    assert failed.keys() == {"path", "error"}
    for record, explained in zip(records, made, strict=True):
        assert record["prompt"] == PROMPT
        assert record["said"] == explained.said
        assert [target["name"] for target in record["targets"]] == [panel.name for panel in explained]
        for target, panel in zip(record["targets"], explained, strict=True):
            np.testing.assert_array_equal(np.load(maps / target["files"]["map"]), panel.map)
            assert (maps / target["files"]["overlay"]).is_file()
    assert list(explain(reader, tmp_path, **how)) == []
    (maps / records[1]["targets"][0]["files"]["map"]).unlink()
    (again,) = explain(reader, tmp_path, **how)
    assert again.title == "1.png"
    with pytest.raises(UnusableInput, match="max_new_tokens was 3, is 2"):
        list(explain(reader, tmp_path, **{**how, "max_new_tokens": 2}))
    with pytest.raises(UnusableInput, match="output_dir is for files"):
        explain(reader, example_scene(), **how)


def test_words_between_spaces():
    pieces = ["A", " gir", "affe", ",", " eats", "", "."]

    def decode(ids):
        return "".join(pieces[number] for number in ids)

    words = words_of(decode, range(7))
    assert [word.text for word in words] == ["A", " giraffe,", " eats."]
    assert [list(word.tokens) for word in words] == [[0], [1, 2, 3], [4, 5, 6]]


def test_characters_of_several_tokens_and_scripts_without_spaces():
    texts = ["", "\ufffd", "猫", "猫が", "猫が ok"]
    words = words_of(lambda ids: texts[len(ids)], [7, 8, 9, 10])
    assert [word.text for word in words] == ["猫", "が", " ok"]
    assert [list(word.tokens) for word in words] == [[0, 1], [2], [3]]
    assert words_of(lambda ids: "", [1]) == []


SENTENCE = ("two", " cats,", " two", " dogs")


def _answer():
    made = panels(methods=("TAM", "LayerCAM"), layers=("",), names=("two", "cats,", "two"))
    made = [panel._replace(category=None) for panel in made]
    return explanation(made=made, sentence=SENTENCE[:3])


@in_browser
def test_the_page_shows_the_map_under_the_pointer(opened):
    from selenium.webdriver import ActionChains

    view = opened(_answer())
    words = view.all("#sentence button")
    assert view.find("#sentence").text == "two cats, two"
    assert view.find("#class-label").text == "Word"
    assert [word.get_attribute("aria-pressed") for word in words] == ["true", "false", "false"]
    view.redrawn(lambda: ActionChains(view.browser, duration=20).move_to_element(words[2]).perform())
    assert [word.get_attribute("aria-pressed") for word in words] == ["false", "false", "true"]
    view.redrawn(lambda: ActionChains(view.browser, duration=20).move_to_element(view.find("#title")).perform())
    assert words[0].get_attribute("aria-pressed") == "true"
    view.redrawn(words[1].click)
    view.redrawn(lambda: ActionChains(view.browser, duration=20).move_to_element(view.find("#title")).perform())
    assert words[1].get_attribute("aria-pressed") == "true"
    assert view.chosen()[0] == "cats,"


@in_browser
def test_pages_without_an_answer_have_no_sentence(opened):
    view = opened(explanation(picture=PICTURE))
    assert not view.find("#sentence").is_displayed()
    assert view.find("#class-label").text == "Class"

"""A vision-language model on the command line: `--prompt`."""

import json
import sys

import numpy as np
import pytest
import torch
from mistakes import assert_one_line
from PIL import Image
from vlms import IMAGE, model_called

from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.demo.reader import PROMPT, DigitsReader
from pytorch_grad_cam.zoo.vision_language import load_vision_language

CODE = """
import torch
from pytorch_grad_cam.demo.reader import DigitsReader, ReaderProcessor

torch.manual_seed(0)
reader = DigitsReader()


def build(seed=0):
    torch.manual_seed(seed)
    return DigitsReader(), ReaderProcessor()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with own code and two scenes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_readers.py").write_text(CODE)
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number, scene in enumerate([example_scene(), example_scene()[:, ::-1]]):
        Image.fromarray(scene).save(scenes / f"{number}.png")
    yield tmp_path
    sys.modules.pop("own_readers", None)


def run(*arguments):
    return main(["--prompt", PROMPT, "--max-new-tokens", "3", *arguments])


def test_the_bundled_reader(tmp_path, capsys):
    """The heat of a word is on the digit that it names."""
    assert run("--output-dir", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("five seven\n")
    heat = [
        np.asarray(Image.open(tmp_path / f"scene.png.tam.{word}.jpg").convert("RGB"), float)
        for word in ("five", "seven")
    ]
    red = np.array([(each[..., 0] - each[..., 2]).argmax() % each.shape[1] for each in heat])
    assert red[0] < heat[0].shape[1] / 2 < red[1]


@pytest.mark.parametrize("processor", [[], ["--preprocess", "own_readers.py:ReaderProcessor"]])
def test_an_own_model(own, capsys, processor):
    """A function that returns a model and its processor, or a model alone, whose processor is named."""
    name = "own_readers.py:reader" if processor else "own_readers.py:build"
    assert run("--model", name, *processor, "--image-path", "scenes/0.png", "--method", "tam", "layercam") == 0
    said, *_ = capsys.readouterr().out.splitlines()
    files = {file.name for file in (own / "output").iterdir()}
    assert {f"0.png.{method}.{said.split()[0]}.jpg" for method in ("tam", "layercam")} <= files
    assert len(files) == 2 * len(said.split())


def test_a_folder_of_pictures(own, capsys):
    (own / "scenes" / "2.png").write_bytes(b"no picture")
    assert run("--image-path", "scenes", "--save", "map") == 1
    assert "not explained: scenes/2.png is no image" in capsys.readouterr().out
    first, _, broken = map(json.loads, (own / "output" / "manifest.jsonl").read_text().splitlines())
    assert (first["prompt"], first["said"]) == (PROMPT, "five seven")
    assert "error" in broken
    assert run("--image-path", "scenes", "--report", "page.html") == 1
    out, error = capsys.readouterr()
    assert "0.png: five seven\n" in out
    assert "not explained: scenes/2.png is no image" in error
    assert "seven" in (own / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-category", "3", "--point", "1,2"], "--target-category, --point: with --prompt the targets are the"),
        (["--save", "map"], "--save is for several images"),
        (["--model", "own_readers.py:DigitsReader"], "gives none: return a model and its processor, or name one"),
        (["--model", "resnet18"], "no vision-language model is called 'resnet18'"),
        (["--model-args", '{"seed": 1}'], "--model-args are for a model of your own"),
    ],
)
def test_mistakes_are_one_line(arguments, message, own, capsys):
    assert_one_line(lambda: run(*arguments), message, capsys)


def test_words_need_a_prompt(capsys):
    assert_one_line(lambda: main(["--method", "tam"]), "tam explains the words of an answer: pass --prompt", capsys)


def test_own_weights(own):
    model = DigitsReader()
    torch.save(model.state_dict(), own / "reader.pt")
    found, _ = load_vision_language("own_readers.py:build", "reader.pt")
    torch.testing.assert_close(found.head.weight, model.head.weight)


@pytest.mark.slow
def test_a_folder_of_transformers(tmp_path, monkeypatch, capsys):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {**{f"w{number}": number for number in range(64) if number != IMAGE}, "<image>": IMAGE}
    of_words = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    of_words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=of_words, additional_special_tokens=["<image>"], eos_token="w2"
    )
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    how = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    transformers.LlavaProcessor(pixels, tokenizer, **how).save_pretrained(tmp_path / "llava")
    model_called("Llava").save_pretrained(tmp_path / "llava")
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "llava", "--prompt", "w5 w6", "--max-new-tokens", "2"]
    assert main(arguments) == 0
    said = capsys.readouterr().out.splitlines()[0].split()
    assert (tmp_path / "output" / f"scene.png.tam.{said[0]}.jpg").is_file()

"""The bundled reader: what it reads, and whether the map of a word lies on its digit."""

import numpy as np
import pytest
import torch

from benchmarks.words import figures, scenes_of
from pytorch_grad_cam.demo.reader import DigitsReader, ReaderProcessor, load_digits_reader, own_weights
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.demo.train_reader import answer_to, names_of_cells, train


@pytest.fixture(scope="module")
def row():
    return figures(load_digits_reader(), scenes_of(24, seed=11))


def test_digits_are_read_from_left_to_right(row):
    """On few scenes; the whole measurement is `python -m benchmarks.words`."""
    assert row["scenes read"] > 0.7


def test_the_map_of_a_word_lies_on_its_digit(row):
    assert row["words"] > 40
    assert row["hit"] >= 0.85
    assert row["wrong"] <= 0.05


def test_weights_take_less_than_a_megabyte():
    assert sum(2 * tensor.numel() for tensor in own_weights(DigitsReader()).values()) < 1e6


def test_answers_and_cells():
    scene = make_scene(np.random.default_rng(3))
    left = int(scene.boxes[:, 0].argmin())
    processor = ReaderProcessor()
    numerals = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    expected = [numerals[int(scene.labels[left])], numerals[int(scene.labels[1 - left])]]
    assert processor.decode(answer_to(scene), skip_special_tokens=True).split() == expected
    cells = names_of_cells(scene).reshape(16, 16)
    for label, (x0, y0, x1, y1) in zip(scene.labels, scene.boxes, strict=True):
        row, column = (y0 + y1) // 8, (x0 + x1) // 8
        assert processor.decode([cells[row, column]]) == numerals[int(label)]


def test_what_was_said_with_a_cache_is_what_one_forward_says():
    model = load_digits_reader()
    inputs = ReaderProcessor()(scenes_of(1, seed=2)[0].image)
    said = model.generate(**inputs)
    with torch.no_grad():
        likeliest = model(said, inputs["pixel_values"])["logits"][0].argmax(-1)
    prompt = inputs["input_ids"].shape[1]
    assert said[0, prompt:].equal(likeliest[prompt - 1 : -1])


@pytest.mark.slow
def test_training_runs():
    torch.manual_seed(0)
    scenes = scenes_of(4, seed=5)
    model = DigitsReader()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = train(model, scenes, epochs=2, batch_size=2)
    assert not trained.training
    changed = {name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)

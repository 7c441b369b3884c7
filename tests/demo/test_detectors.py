"""The bundled detectors: what they find, and whether the map of a box lies on its object."""

import numpy as np
import pytest
import torch

from benchmarks.instances import NAMED, figures, found_digits, predictions_of, scenes_of
from pytorch_grad_cam import BoxTarget, EigenCAM, GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.demo.detectors import (
    STYLES,
    head_of,
    labels_of,
    load_digits_detector,
    preprocess_detector,
    untrained,
)
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.demo.train_detectors import train


@pytest.fixture(scope="module")
def scenes():
    return scenes_of(12, seed=9)


@pytest.mark.parametrize("style", STYLES)
def test_digits_are_found(style, scenes):
    model = load_digits_detector(style)
    found = [
        len(found_digits(scene, style, predictions_of(model, preprocess_detector(scene.image, style))[0]))
        for scene in scenes
    ]
    assert sum(found) > 0.5 * 4 * len(scenes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LayerCAM, HiResCAM])
@pytest.mark.parametrize("style", STYLES)
def test_the_map_of_a_box_lies_on_its_object(style, kind, scenes):
    """On few scenes; the whole measurement is `python -m benchmarks.instances`."""
    row = figures(style, load_digits_detector(style), kind, scenes)
    assert row["hit"] > 0.85
    assert row["wrong"] <= 0.05
    assert not row["warns"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GradCAM, EigenCAM])
def test_methods_that_average_mark_what_looks_alike_and_say_so(kind, scenes):
    row = figures("dense", load_digits_detector("dense"), kind, scenes)
    assert row["hit"] < 0.7
    assert row["warns"]


def test_layers_that_the_benchmark_names():
    for style in STYLES:
        names = dict(load_digits_detector(style).named_modules())
        assert set(NAMED[style]) <= names.keys()


def test_an_object_that_was_missed_has_a_map(scenes):
    """The box of a digit where the detector reports none of its class."""
    model = load_digits_detector("queries")
    for scene in scenes:
        x = preprocess_detector(scene.image, "queries")
        missed = set(range(4)) - found_digits(scene, "queries", predictions_of(model, x)[0]).keys()
        for digit in missed:
            label = int(labels_of(scene, "queries")[digit])
            maps = LayerCAM(model)(x, BoxTarget(scene.boxes[digit], label))
            assert maps.shape == (1, 64, 64)
            return
    pytest.fail("nothing was missed")


def test_scenes_of_several_digits():
    scene = make_scene(np.random.default_rng(3), several=4)
    assert len(scene.labels) == len(scene.boxes) == len(scene.masks) == 4
    assert len(set(scene.labels.tolist())) < 4
    np.testing.assert_array_equal(
        make_scene(np.random.default_rng(3)).image, make_scene(np.random.default_rng(3), several=None).image
    )


def test_weights_take_less_than_a_megabyte():
    assert sum(2 * tensor.numel() for style in STYLES for tensor in head_of(untrained(style)).values()) < 1e6


def test_another_style():
    with pytest.raises(ValueError, match="expected one of dense, regions, queries"):
        untrained("sparse")


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_training_runs(style, scenes):
    torch.manual_seed(0)
    model = untrained(style)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = train(model, style, scenes[:4], epochs=2, batch_size=2)
    assert not trained.training
    changed = {name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any("body." in name for name in changed)

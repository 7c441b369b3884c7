"""The bundled U-Net: what it finds, and whether the map of a digit lies on it."""

import numpy as np
import pytest
import torch

from benchmarks.segmentation import figures, found_digits
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.demo.network import preprocess_scene
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.demo.segmenter import BACKGROUND, classes_of, decoder_of, load_digits_segmenter
from pytorch_grad_cam.demo.train_segmenter import held_out_overlap, train

RNG = np.random.default_rng(9)
SCENES = [make_scene(RNG) for _ in range(10)]


@pytest.fixture(scope="module")
def segmenter():
    return load_digits_segmenter()


def test_digits_are_found(segmenter):
    images = preprocess_scene(np.stack([scene.image for scene in SCENES]))
    with torch.no_grad():
        predicted = segmenter(images).argmax(1).numpy()
    found = [len(found_digits(scene, of_image)) for scene, of_image in zip(SCENES, predicted, strict=True)]
    assert sum(found) >= 0.8 * 2 * len(SCENES)
    assert held_out_overlap(segmenter, SCENES) > 0.6


def test_the_map_of_a_digit_lies_on_it_where_no_layer_is_named(segmenter):
    """On few scenes; the whole measurement is `python -m benchmarks.segmentation`."""
    found = figures(segmenter, GradCAM, None, SCENES)
    assert found["layer"] == "up3"
    assert found["own"] >= 0.8
    assert found["other"] <= 0.05
    encoded = figures(segmenter, GradCAM, "encoder.layer4", SCENES)
    assert encoded["own"] < 0.6


def test_the_class_of_each_pixel():
    classes = classes_of(SCENES[0])
    assert {*np.unique(classes)} == {*SCENES[0].labels, BACKGROUND}
    np.testing.assert_array_equal(classes == SCENES[0].labels[1], SCENES[0].masks[1])


def test_training_leaves_the_encoder_as_it_is():
    before = load_digits_segmenter().encoder.state_dict()
    model = train(SCENES[:4], epochs=1, batch_size=2)
    assert not model.training
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert {value.dtype for name, value in decoder_of(model).items() if "num_batches" not in name} == {torch.float16}
    assert not any(name.startswith("encoder") for name in decoder_of(model))

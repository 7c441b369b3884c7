import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images
from PIL import Image
from torch import nn

from pytorch_grad_cam import DeepFeatureFactorization, run_dff_on_image
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
from pytorch_grad_cam.utils.image import show_factorization_on_image
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform


@pytest.mark.parametrize("shape", [(2, 6, 12), (2, 6, 4, 5), (2, 6, 3, 4, 2)])
def test_concepts_and_maps_compose_the_activations(shape):
    """Of activations that are made of two patterns, shifted below zero, the two are found again."""
    random = np.random.default_rng(0)
    concepts, maps = random.random((6, 2)), random.random((2, 2, *shape[2:]))
    activations = np.einsum("cn,bn...->bc...", concepts, maps) - 0.5
    activations[0, 0].flat[0] = np.nan
    before = activations.copy()
    found_concepts, found_maps = dff(activations, n_components=2)
    assert found_concepts.shape == (6, 2)
    assert found_maps.shape == (2, 2, *shape[2:])
    np.testing.assert_array_equal(activations, before)
    offset = np.nan_to_num(activations).min(axis=(0, *range(2, len(shape))))
    composed = np.einsum("cn,bn...->bc...", found_concepts - offset[:, None], found_maps)
    composed = composed + offset.reshape(1, -1, *[1] * (len(shape) - 2))
    assert np.abs(composed - np.nan_to_num(activations)).mean() < 0.03


def test_factorization_of_a_layer():
    model, x = convolutional().train(), images()
    with DeepFeatureFactorization(model, "last") as factorization:
        concepts, maps = factorization(x, n_components=3)
    expected_concepts, expected_maps = dff(model.eval()[:4](x).detach().numpy(), 3)
    np.testing.assert_allclose(concepts, expected_concepts, atol=1e-5)
    assert len(maps) == 2
    for image, expected in zip(maps, expected_maps, strict=True):
        assert image.shape == (3, 12, 16)
        assert image.dtype == np.float32
        scaled = (expected - expected.min((1, 2), keepdims=True)) / np.ptp(expected, axis=(1, 2), keepdims=True)
        enlarged = nn.functional.interpolate(torch.from_numpy(scaled)[None], size=(12, 16), mode="bilinear")[0]
        np.testing.assert_allclose(image, enlarged, atol=1e-5)
    assert not model.last._forward_hooks


def test_computation_on_concepts_gets_one_row_each():
    model = convolutional()
    head = nn.Linear(8, 5)
    concepts, _, outputs = DeepFeatureFactorization(model, model.last, computation_on_concepts=head)(images(), 4)
    np.testing.assert_allclose(outputs, head(torch.from_numpy(concepts.T)).detach(), atol=1e-6)


def test_computation_on_concepts_of_a_bfloat16_model():
    model = convolutional().bfloat16()
    head = nn.Linear(8, 5).bfloat16()
    concepts, _, outputs = DeepFeatureFactorization(model, model.last, computation_on_concepts=head)(
        images().bfloat16(), 4
    )
    expected = head(torch.from_numpy(concepts.T).bfloat16()).float().detach()
    np.testing.assert_array_equal(outputs, expected)


def test_factorization_of_tokens():
    model = Transformer()
    factorization = DeepFeatureFactorization(model, model.norm, lambda tokens: vit_reshape_transform(tokens, 3, 4))
    concepts, maps = factorization(images(), 2)
    assert concepts.shape == (8, 2)
    assert maps[0].shape == (2, 12, 16)


@pytest.mark.parametrize("names", [0, 2, 5])
def test_picture(names):
    """Transformers gives two names by default, whatever the number of classes."""
    model = convolutional()
    if names:
        model.config = type("Config", (), {"id2label": {i: f"name {i}" for i in range(names)}})
    x = images(count=1)[0]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8))
    shown = run_dff_on_image(model, model.last, nn.Linear(8, 5), picture, x, n_components=3)
    assert shown.shape == (12, 3 * 16, 3)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[:, :16], np.asarray(picture))


def test_each_pixel_has_the_colour_of_its_strongest_concept():
    explanations = np.zeros((2, 1, 3), np.float32)
    explanations[0, 0] = [1.0, 0.2, 0.0]
    explanations[1, 0] = [0.5, 0.4, 0.0]
    before = explanations.copy()
    colors = [np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])]
    black = np.zeros((1, 3, 3))
    shown = show_factorization_on_image(black, explanations, colors, image_weight=0)
    np.testing.assert_allclose(shown[0], [[255, 0, 0], [0, 0, 102], [0, 0, 0]], atol=1)
    np.testing.assert_array_equal(explanations, before)
    rainbow = show_factorization_on_image(black, explanations, image_weight=0)
    assert rainbow[0, 0, 0] > 200, "the first colour of gist_rainbow is red"


def test_legend_stands_beside_the_picture():
    white = np.ones((64, 80, 3), np.float32)
    explanations = np.random.default_rng(0).random((3, 64, 80))
    shown = show_factorization_on_image(white, explanations, concept_labels=["one", "two", "three"])
    assert shown.shape == (64, 160, 3)
    np.testing.assert_array_equal(shown[:, :80], show_factorization_on_image(white, explanations))
    legend = shown[:, 80:].reshape(-1, 3)
    assert len(np.unique(legend, axis=0)) > 10, "lines in three colours and text"


def test_explanations_must_fit_the_picture():
    with pytest.raises(ValueError, match=r"explanations have shape \(2, 5, 5\)"):
        show_factorization_on_image(np.zeros((4, 4, 3)), np.zeros((2, 5, 5)))
    with pytest.raises(ValueError, match="explanations has values from"):
        show_factorization_on_image(np.zeros((5, 5, 3)), np.full((2, 5, 5), 7.0))


def test_one_colour_a_concept_and_a_weight_that_blends():
    explanations = np.random.default_rng(0).random((3, 5, 5))
    with pytest.raises(ValueError, match="1 colors for 3 concepts"):
        show_factorization_on_image(np.zeros((5, 5, 3)), explanations, colors=[np.ones(3)])
    with pytest.raises(ValueError, match=r"image_weight is 3, expected a number in \[0, 1\]"):
        show_factorization_on_image(np.zeros((5, 5, 3)), explanations, image_weight=3)

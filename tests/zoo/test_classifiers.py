"""Classifiers by name, their classes and what loading them leaves alone."""

import logging
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from pytorch_grad_cam.zoo.class_names import category_called, names_of
from pytorch_grad_cam.zoo.classifiers import UnusableInput, load_classifier


@pytest.mark.parametrize("name", ["digits", "squeezenet1_0", "lcnet_035"])
def test_loading_leaves_the_generator_and_the_logger_as_they_were(name):
    if name == "lcnet_035":
        pytest.importorskip("timm")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    first, second = (load_classifier(name, "none").model.state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert logger.level == level
    assert all(torch.equal(first[key], second[key]) for key in first), "random, but seeded"


def test_a_model_without_classes():
    pytest.importorskip("timm")
    with pytest.raises(UnusableInput, match="vit_small_patch14_dinov2 has no classifier"):
        load_classifier("vit_small_patch14_dinov2", "none")


@pytest.mark.parametrize(
    ("text", "categories", "expected"),
    [
        ("1", ["1", "2", "3"], 0),
        ("2000", ["1999", "2000"], 1),
        ("2", ["a", "b", "c"], 2),
        ("cardigan", ["Cardigan", "cardigan"], 1),
        ("TABBY", ["tiger", "tabby", "tabby cat"], 1),
        ("retriever", ["tabby", "golden retriever"], 1),
    ],
)
def test_the_class_that_a_text_means(text, categories, expected):
    assert category_called(text, categories) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane", r"did you mean crane \(0\), crane \(1\)\?: pass a number"),
        ("CARDIGAN", r"did you mean Cardigan \(2\), cardigan \(3\)\?"),
        ("tabbi", r"did you mean tabby \(4\)\?"),
        ("xyzzy", "'xyzzy': pass a number"),
        ("7", "the model's classes are 0 to 4"),
    ],
)
def test_texts_that_mean_no_single_class(text, message):
    with pytest.raises(UnusableInput, match=message):
        category_called(text, ["crane", "crane", "Cardigan", "cardigan", "tabby"])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({0: "cat", 1: "dog"}, ["cat", "dog"]),
        ({0: "LABEL_0", 1: "LABEL_1"}, ["class 0", "class 1"]),
        ({0: "cat", 1: "dog", 2: "bird"}, ["class 0", "class 1"]),
    ],
)
def test_names_of_a_transformers_configuration(labels, expected):
    model = nn.Linear(3, 2)
    model.config = SimpleNamespace(id2label=labels)
    assert names_of(2, None, model)[0] == expected
    assert names_of(2, ["ant", "bee"], model)[0] == ["ant", "bee"]


def test_fewer_names_than_classes():
    with pytest.raises(ValueError, match="categories has 2 names, expected one for each of 5 classes"):
        names_of(5, ["ant", "bee"], nn.Linear(3, 5))


@pytest.mark.parametrize(("name", "size"), [("vit_h_14", 518), ("vit_b_32", 224)])
def test_random_weights_are_for_the_size_of_the_preprocessing(name, size):
    with torch.device("meta"):
        classifier = load_classifier(name, "none")
    assert classifier.model.image_size == size
    assert classifier.preprocess(Image.new("RGB", (600, 600))).shape == (3, size, size)

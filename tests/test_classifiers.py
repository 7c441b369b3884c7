"""Classifiers by name, their classes and what loading them leaves alone."""

import logging

import pytest
import torch

from pytorch_grad_cam.classifiers import UnusableInput, load_classifier


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

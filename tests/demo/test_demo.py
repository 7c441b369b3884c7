import inspect

import numpy as np
import pytest
import torch

from pytorch_grad_cam.demo import example_scene, preprocess_scene
from pytorch_grad_cam.demo.network import DigitsNet
from pytorch_grad_cam.demo.scenes import make_scene, source_digits
from pytorch_grad_cam.demo.train import held_out_accuracy, train


def test_scene_ground_truth():
    for seed in range(50):
        scene = make_scene(np.random.default_rng(seed))
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert scene.labels[0] != scene.labels[1]
        for mask, (x0, y0, x1, y1) in zip(scene.masks, scene.boxes, strict=True):
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert 10 <= y1 - y0 <= 32, "14 to 26 px, slightly rotated"
            assert mask[y0].any()
            assert mask[:, x1 - 1].any()
        assert not (scene.masks[0] & scene.masks[1]).any()


def test_scene_comes_from_its_seed():
    first, second = (make_scene(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert (make_scene(np.random.default_rng(6)).image != first.image).any()


def test_held_out_handwriting_is_not_trained_on():
    for train_digits, test_digits in zip(source_digits("train"), source_digits("test"), strict=True):
        assert 0.18 < len(test_digits) / (len(test_digits) + len(train_digits)) < 0.21
    with pytest.raises(ValueError, match="expected 'train' or 'test'"):
        source_digits("validation")


@pytest.mark.slow
def test_network_is_as_accurate_as_promised(digits_net):
    """On 400 held-out scenes; the whole measurement is `python -m benchmarks.digits`."""
    mean_precision, both_right = held_out_accuracy(digits_net, scenes=400)
    assert mean_precision > 0.97
    assert both_right > 0.88


def test_parameters(digits_net):
    assert sum(p.numel() for p in digits_net.parameters()) == 308_826
    assert digits_net.layer1(torch.zeros(1, 16, 64, 64)).shape == (1, 16, 64, 64)


def test_example_scene_shows_a_seven_and_a_five(digits_net):
    scene = example_scene()
    assert scene.shape == (64, 64, 3)
    assert set(digits_net(preprocess_scene(scene))[0].topk(2).indices.tolist()) == {7, 5}


@pytest.mark.slow
def test_training_runs():
    trained = train(images=64, batch_size=8, workers=0)
    assert isinstance(trained, DigitsNet)
    assert not trained.training
    assert "images" in inspect.signature(train).parameters

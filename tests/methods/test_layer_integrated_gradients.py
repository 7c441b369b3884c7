"""Integrated gradients of a layer beside their oracle: completeness, tokens, chunks, what is refused."""

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import HiResCAM, LayerIntegratedGradients


def score_with(model, layer, x, scale, category):
    handle = layer.register_forward_hook(lambda module, inputs, output: output * scale)
    try:
        with torch.no_grad():
            return model(x)[:, category]
    finally:
        handle.remove()


def test_the_sum_is_what_the_layer_adds_to_the_score():
    """Completeness, with more steps closer."""
    model, x = convolutional(2).double(), images(2).double()
    expected = score_with(model, model.last, x, 1, 1) - score_with(model, model.last, x, 0, 1)
    off = []
    for steps in (1, 16):
        weights = {}

        class Kept(LayerIntegratedGradients):
            def weigh(self, run, kept=weights):
                kept["sum"] = (super().weigh(run) * run.activations).flatten(1).sum(1)
                return super().weigh(run)

        Kept(model, model.last, steps=steps)(x, 1)
        off.append(float((weights["sum"] - expected).abs().max()))
    assert off[1] < 1e-6 < off[0]


def test_of_a_linear_tail_they_are_gradient_times_activation():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    model = Linear()
    model.rectified = nn.Identity()
    model.forward = lambda x: model.head(model.rectified(torch.relu(model.conv(x))).mean((2, 3)))
    x = images(2)
    how = {"relu": False, "normalize": None}
    found = LayerIntegratedGradients(model, "rectified", **how)(x, 1)
    np.testing.assert_allclose(found, HiResCAM(model, "rectified", **how)(x, 1), atol=1e-6)


def test_a_saturated_score_still_has_evidence():
    """Behind a tanh far out the gradient is nearly nothing; on the way there it was not."""

    class Saturated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.conv.weight)

        def forward(self, x):
            return torch.tanh(20 * self.conv(x).sum((2, 3)))

    x = torch.zeros(1, 1, 8, 8)
    x[..., 2, 5] = 1
    how = {"relu": False, "normalize": None, "check_place": False}
    integrated = LayerIntegratedGradients(Saturated(), "conv", steps=200, **how)(x, 0)
    assert integrated[0, 2, 5] == pytest.approx(1, abs=0.01)
    with pytest.warns(UserWarning, match="blank"):
        assert not HiResCAM(Saturated(), "conv", **how)(x, 0).any()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_chunks_do_not_matter(batch_size):
    model, x = convolutional(2), images(2)
    found = LayerIntegratedGradients(model, model.last, batch_size=batch_size)(x, [[1, 3]] * 2)
    np.testing.assert_allclose(found, LayerIntegratedGradients(model, model.last)(x, [[1, 3]] * 2), atol=1e-5)


def test_a_later_call_runs_the_model_once_and_the_tail_in_one_batch():
    sizes = []
    model, x = convolutional(2), images(2)
    model.head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    cam = LayerIntegratedGradients(model, model.last, check_place=False)
    cam(x, 1)
    sizes.clear()
    cam(x, [[1, 3]] * 2)
    assert sizes == [2, 32], "the forward, and two images at 16 steps"


def test_less_than_one_step_is_refused():
    model = convolutional(2)
    with pytest.raises(ValueError, match="steps is 0, expected at least 1"):
        LayerIntegratedGradients(model, model.last, steps=0)

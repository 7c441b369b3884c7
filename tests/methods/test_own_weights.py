"""What a method of one's own returns by mistake is said, and never becomes a map."""

import numpy as np
import pytest
import torch
from nets import convolutional

from pytorch_grad_cam import BaseCAM

X = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
MISTAKES = {
    "none": (lambda grads: None, "None"),
    "one a sample": (
        lambda grads: grads.mean((1, 2, 3)),
        r"have shape \(2,\), expected a tensor \(2, 8\), one for",
    ),
    "one a channel": (lambda grads: grads.mean((0, 2, 3)), r"have shape \(8,\)"),
    "transposed": (lambda grads: grads.mean((2, 3)).swapaxes(0, 1), r"have shape \(8, 2\)"),
    "an axis too many": (lambda grads: grads.mean(3), r"have shape \(2, 8, 12\)"),
    "channels missing": (lambda grads: grads.mean((2, 3))[:, :7], r"have shape \(2, 7\)"),
}


@pytest.fixture(scope="module")
def net():
    return convolutional()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_weights_that_fit_no_channels(mistake, net):
    make, message = MISTAKES[mistake]

    class Own(BaseCAM):
        def weigh(self, run):
            return make(run.grads)

    with pytest.raises(ValueError, match=message):
        Own(net, "last")(X, [1, 2])


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("is_on_the_object", [False, True])
def test_weights_of_1_x_that_fit_no_channels(is_on_the_object, mistake, net):
    make, message = MISTAKES[mistake]

    class Own(BaseCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            return make(grads)

    cam = Own(net, "last")
    if is_on_the_object:
        cam.get_cam_weights = lambda *arguments: make(arguments[-1])
    with pytest.raises(ValueError, match=message):
        cam(X, [1, 2])


def test_weights_of_all_are_weights_of_each(net):
    class Own(BaseCAM):
        def weigh(self, run):
            return run.grads.mean((2, 3))[:1] if self.is_of_all else run.grads.mean((2, 3))[:1].repeat(2, 1)

    Own.is_of_all = True
    maps = Own(net, "last")(X, [1, 2])
    Own.is_of_all = False
    np.testing.assert_allclose(maps, Own(net, "last")(X, [1, 2]))

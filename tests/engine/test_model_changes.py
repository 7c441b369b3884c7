"""A model that changes between two calls of one CAM, and threads that meet in it."""

import numpy as np
import pytest
import torch
from nets import Remembering, convolutional, images, in_threads
from torch import nn

from pytorch_grad_cam import EigenCAM, GradCAM


class Counting(nn.Module):
    """Writes a buffer in each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("extra", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.net(x)


class Adapting(nn.BatchNorm2d):
    """Gathers statistics in evaluation mode too, in an own way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.running_mean.mul_(0.9)
        return super().forward(x)


WRITES = {
    "data": lambda buffer: buffer.data.fill_(7),
    "set data": lambda buffer: setattr(buffer, "data", torch.full((3,), 7.0)),
    "numpy": lambda buffer: buffer.numpy().fill(7),
    "in place": lambda buffer: buffer.fill_(7),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_buffer_written_between_calls(write):
    model = Counting().eval()
    cam = GradCAM(model, "net.last")
    cam(images(), 1)
    write(model.count)
    cam(images(), 1)
    assert model.count.tolist() == [7, 7, 7]


def test_a_normalisation_trained_between_calls():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Adapting(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    cam = GradCAM(model.eval(), model[2])
    cam(images(), 1)
    model.train()(images())
    trained = model[1].running_mean.clone()
    cam(images(), 1)
    assert torch.equal(model[1].running_mean, trained)


def test_a_buffer_renamed_between_calls():
    model = Counting().eval()
    cam = GradCAM(model, "net.last")
    cam(images(), 1)
    extra = model.extra
    del model.extra
    model.register_buffer("other", extra)
    cam(images(), 1)
    assert list(model._buffers) == ["count", "other"]


def test_no_values_are_kept_between_calls():
    model = Counting().eval()
    cam = GradCAM(model, "net.last")
    cam(images(), 1)
    assert all(buffer._values is None for buffer in cam._known.watched)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ours", [GradCAM, EigenCAM])
def test_a_lazy_model_that_is_run_later(ours):
    def lazy() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))

    model = lazy()
    cam = ours(model, model[1])
    model(images())
    np.testing.assert_array_equal(cam(images(), 1), ours(model, model[1])(images(), 1))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_a_model_keeps_of_its_parameters_in_evaluation_mode():
    model, other, x = Remembering().train(), Remembering(seed=1), images()
    cam = GradCAM(model, "stem", check_place=False)
    cam(x, 1)
    assert not model.cache, "training goes on without what a call has made"
    with torch.no_grad():
        model.factors.copy_(other.factors)
        model.stem.load_state_dict(other.stem.state_dict())
    model.head.load_state_dict(other.head.state_dict())
    np.testing.assert_allclose(cam(x, 1), GradCAM(other, "stem")(x, 1), atol=1e-6)
    model.eval()
    cam(x, 1)
    model(x).sum().backward()
    assert model.factors.grad is not None, "no call has cut it off"
    cache = model.cache
    kept = dict(cache)
    cam(x, 1)
    assert model.cache is cache
    assert cache == kept, "the user's own stays"


def test_another_model_in_its_place():
    model, other = convolutional(), convolutional(seed=5).train()
    cam = GradCAM(model, "last")
    cam.model, cam.target_layers = other, [other.last]
    np.testing.assert_array_equal(cam(images(), 1), GradCAM(other, "last")(images(), 1))
    assert all(module.training for module in other.modules())


def test_threads_in_a_model_made_in_inference_mode():
    with torch.inference_mode():
        model = convolutional()
    cam, errors = GradCAM(model, "last"), []

    def work(_: int) -> None:
        try:
            for _ in range(20):
                cam(images(), [1, 2])
        except RuntimeError as error:
            errors.append(error)

    in_threads(work, 8)
    assert not errors
    assert all(parameter.is_inference() for parameter in model.parameters())

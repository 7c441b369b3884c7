import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import convolutional, images, state_of
from torch import nn

from pytorch_grad_cam import GuidedBackpropReLUModel
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUasModule
from pytorch_grad_cam.utils.find_layers import replace_all_layer_type_recursive


def by_hand(model, image, category):
    """Springenberg et al.: on the way back a rectifier passes what is positive, where its input was positive."""

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(context, gradient):
            return gradient.clamp(min=0) * (context.saved_tensors[0] > 0)

    x = image[None].clone().requires_grad_()
    out = x
    for module in model:
        out = Guided.apply(out) if isinstance(module, nn.ReLU) else module(out)
    out[0, category].backward()
    return x.grad[0].movedim(0, -1).numpy()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_guided_gradient(rank, in_place):
    model, x = convolutional(rank, in_place), images(rank, count=3)
    guided = GuidedBackpropReLUModel(model)
    expected = np.stack([by_hand(model, image, c) for image, c in zip(x, [3, 1, 0], strict=True)])
    np.testing.assert_allclose(guided(x, [3, 1, 0]), expected, atol=1e-6)
    np.testing.assert_allclose(guided(x[:1], 3), expected[0], atol=1e-6)
    plain = torch.autograd.grad(model(x.requires_grad_())[:, 3].sum(), x)[0]
    assert not np.allclose(plain[0].movedim(0, -1), expected[0]), "guidance changes something"


@pytest.mark.parametrize("rectify", [F.relu, lambda x: x.clamp(min=0), F.relu_])
def test_functional_rectifiers(rectify):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return self.net[4:](rectify(self.net.conv(rectify(self.net.stem(x)))))

    model, x = Functional(), images(count=1)
    np.testing.assert_allclose(GuidedBackpropReLUModel(model)(x, 3), by_hand(model.net, x[0], 3), atol=1e-6)


@pytest.mark.slow
def test_compiled_models_and_scores_in_outputs():
    class InDict(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return {"logits": self.net(x)}

    x = images(count=1)
    expected = GuidedBackpropReLUModel(convolutional())(x, 3)
    for model in (InDict().eval(), torch.compile(convolutional())):
        np.testing.assert_array_equal(GuidedBackpropReLUModel(model)(x, 3), expected)


def test_relu6_is_guided():
    six = convolutional(nonlinearity=nn.ReLU6)
    with_relu = convolutional()
    x = images(count=1)
    np.testing.assert_allclose(GuidedBackpropReLUModel(six)(x, 3), GuidedBackpropReLUModel(with_relu)(x, 3), atol=1e-6)


def test_model_without_rectifiers_warns():
    model, x = convolutional(nonlinearity=nn.GELU), images(count=1)
    with pytest.warns(UserWarning, match="no ReLU"):
        gradient = GuidedBackpropReLUModel(model)(x, 3)
    plain = torch.autograd.grad(model(x.requires_grad_())[0, 3], x)[0]
    np.testing.assert_allclose(gradient, plain[0].movedim(0, -1), atol=1e-6)


@pytest.mark.parametrize("limit", [lambda x: x.clamp(min=-1), F.hardtanh, lambda x: F.threshold(x, 1, 0)])
def test_limits_that_are_not_zero_are_not_guided(limit):
    class Limited(nn.Module):
        def forward(self, x):
            return limit(x).mean((2, 3))

    with pytest.warns(UserWarning, match="no ReLU"):
        GuidedBackpropReLUModel(Limited())(images(count=1), 1)


def test_a_rectifier_that_no_gradient_reaches():
    class Stopped(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return None

    class Beside(nn.Module):
        def forward(self, x):
            return (Stopped.apply(x.relu()) + x).mean((2, 3))

    gradient = GuidedBackpropReLUModel(Beside())(images(count=1), 1)
    np.testing.assert_allclose(gradient[..., 1], 1 / (12 * 16))


def test_old_spelling_and_inference_mode():
    model, x = convolutional(), images(count=1)
    expected = GuidedBackpropReLUModel(model)(x, 3)
    with pytest.warns(DeprecationWarning, match="use_cuda"):
        guided = GuidedBackpropReLUModel(model=model, use_cuda=False)
    with torch.inference_mode():
        np.testing.assert_array_equal(guided(x.clone(), 3), expected)


def test_nothing_is_touched():
    model, x = convolutional().train(), images(count=1).requires_grad_()
    before = state_of(model)
    guided = GuidedBackpropReLUModel(model, device="cpu")
    first = guided(x, target_category=None).copy()
    np.testing.assert_array_equal(guided(x), first)
    assert x.grad is None
    assert state_of(model) == before
    with pytest.raises(RuntimeError):
        guided(torch.zeros(1, 7, 8, 8))
    assert state_of(model) == before


def test_guided_layers_build_a_guided_model():
    model, x = convolutional(), images(count=1)
    expected = GuidedBackpropReLUModel(model)(x, 3)
    replace_all_layer_type_recursive(model, nn.ReLU, GuidedBackpropReLUasModule())
    torch.testing.assert_close(model(x), convolutional()(x))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[0, 3], x)
    np.testing.assert_allclose(gradient[0].movedim(0, -1), expected, atol=1e-7)


@pytest.mark.parametrize("factor", [torch.ones(3), torch.ones(3, requires_grad=True)])
def test_a_graph_that_does_not_begin_at_the_image(factor):
    class Detaches(nn.Module):
        def forward(self, x):
            return x.detach().mean((2, 3)).relu() * factor

    with pytest.raises(ValueError, match="no gradient leads from the score to the image"):
        GuidedBackpropReLUModel(Detaches())(images(), 1)

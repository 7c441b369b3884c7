"""LIFT-CAM beside its oracle: contributions add up behind any tail, and what they are behind a linear one; cost."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import CLASSES, Transformer, convolutional, images
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pytorch_grad_cam import LIFTCAM, CamWarning
from pytorch_grad_cam.demo import example_scene, preprocess_scene
from pytorch_grad_cam.lift_cam import lift_cam_weights
from pytorch_grad_cam.perturbation.deep_lift import Lifted, Reference
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform

RAW = {"relu": False, "normalize": None, "check_place": False}


class Kept(LIFTCAM):
    """Keeps the weights."""

    def weigh(self, run):
        self.weights = super().weigh(run)
        return self.weights


def weights_of(model, layer, x, targets, **options):
    cam = Kept(model, layer, **RAW, **options)
    cam(x, targets)
    return cam.weights


class Tail(nn.Module):
    """A convolution to 6 channels, and a function from its output to what is averaged and classified."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.behind, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Linear(6, CLASSES)
        self.function = function

    def forward(self, x):
        seen = self.function(self.behind(self.conv(x)))
        return self.head(seen.flatten(2).mean(2))


def change_of_score(model, layer, x, category):
    scores = []
    for scale in (1, 0):
        handle = layer.register_forward_hook(lambda module, inputs, output, scale=scale: output * scale)
        with torch.no_grad():
            scores.append(model(x)[:, category])
        handle.remove()
    return scores[0] - scores[1]


def attention(x, how):
    tokens = x.flatten(2).mT
    query, key, value = tokens, 2 * tokens.flip(1), tokens.tanh()
    return how(query, key, value).mT.unflatten(2, x.shape[2:])


def eager(query, key, value):
    return (query @ key.mT / math.sqrt(3)).softmax(-1) @ value


def masked(query, key, value):
    length = query.shape[1]
    return F.scaled_dot_product_attention(query, key, value, torch.ones(length, length, dtype=torch.bool).tril())


TAILS = {
    "relu in place": lambda x: F.relu((2 * x).sin(), inplace=True),
    "gelu": F.gelu,
    "silu": nn.SiLU(inplace=True),
    "hardswish": F.hardswish,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "clamp": lambda x: x.clamp(-0.2, max=0.3),
    "powers": lambda x: x**2 + x.pow(3) - x.square(),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "gate in place": lambda x: (x + 1).mul_(x.sigmoid()),
    "division": lambda x: x / (2 + x.abs()) + 1 / (1 + x.exp()) + x / 3,
    "softmax": lambda x: x.softmax(1) + F.softmax(3 * x, dim=2),
    "highest": lambda x: F.max_pool2d(x, 3, 2, padding=1),
    "highest of all": nn.AdaptiveMaxPool2d(2),
    "layer norm": lambda x: F.layer_norm(x.movedim(1, -1), (6,)).movedim(-1, 1),
    "group norm": nn.GroupNorm(2, 6),
    "eager attention": lambda x: attention(x, eager),
    "fused attention": lambda x: attention(x, F.scaled_dot_product_attention),
    "masked attention": lambda x: attention(x, masked),
    "causal attention": lambda x: attention(x, lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True)),
}


@pytest.mark.filterwarnings("error::pytorch_grad_cam.CamWarning")
@pytest.mark.parametrize("name", TAILS)
def test_contributions_add_up(name):
    model, x = Tail(TAILS[name]).double().eval(), images(count=2).double()
    weights = weights_of(model, model.conv, x, [[1, 3]] * 2)
    torch.testing.assert_close(weights.sum(1), change_of_score(model, model.conv, x, 3), rtol=1e-8, atol=1e-8)


def test_normalisation_of_nothing_does_not_blow_contributions_up():
    """The reference of zeros has no variance: the reciprocal of its standard deviation is the root of 1 / eps."""
    model = Tail(lambda x: F.layer_norm(x.movedim(1, -1), (6,), eps=1e-12).movedim(-1, 1)).double().eval()
    model.behind = nn.Identity()
    weights = weights_of(model, model.conv, images().double(), 1)
    assert weights.abs().max() < 10


@pytest.mark.filterwarnings("error::pytorch_grad_cam.CamWarning")
def test_a_transformer_with_its_class_token():
    model, x = Transformer().double(), images().double()
    LIFTCAM(model, "norm", lambda tokens: vit_reshape_transform(tokens, 3, 4), **RAW)(x, 1)


def test_behind_pooling_and_a_linear_layer_they_are_shapley_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)).double()
    x = images(count=1).double()
    a = model[0](x).detach()

    def score(channels):
        shown = torch.zeros_like(a)
        shown[:, list(channels)] = a[:, list(channels)]
        return model[1:](shown)[0, 1].item()

    expected = []
    for channel in range(4):
        orders = list(itertools.permutations(range(4)))
        before = [order[: order.index(channel)] for order in orders]
        expected.append(sum(score((*those, channel)) - score(those) for those in before) / len(orders))
    found = weights_of(model, model[0], x, 1)[0]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_lift_cam_weights():
    contributions = torch.tensor([[[[[1.0, 2]], [[-1, 0]]], [[[0, 0]], [[3, 4]]]]])
    assert lift_cam_weights(contributions).tolist() == [[[3, -1], [0, 7]]]


def test_a_rectifier_by_hand():
    """relu(a - 1) rose from 0 to 2 while a rose from 0 to 3: of each unit two thirds, whatever the derivative is."""

    def run(a):
        return torch.relu(a - 1)

    at_zero, a = torch.zeros(3, requires_grad=True), torch.tensor([3.0, 0.5, 0], requires_grad=True)
    with Reference() as reference:
        run(at_zero)
    with Lifted(reference):
        result = run(a)
    assert result.tolist() == [2, 0, 0]
    torch.testing.assert_close(torch.autograd.grad(result.sum(), a)[0], torch.tensor([2 / 3, 0, 0]))


def test_a_function_without_a_rule_is_told():
    model, x = Tail(lambda x: torch.logsumexp(5 * x, 1, keepdim=True).expand_as(x)).eval(), images()
    with pytest.warns(CamWarning, match=r"do not add up.*LayerIntegratedGradients"):
        LIFTCAM(model, "conv", check_place=False)(x, 1)


def test_another_path_with_zeros_is_refused():
    model, x = Tail(lambda x: x.relu() if x.mean() > -0.05 else x.tanh().sin()).eval(), images()
    model.conv.bias.data += 3
    model.behind.weight.data.abs_()
    model.behind.bias.data.fill_(-0.1)
    with pytest.raises(ValueError, match="computed different things: take AblationCAM"):
        LIFTCAM(model, "conv", check_place=False)(x, 1)


def test_a_tail_without_gradients_is_refused():
    model, x = Tail(lambda x: x.detach()).eval(), images()
    with pytest.raises(ValueError, match=r"no gradient leads from the score to the layer.*AblationCAM"):
        LIFTCAM(model, "conv", check_place=False)(x, 1)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_chunks_do_not_matter(batch_size):
    model, x = convolutional(), images(count=3)
    found = weights_of(model, model.last, x, [1, 3, 2], batch_size=batch_size)
    torch.testing.assert_close(found, weights_of(model, model.last, x, [1, 3, 2]))


def test_cost():
    """A later call: the forward, and the tail twice whatever the number of targets."""
    sizes, model, x = [], convolutional(), images()
    model.head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    cam = LIFTCAM(model, model.last, check_place=False)
    cam(x, 1)
    sizes.clear()
    cam(x, [[1, 3]] * 2)
    assert sizes == [2, 2, 2]


def test_operations_of_the_bundled_network(digits_net):
    scene = preprocess_scene(example_scene())
    cam = LIFTCAM(digits_net, "layer4", check_place=False)
    cam(scene, 5)
    counted = []
    for work in (lambda: digits_net(scene), lambda: cam(scene, 5)):
        with FlopCounterMode(display=False) as counter:
            work()
        counted.append(counter.get_total_flops())
    assert counted[1] <= 1.1 * counted[0]

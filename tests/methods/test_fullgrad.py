"""FullGrad reads the biases as they were executed, whatever the modules."""

import copy
import warnings

import numpy as np
import pytest
import torch
from nets import CONVOLUTIONS, Transformer, convolutional, images
from torch import nn

from pytorch_grad_cam import FullGrad
from pytorch_grad_cam.engine.bias_gradients import BiasGradients
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.registration.bias_registrations import bias_registrations


class Registered(nn.Module):
    """Two convolutions registered in one order or the other, executed a then b."""

    def __init__(self, first):
        super().__init__()
        torch.manual_seed(0)
        layers = {"a": nn.Conv2d(3, 8, 3, padding=1), "b": nn.Conv2d(8, 8, 3, padding=1)}
        for name in (first, *layers.keys() - {first}):
            self.add_module(name, layers[name])
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.b(self.a(x).relu()).relu().mean((2, 3)))


def test_order_of_registration_does_not_matter():
    np.testing.assert_array_equal(FullGrad(Registered("a"))(images(), 3), FullGrad(Registered("b"))(images(), 3))


class NormAct(nn.BatchNorm2d):
    """A batch normalisation with its activation, in place: a subclass, as timm's BatchNormAct2d."""

    def forward(self, x):
        return super().forward(x).relu_()


def normalised(norm, functional_relu):
    torch.manual_seed(0)
    relu = [] if functional_relu else [nn.ReLU()]
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), norm(6), *relu, nn.Flatten(), nn.Linear(6 * 10 * 14, 5))
    for parameter in (model[1].weight, model[1].bias, model[1].running_mean):
        nn.init.normal_(parameter)
    nn.init.uniform_(model[1].running_var, 0.5, 2)
    return model.eval()


def test_subclasses_and_in_place_operations_are_read():
    plain, subclass = normalised(nn.BatchNorm2d, False), normalised(NormAct, True)
    maps = FullGrad(plain)(images(), 3)
    np.testing.assert_allclose(FullGrad(subclass)(images(), 3), maps, atol=1e-6)
    without = copy.deepcopy(plain)
    nn.init.zeros_(without[1].running_mean)
    nn.init.zeros_(without[1].bias)
    assert np.abs(FullGrad(without)(images(), 3) - maps).max() > 0.01


def test_input_and_bias_shares_add_up_to_the_score():
    """The completeness of section 3: of a net of ReLUs with all biases, those of the head added."""
    model, x = normalised(nn.BatchNorm2d, False).double(), images().double().requires_grad_()
    watch = BiasGradients(model)
    scores = watch.run(x)[:, 3]
    contributions, (gradient,) = watch.differentiate(scores.sum(), inputs=[x])
    shares = (x * gradient).flatten(1).sum(1)
    for _, (bias, of_bias) in contributions:
        shares = shares + (of_bias.sum((2, 3)) * bias).sum(1)
    torch.testing.assert_close(shares + model[-1].bias[3], scores)


class Skipping(nn.Module):
    """A layer that does not run (as inception_v3's auxiliary head), one that runs twice, a functional one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.auxiliary = nn.Conv2d(3, 3, 1)
        self.shared = nn.Conv2d(3, 3, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))
        self.bias = nn.Parameter(torch.randn(4))
        self.removed = None

    def forward(self, x):
        x = self.shared(self.shared(x).relu())
        return nn.functional.conv2d(x, self.weight, self.bias).relu().mean((2, 3))


def test_biases_are_counted_as_often_as_they_are_added():
    watch, x = BiasGradients(Skipping()), images().requires_grad_()
    contributions, _ = watch.differentiate(watch.run(x)[:, 3].sum(), inputs=[x])
    assert [len(bias) for _, (bias, _) in contributions] == [3, 3, 4]


class AddedApart(nn.Module):
    """Two convolutions, whose biases are theirs, or are added behind them as converted graphs do."""

    def __init__(self, add=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.add = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, padding=1), add
        self.biases = nn.ParameterList([self.first.bias, self.second.bias])
        if add is not None:
            self.first.bias = self.second.bias = None

    def forward(self, x):
        for layer, bias in zip((self.first, self.second), self.biases, strict=True):
            x = layer(x)
            x = (x if self.add is None else self.add(x, bias[:, None, None])).relu()
        return (x + x.mean((2, 3), keepdim=True)).mean((2, 3))  # nobody's bias


class ChannelsLast(nn.Module):
    """A block as ConvNeXt's, its normalisation and its linear layer on (N, H, W, C). add: what adds biases apart."""

    def __init__(self, add=None):
        super().__init__()
        torch.manual_seed(0)
        self.add = add
        self.stem, self.norm, self.linear = nn.Conv2d(3, 6, 2, 2), nn.LayerNorm(6), nn.Linear(6, 8)
        nn.init.normal_(self.norm.bias)
        self.biases = nn.ParameterList([self.norm.bias, self.linear.bias])
        if add is not None:
            self.norm.bias = self.linear.bias = None

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        for layer, bias in zip((self.norm, self.linear), self.biases, strict=True):
            x = layer(x)
            x = (x if self.add is None else self.add(x, bias)).relu()
        return x.mean((1, 2))


def _added_to_second_axis(x, bias):
    return (x.permute(0, 3, 1, 2) + bias[:, None, None]).permute(0, 2, 3, 1)


@pytest.mark.parametrize("align", ["cell", "receptive_field"])
@pytest.mark.parametrize("add", [None, torch.add, lambda x, bias: bias[None, None, None] + x])
def test_biases_of_channels_that_are_the_last_axis(align, add):
    """Of layers, and added apart, as graphs that were converted from TensorFlow do."""
    forms = ChannelsLast(add).eval(), ChannelsLast(_added_to_second_axis).eval()
    found, expected = (FullGrad(form, align=align)(images(), 3) for form in forms)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_biases_of_tokens_are_left_out_and_that_is_told():
    """Not where there are none: a linear layer behind the pooling has features, one on maps has cells."""
    with pytest.warns(CamWarning, match="Transformer adds biases to tokens, which .* leaves out"):
        FullGrad(Transformer())(images(), 3)
    for model in (convolutional(), ChannelsLast().eval()):
        with warnings.catch_warnings():
            warnings.simplefilter("error", CamWarning)
            FullGrad(model)(images(), 3)


def test_biases_of_each_heads_tokens_are_no_map():
    class Heads(nn.Module):
        def __init__(self, apart):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.of_heads = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(4, 5)
            self.bias, self.apart = self.of_heads.bias, apart
            if apart:
                self.of_heads.bias = None

        def forward(self, x):
            tokens = self.conv(x).flatten(2).mT.unflatten(2, (2, 4)).transpose(1, 2)  # (N, 2 heads, 192 tokens, 4)
            of_heads = self.of_heads(tokens)
            return (of_heads + self.bias if self.apart else of_heads).relu().mean((1, 2))

    of_layer, apart = (FullGrad(Heads(apart).eval())(images(), 3) for apart in (False, True))
    np.testing.assert_allclose(of_layer, apart, atol=1e-6)


def test_a_network_without_biases_is_named():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(840, 5)), images()
    with pytest.warns(CamWarning, match="input x gradient alone"):
        maps = FullGrad(model)(x, 3)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 3].sum(), x)
    evidence = (x * gradient).detach().abs().sum(1)
    low, high = evidence.amin((1, 2), keepdim=True), evidence.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(maps, (evidence - low) / (high - low), atol=1e-5)


@pytest.mark.parametrize("align", ["cell", "receptive_field"])
@pytest.mark.parametrize(
    "add", [torch.add, lambda x, bias: bias + x, lambda x, bias: x.add_(bias), lambda x, bias: x + bias[None]]
)
def test_biases_that_are_added_behind_their_layers(add, align):
    found, expected = FullGrad(AddedApart(add), align=align), FullGrad(AddedApart(), align=align)
    np.testing.assert_allclose(found(images(), 3), expected(images(), 3), atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolutions(rank):
    transposed = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[rank]
    torch.manual_seed(0)
    model = nn.Sequential(CONVOLUTIONS[rank](3, 4, 3), nn.ReLU(), transposed(4, 2, 3), nn.ReLU(), nn.Flatten(2))

    def score(output):
        return output.sum()

    maps = FullGrad(model)(images(rank), score)
    model[2].bias.data.zero_()
    assert np.abs(FullGrad(model)(images(rank), score) - maps).max() > 1e-3


def test_given_layers_are_named_as_not_used():
    model = convolutional()
    assert not FullGrad.uses_layers, "the command line finds none for it"
    with pytest.warns(UserWarning, match="biases of all layers"):
        cam = FullGrad(model, [model.last])
    np.testing.assert_array_equal(cam(images(), 3), FullGrad(model, [])(images(), 3))


def test_a_score_that_does_not_reach_the_input():
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach().mean((2, 3))

    with pytest.raises(ValueError, match="no gradient leads from the score to the input"):
        FullGrad(Detached())(images(), 0)


def test_small_gradients_in_half_precision():
    model, x = normalised(nn.BatchNorm2d, False), images()

    def score(output):
        return 1e-3 * output[3]

    expected = FullGrad(model)(x, score)
    assert np.abs(FullGrad(copy.deepcopy(model).half())(x.half(), score) - expected).mean() < 0.05


def test_products_below_half_precision():
    torch.manual_seed(0)
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), *pooled), 1e-4 * images()
    expected = FullGrad(model)(x, 3)
    assert np.abs(FullGrad(copy.deepcopy(model).half())(x.half(), 3) - expected).mean() < 0.01


def test_each_bias_is_registered_where_its_map_looks():
    """A normalisation at its own pixel; behind a kernel of random weights cells of one pixel look beside theirs."""
    normalised, convolved = bias_registrations(Registered("a"), images(count=1))
    assert normalised.shift == (0, 0)
    assert 0.1 < max(map(abs, convolved.shift)) < 0.5


def test_smoothing_takes_another_map_than_the_sum():
    cam, x = FullGrad(Registered("a")), images()
    assert np.abs(cam(x, 3, eigen_smooth=True) - cam(x, 3)).max() > 0.01


class Sided(nn.Module):
    """Normalises by the batch's own statistics; the other head's bias adds nothing to the score."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.side, self.fc = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.Linear(3, 5)
        nn.init.normal_(self.norm.bias)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        norm = self.norm
        means, variances = norm.running_mean.clone(), norm.running_var.clone()
        x = nn.functional.batch_norm(x, means, variances, norm.weight, norm.bias, training=True)
        return self.fc(x.relu().mean((2, 3))), self.side(x)


def test_biases_beside_the_score_and_of_a_batchs_own_statistics():
    model, x = Sided(), images().requires_grad_()
    watch = BiasGradients(model)
    ((_, (bias, _)),), _ = watch.differentiate(watch.run(x)[0].sum(), inputs=[x])
    assert torch.equal(bias, model.norm.bias)


def test_why_a_map_is_blank():
    model, x = convolutional(), images()
    x[0, 0, 0, 0] = torch.nan
    with pytest.warns(CamWarning, match="1 of 2 maps are blank: non-finite values"):
        maps = FullGrad(model)(x, 1)
    assert np.isfinite(maps).all()
    assert not maps[0].any()
    assert maps[1].max() == 1
    model.head.weight.data.zero_()
    with pytest.warns(CamWarning, match="2 of 2 maps are blank: zero gradient"):
        FullGrad(model)(images(), 1)


def test_maps_cannot_be_differentiated():
    with pytest.raises(ValueError, match="FullGrad\\(detach=False\\)"):
        FullGrad(convolutional(), detach=False)


class OtherBiases(nn.Module):
    """Biases of features, of channels as a signal, of windows and of a single sample, behind those of maps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.between = nn.Conv2d(3, 8, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1)
        self.window, self.norm, self.head = nn.Conv2d(8, 8, 1), nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).relu()
        x = x * self.between(x.mean((2, 3))[:, None]).sigmoid().mT[..., None]
        windows = self.window(x.unflatten(2, (2, -1)).movedim(2, 1).flatten(0, 1))
        x = windows.unflatten(0, (len(x), 2)).movedim(1, 2).flatten(2, 3)
        alone = torch.stack([self.window(sample) for sample in x])
        return self.head(self.norm((x + alone).mean((2, 3))))


@pytest.mark.parametrize("align", ["cell", "receptive_field"])
def test_biases_of_what_is_no_map(align):
    maps = FullGrad(OtherBiases().eval(), align=align)(images(), 1)
    assert maps.shape == (2, 12, 16)
    assert maps.max((1, 2)).tolist() == [1, 1]


def test_a_map_with_evidence_needs_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FullGrad(convolutional())(images(), 1).any()


def test_a_graph_that_does_not_begin_at_the_image():
    class Detaches(nn.Module):
        def forward(self, x):
            return x.detach().mean((2, 3)) * torch.ones(3, requires_grad=True)

    with pytest.raises(ValueError, match="no gradient leads from the score to the input"):
        FullGrad(Detaches())(images(), 1)

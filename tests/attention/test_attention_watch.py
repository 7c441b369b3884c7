"""The attention that is computed with its weights is the one that the model computes without."""

import threading

import pytest
import torch
import torch.nn.functional as F
from attentive import DIM, HAS_GROUPS, HEADS, KINDS, Attentive, Windows
from nets import images
from torch import nn

from pytorch_grad_cam.attention.attention_capture import AttentionCapture
from pytorch_grad_cam.attention.attention_watch import AttentionWatch
from pytorch_grad_cam.attention.towers import tower_of
from pytorch_grad_cam.engine.targets import scores_in
from pytorch_grad_cam.engine.undisturbed import undisturbed


def watched(compute):
    seen = []
    with AttentionWatch(lambda weights: weights, seen.append):
        result = compute()
    return result, seen


def qkv(heads=4, groups=4, queries=5, keys=7):
    torch.manual_seed(0)
    shapes = ((2, heads, queries, 6), (2, groups, keys, 6), (2, groups, keys, 3))
    return tuple(torch.randn(shape) for shape in shapes)


CASES = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "mask of bools": {"attn_mask": torch.arange(35).reshape(5, 7) % 3 > 0},
    "mask of numbers": {"attn_mask": torch.linspace(-2, 2, 35).reshape(5, 7)},
    "nothing to see": {"attn_mask": torch.ones(5, 7, dtype=torch.bool).tril(-1)},
}


@pytest.mark.parametrize("name", CASES)
def test_fused_attention(name):
    query, key, value = qkv()
    compute = lambda: F.scaled_dot_product_attention(query, key, value, **CASES[name])  # noqa: E731
    found, seen = watched(compute)
    expected = compute().nan_to_num()  # before torch 2.5 NaN where there is nothing to see
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    (attention,) = seen
    torch.testing.assert_close(attention.weights @ value, found)
    sums = attention.weights.sum(-1)
    assert ((sums - 1).abs() < 1e-5)[sums > 0].all()


@pytest.mark.skipif(not HAS_GROUPS, reason="the fused operation knows no groups before torch 2.5")
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_heads(groups):
    query, key, value = qkv(groups=groups)
    compute = lambda: F.scaled_dot_product_attention(query, key, value, enable_gqa=True)  # noqa: E731
    found, seen = watched(compute)
    torch.testing.assert_close(found, compute(), atol=1e-5, rtol=0)
    assert seen[0].weights.shape == (2, 4, 5, 7)
    assert seen[0].key.shape == (2, 4, 7, 6)


def test_gradients_of_queries_that_see_nothing():
    query, key, value = (part.requires_grad_() for part in qkv())
    found, _ = watched(lambda: F.scaled_dot_product_attention(query, key, value, **CASES["nothing to see"]))
    found.sum().backward()
    for part in (query, key, value):
        assert part.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    query, key, value = (part.to(dtype) for part in qkv())
    compute = lambda: F.scaled_dot_product_attention(query, key, value)  # noqa: E731
    found, _ = watched(compute)
    assert found.dtype == dtype
    torch.testing.assert_close(found, compute(), atol=4 * torch.finfo(dtype).eps, rtol=0.02)


def test_dropout_in_the_fused_operation():
    query, key, value = qkv()
    ones = torch.ones_like(value)
    found, _ = watched(lambda: F.scaled_dot_product_attention(query, key, ones, dropout_p=0.5))
    assert found.std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_models(kind):
    model, x = Attentive(kind), images()
    with torch.no_grad():
        expected = model(x)
        found, seen = watched(lambda: model(x))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(seen) == (3 * HEADS if kind == "one by one" else 3)
    parts = [None if part is None else part.shape[-2:] for part in seen[0]]
    assert parts == [(13, 13), (13, 13), (13, 4), (13, 4), (13, 4), (13, 4)]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_module_with_masks(batch_first, need_weights):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(DIM, 2, batch_first=batch_first, kdim=6, vdim=5, add_zero_attn=True).eval()
    query, key, value = torch.randn(3, 4, DIM), torch.randn(3, 5, 6), torch.randn(3, 5, 5)
    parts = (query, key, value) if batch_first else tuple(part.transpose(0, 1) for part in (query, key, value))
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    compute = lambda: module(*parts, key_padding_mask=padding, need_weights=need_weights)  # noqa: E731
    (found, weights), seen = watched(compute)
    torch.testing.assert_close(found, compute()[0], atol=1e-5, rtol=0)
    assert (weights is None) != need_weights
    assert seen[0].weights.shape[-2:] == (4, 6)


def test_encoder_layer_of_pytorch_leaves_its_fast_path():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(DIM, 2, batch_first=True).eval()
    x = torch.randn(2, 5, DIM)
    with torch.no_grad():
        found, seen = watched(lambda: layer(x))
        torch.testing.assert_close(found, layer(x), atol=1e-5, rtol=0)
    assert len(seen) == 1


def test_a_softmax_that_weighs_no_values():
    logits = torch.randn(2, 3, 4)
    _, seen = watched(lambda: logits.softmax(-1) * 2)
    _, of_other_axes = watched(lambda: logits.softmax(1).mT @ logits)
    assert not seen
    assert not of_other_axes


def test_heads_that_are_mixed():
    """Talking heads: between the softmax and the values a linear layer mixes the heads."""
    query, key, value = qkv()
    mix = nn.Linear(4, 4)

    def compute():
        weights = (query @ key.mT).softmax(-1)
        return mix(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ value

    found, seen = watched(compute)
    torch.testing.assert_close(found, compute())
    torch.testing.assert_close(seen[0].weights, (query @ key.mT).softmax(-1))


@pytest.mark.parametrize("combine", [lambda a, b: a - 0.3 * b, lambda a, b: b * -0.3 + a, lambda a, b: a.sub_(b * 0.3)])
def test_a_difference_of_two_softmaxes_is_no_attention(combine):
    """Differential attention: what weighs the values is not the one of them, nor the other."""
    query, key, value = qkv()
    compute = lambda: combine((query @ key.mT).softmax(-1), (-query @ key.mT).softmax(-1)) @ value  # noqa: E731
    found, seen = watched(compute)
    torch.testing.assert_close(found, compute())
    assert not seen


def test_two_attentions_on_the_same_values_are_no_heads_of_one():
    """Differential attention as fused operations compute it: the difference of what two attentions give."""

    class Differential(Attentive):
        def __init__(self):
            super().__init__("fused")
            for block in self.blocks:
                block.attend = self.attend

        def attend(self, tokens, offset, shown):
            value = tokens.unflatten(2, (HEADS, -1)).transpose(1, 2)
            first, second = (F.scaled_dot_product_attention(query, value, value) for query in (value, -value))
            return (first - 0.3 * second).transpose(1, 2).flatten(2)

    with pytest.raises(ValueError, match="none of the 6 attentions"):
        tower_of(Differential(), images(), None, scores_in)


@pytest.mark.parametrize("is_among_channels", [True, False])
def test_attention_among_as_many_channels_as_there_are_tokens(is_among_channels):
    """XCiT's, at the size of the image at which only what a token reads tells them apart."""

    class Crossed(Attentive):
        def __init__(self):
            super().__init__("fused", pool="mean")
            for block in self.blocks:
                block.attend = self.attend

        def tokens(self, x):
            return self.patch(x).flatten(2).mT

        def attend(self, tokens, offset, shown):
            heads = tokens.unflatten(2, (HEADS, -1)).transpose(1, 2)
            heads = heads.mT if is_among_channels else heads
            given = F.scaled_dot_product_attention(heads, heads + 1, heads)
            return (given.mT if is_among_channels else given).transpose(1, 2).flatten(2)

    model, x = Crossed(), images()[:, :, :8, :8].contiguous()
    assert model.tokens(x).shape[1] == DIM // HEADS
    if is_among_channels:
        with pytest.raises(ValueError, match="none of the 3 attentions"):
            tower_of(model, x, None, scores_in)
    else:
        assert tower_of(model, x, None, scores_in).blocks == list(model.blocks)


def captured(model, x, blocks=()):
    with undisturbed(model):
        tower = tower_of(model, x, None, scores_in, blocks)
        with AttentionCapture(model, tower, gradients=True) as capture:
            outputs = capture.run(x)
            gradients, _ = capture.differentiate(outputs[:, 3].sum())
    return capture, outputs, gradients


def test_only_the_chosen_blocks_are_touched():
    model, x = Attentive("fused"), images()
    _, outputs, gradients = captured(model, x, [model.blocks[1]])
    assert len(gradients) == 1
    torch.testing.assert_close(outputs, model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_eager_code(kind):
    if kind == "grouped":
        pytest.skip("another model: its heads share keys")
    *_, expected = captured(Attentive(), images())
    *_, found = captured(Attentive(kind), images())
    if kind == "one by one":
        found = [torch.stack(found[place : place + HEADS], dim=1) for place in range(0, len(found), HEADS)]
    for gradient, of_eager in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.reshape(of_eager.shape).to(of_eager.dtype), of_eager, atol=1e-5, rtol=1e-4)


def test_other_threads_are_untouched():
    """A forward in another thread, while this one captures, is fused and without graph."""
    model, x, kinds = Attentive("fused"), images(), []
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait(30)
        with torch.no_grad():
            kinds.append(model(x).requires_grad)
        seen.append(len(capture.attentions))
        done.set()

    def wait(module, args):
        if threading.current_thread() is threading.main_thread():
            inside.set()
            done.wait(30)

    seen = []
    with undisturbed(model):
        tower = tower_of(model, x, None, scores_in)
        handle = model.blocks[1].register_forward_pre_hook(wait)
        thread = threading.Thread(target=other)
        thread.start()
        with AttentionCapture(model, tower, gradients=True) as capture:
            capture.run(x)
        thread.join()
        handle.remove()
    assert kinds == [False]
    assert seen == [1]
    assert len(capture.attentions) == 3


def test_blocks_that_are_found():
    model = Attentive("module")
    with undisturbed(model):
        tower = tower_of(model, images(), None, scores_in)
    assert tower.blocks == list(model.blocks)
    assert tower.reads.tolist() == [True] + [False] * 12
    assert str(tower.layout) == "NTC, grid 3 x 4 behind 1 extra tokens"
    assert tower.is_whole


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_places_of_windows(size):
    """Shifted by a cell and filled up: counted by hand from how the windows are cut."""
    model = Windows()
    rows, columns = size[0] // 4, size[1] // 4
    tower = tower_of(model, torch.randn(2, 3, *size), None, scores_in)
    for number, shift in enumerate((0, 1)):
        numbers = torch.full((rows + rows % 2, columns + columns % 2), -1)
        numbers[:rows, :columns] = torch.arange(rows * columns).reshape(rows, columns)
        rolled = numbers.roll((-shift, -shift), (0, 1))
        windows = [
            rolled[row : row + 2, column : column + 2].flatten().tolist()
            for row in range(0, rolled.shape[0], 2)
            for column in range(0, rolled.shape[1], 2)
        ]
        found = tower.places[model.blocks[number], 0]
        assert found.tokens.tolist() == windows
        of_windows = torch.arange(2.0 * len(windows) * 4).reshape(-1, 4)
        back = found.put_back(of_windows, rows * columns)
        for window, tokens in enumerate(windows):
            for place, token in enumerate(tokens):
                if token >= 0:
                    assert back[0, token] == of_windows[window, place]
                    assert back[1, token] == of_windows[len(windows) + window, place]

"""The backward pass that leaves rows of zeros out gives what the whole one gives."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from nets import Transformer, convolutional, images
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.engine.torch_quirks.zero_rows import SkipZeroRows

TOKENS, WIDTH = 101, 12


class Block(nn.Module):
    """One transformer block behind `norm`, and a head that reads the class token or the mean of all tokens."""

    def __init__(self, reads: str, is_causal: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.reads, self.is_causal = reads, is_causal
        self.embed, self.norm = nn.Linear(3, WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x)
        query, key, value = self.qkv(self.norm(tokens)).unflatten(2, (3, 3, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        tokens = tokens + self.proj(attended.transpose(1, 2).flatten(2))
        tokens = tokens + self.mlp(tokens)
        return self.head(tokens[:, 0] if self.reads == "token" else tokens.mean(1))


class RowsDifferentiated(TorchDispatchMode):
    """How many rows the products of the backward pass have."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Counter = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name() in ("aten::mm", "aten::matmul", "torchvision::_roi_align_backward"):
            self.rows[len(args[0])] += 1
        return function(*args, **(kwargs or {}))


def gradient(model: Block, mode) -> torch.Tensor:
    kept = []
    handle = model.norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = model(torch.randn(2, TOKENS, 3, generator=torch.Generator().manual_seed(1)))[:, 1].sum()
    handle.remove()
    with mode:
        return torch.autograd.grad(score, kept[0])[0]


@pytest.mark.parametrize("reads", ["token", "mean"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_gradient_is_that_of_the_whole_backward(reads, is_causal, dtype):
    model = Block(reads, is_causal).to(dtype)
    torch.set_default_dtype(dtype)
    try:
        expected, found = gradient(model, torch.enable_grad()), gradient(model, SkipZeroRows())
    finally:
        torch.set_default_dtype(torch.float32)
    scale = expected.abs().max()
    assert scale > 0
    tolerance = 2 * torch.finfo(dtype).eps if dtype is not torch.bfloat16 else 0.02
    assert (found - expected).abs().max() <= 4 * tolerance * scale


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_of_which_a_part_of_a_row_is_read(is_causal):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 3, TOKENS, 64, generator=generator).requires_grad_() for _ in range(3)]
    score = F.scaled_dot_product_attention(*tensors, is_causal=is_causal)[:, :, 50, :16].sum()
    expected = torch.autograd.grad(score, tensors, retain_graph=True)
    with SkipZeroRows():
        torch.testing.assert_close(torch.autograd.grad(score, tensors), expected)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_either_gelu(approximate):
    x = torch.randn(TOKENS, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    score = F.gelu(x, approximate=approximate)[7].sum()
    (expected,) = torch.autograd.grad(score, x, retain_graph=True)
    with SkipZeroRows():
        assert torch.equal(torch.autograd.grad(score, x)[0], expected)


def test_regions_of_which_one_is_read():
    roi_align = pytest.importorskip("torchvision.ops").roi_align
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 16, 16, generator=generator).requires_grad_()
    corners = 8 * torch.rand(100, 2, generator=generator)
    regions = torch.cat([torch.arange(100.0)[:, None] % 2, corners, corners + 4], dim=1)
    score, found = roi_align(x, regions, 3)[7].square().sum(), RowsDifferentiated()
    (expected,) = torch.autograd.grad(score, x, retain_graph=True)
    with found, SkipZeroRows():
        torch.testing.assert_close(torch.autograd.grad(score, x)[0], expected)
    assert found.rows == {1: 1}


def test_products_behind_a_class_token_have_one_row_an_image():
    all_rows, few_rows = RowsDifferentiated(), RowsDifferentiated()
    gradient(Block("token"), all_rows)
    with few_rows:  # below the mode: it sees what that computes
        gradient(Block("token"), SkipZeroRows())
    assert all_rows.rows == {2 * TOKENS: 4, 2: 1}
    assert few_rows.rows == {2 * TOKENS: 1, 2: 4}, "all but the projection to queries, keys and values"


def test_methods_use_it(monkeypatch):
    used = []
    monkeypatch.setattr(SkipZeroRows, "__enter__", lambda self: used.append(self))
    monkeypatch.setattr(SkipZeroRows, "__exit__", lambda self, *_: None)
    with GradCAM(convolutional(), "last") as cam:
        cam(images(), 0)
    assert not used, "behind maps there is nothing to leave out"
    with GradCAM(Transformer(), "norm") as cam:
        cam(images(count=2), 0)
        assert not used, "of 26 tokens it would not pay"
        cam(images(count=8), 0)
    assert used


class SampleBySample(nn.Module):
    """Behind the tokens of `embed` a product with a sparse matrix, and a head that sees one sample at a time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 5)
        self.mixing = torch.eye(TOKENS).to_sparse()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.stack([torch.sparse.mm(self.mixing, sample) for sample in self.embed(x.mT)])
        return torch.stack([self.head(F.gelu(sample)) for sample in tokens.mean(1)])


def test_operations_on_one_sample_and_on_sparse_matrices():
    model, x = SampleBySample().eval(), torch.randn(2, 3, TOKENS)
    assert GradCAM(model, "embed")(x, 1).any()

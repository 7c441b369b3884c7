"""Small seeded networks of every spatial rank, and pieces that real models are made of."""

import threading
from collections.abc import Callable

import torch
from torch import nn

CLASSES = 5
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLINGS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
SIZES = {1: (24,), 2: (12, 16), 3: (6, 8, 10)}


def convolutional(rank: int = 2, in_place: bool = False, nonlinearity: type = nn.ReLU, seed: int = 4) -> nn.Sequential:
    """Two convolutions with stride 2, a rectifier behind each (`first`, `last`), and a head of two linear layers."""
    torch.manual_seed(seed)
    convolution = CONVOLUTIONS[rank]
    rectifier = (lambda: nn.ReLU(in_place)) if nonlinearity is nn.ReLU else nonlinearity
    net = nn.Sequential()
    net.add_module("stem", convolution(3, 6, 3, stride=2, padding=1))
    net.add_module("first", rectifier())
    net.add_module("conv", convolution(6, 8, 3, padding=1))
    net.add_module("last", rectifier())
    net.add_module("pool", POOLINGS[rank](2))
    net.add_module("flatten", nn.Flatten())
    net.add_module("hidden", nn.Linear(8 * 2**rank, 16))
    net.add_module("tanh", nn.Tanh())
    net.add_module("head", nn.Linear(16, CLASSES))
    return net.eval()


def images(rank: int = 2, count: int = 2, seed: int = 1) -> torch.Tensor:
    """Inputs for `convolutional`: (count, 3, *spatial)."""
    torch.manual_seed(seed)
    return torch.randn(count, 3, *SIZES[rank])


class Residual(nn.Module):
    """x + f(x), token by token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(x)


class Transformer(nn.Module):
    """A class-token transformer of one attention block: `norm` gives tokens (N, 1 + 3 * 4, 8) for (N, 3, 12, 16)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.before = Residual(8)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.after = Residual(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.before(tokens)
        normed = self.norm(tokens)
        tokens = self.after(tokens + self.attention(normed, normed, normed, need_weights=False)[0])
        return self.head(tokens[:, 0])


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Run work(0) ... work(count - 1), each in a thread of its own, at the same time."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def state_of(model: nn.Module) -> list:
    """Everything about a model that a call must not change."""
    return [
        (
            name,
            id(module),
            module.training,
            dict(module._forward_hooks),
            dict(module._forward_pre_hooks),
            dict(module._backward_hooks),
            sorted(vars(module)),
            {key: id(child) for key, child in module._modules.items()},
            {
                key: (id(p), p.requires_grad, p.grad, p._version)
                for key, p in module._parameters.items()
                if p is not None
            },
            {key: (id(b), b._version) for key, b in module._buffers.items() if b is not None},
        )
        for name, module in model.named_modules()
    ]


class Remembering(nn.Module):
    """Factors by position behind a convolution, gathered from a parameter and in evaluation mode kept until `train` or
    `eval` is called, as attention biases are in LeViT and TinyViT.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, CLASSES)
        self.factors = nn.Parameter(torch.randn(12))
        self.cache: dict[str, torch.Tensor] = {}
        self.eval()

    def train(self, mode: bool = True) -> "Remembering":
        self.cache = {}
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            factors = self.factors.reshape(3, 4)
        else:
            factors = self.cache.setdefault(str(x.device), self.factors.reshape(3, 4))
        return self.head((self.stem(x) * factors).mean((2, 3)))

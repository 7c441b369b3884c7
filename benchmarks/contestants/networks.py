"""The seeded work that every library gets: networks, layers, images, the classes asked about."""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn


class Network(NamedTuple):
    """A network with random weights, and layers that every library can take.

    layers: dotted names, the last one first; their outputs are (N, C, *spatial), or `as_map` makes them so.
    channels: of the first of them.
    """

    build: Callable[[], nn.Module]
    layers: list[str]
    channels: int
    size: tuple[int, ...] = (224, 224)
    as_map: Callable[[torch.Tensor], torch.Tensor] | None = None


def patches_as_map(tokens: torch.Tensor) -> torch.Tensor:
    """(N, 1 + 14 * 14, C) to (N, C, 14, 14)."""
    return tokens[:, 1:].mT.unflatten(2, (14, 14))


def _torchvision(name: str, **options: object) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, **options)


def _vit_small() -> nn.Module:
    import timm

    return timm.create_model("vit_small_patch16_224")


def _digits() -> nn.Module:
    """The demo network; its file is loaded by its path, because a peer's environment has no such package."""
    file = Path(__file__).parents[2] / "pytorch_grad_cam/demo/network.py"
    specification = importlib.util.spec_from_file_location("network", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.load_digits_net()


def plain(channels: int) -> nn.Module:
    """Seven convolutions with a stride of 16 in all; each of the last five, `layers`, has so many channels."""
    stem = nn.Sequential(nn.Conv2d(3, 32, 5, 4, 2), nn.ReLU(), nn.Conv2d(32, 64, 5, 4, 2), nn.ReLU())
    widths = [64] + 5 * [channels]
    layers = [nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU()) for i, o in pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(OrderedDict(stem=stem, layers=nn.Sequential(*layers), head=nn.Sequential(*head)))


RACED = {
    "ResNet-50": Network(
        partial(_torchvision, "resnet50"), ["layer4", "layer3", "layer4.1", "layer3.4", "layer2"], channels=2048
    ),
    "VGG-16": Network(partial(_torchvision, "vgg16"), ["features", "features.22"], channels=512),
    "ViT-S": Network(_vit_small, ["blocks.11.norm1", "blocks.10.norm1"], channels=384, as_map=patches_as_map),
    "Swin-T": Network(partial(_torchvision, "swin_t"), ["permute", "permute"], channels=768),
    "ConvNeXt-T": Network(partial(_torchvision, "convnext_tiny"), ["features", "features.6"], channels=768),
    "R3D-18": Network(partial(_torchvision, "r3d_18"), ["layer4", "layer3"], channels=512, size=(8, 112, 112)),
}
COMPARED = {
    "digits": Network(_digits, ["layer4", "layer3"], channels=128, size=(64, 64)),
    "ResNet-18": Network(partial(_torchvision, "resnet18"), ["layer4"], channels=512, size=(96, 128)),
    "VGG-11": Network(partial(_torchvision, "vgg11"), ["features"], channels=512, size=(96, 128)),
    "ConvNeXt-T": Network(partial(_torchvision, "convnext_tiny"), ["features"], channels=768, size=(96, 128)),
    "Swin-T": Network(partial(_torchvision, "swin_t"), ["permute"], channels=768, size=(96, 128)),
}
GROWING_LAYERS = 5


def compared(name: str) -> Network:
    """One of the compared networks, or a trained one of `benchmarks.real`."""
    if name in COMPARED:
        return COMPARED[name]
    sys.path.append(str(Path(__file__).parents[2]))  # behind the peer's own packages
    from benchmarks.real.networks import NETWORKS

    found = NETWORKS[name]()
    layers = [found.last, *found.named[-1:]]
    return Network(lambda: found.model, layers, 0, (found.size, found.size), found.as_map)


def growing(channels: int, size: int) -> Network:
    names = [f"layers.{index}" for index in reversed(range(GROWING_LAYERS))]
    return Network(partial(plain, channels), names, channels, (size, size))


class Work(NamedTuple):
    """A network in evaluation mode, images and the class that each is asked about: its highest one."""

    network: Network
    model: nn.Module
    images: torch.Tensor
    categories: list[int]


def work(network: Network, images: torch.Tensor | int, categories: list[int] | None = None) -> Work:
    """images: themselves or how many random ones."""
    torch.manual_seed(0)
    model = network.build().eval()
    if isinstance(images, int):
        images = torch.randn(images, 3, *network.size, generator=torch.Generator().manual_seed(1))
    if categories is None:
        with torch.inference_mode():
            categories = model(images).argmax(1).tolist()
    return Work(network, model, images, categories)


def work_from(network: Network, file: str) -> Work:
    """The images and categories of an .npz file."""
    with np.load(file) as arrays:
        return work(network, torch.from_numpy(arrays["images"]), arrays["categories"].tolist())

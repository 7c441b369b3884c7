"""Grad-CAM by hooks and autograd alone, nothing of the library: what a map at a layer has to be."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def grad_cam(
    model: nn.Module,
    layer: nn.Module,
    inputs: Any,
    score: Callable[[Any], torch.Tensor],
    size: tuple[int, ...],
    as_map: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> np.ndarray:
    """The maps (N, *size) of a score at a layer, from 0 to 1.

    inputs: a tuple of arguments, a dict, or the only argument. score: from the model's output to one number, the sum
    over the samples. as_map: from what the layer returns to (N, C, *grid).
    """
    return scaled(enlarged(model, layer, inputs, score, size, as_map)).numpy()


def joined_grad_cam(
    model: nn.Module,
    layers: list[nn.Module],
    inputs: Any,
    score: Callable[[Any], torch.Tensor],
    size: tuple[int, ...],
) -> np.ndarray:
    """The highest value of the maps at several layers, from 0 to 1."""
    maps = [enlarged(model, layer, inputs, score, size) for layer in layers]
    return scaled(torch.stack(maps).amax(0)).numpy()


def enlarged(
    model: nn.Module,
    layer: nn.Module,
    inputs: Any,
    score: Callable[[Any], torch.Tensor],
    size: tuple[int, ...],
    as_map: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> torch.Tensor:
    """The maps of a layer scaled cell by cell, then drawn at the image's size."""
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    outputs = apply(model, inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(score(outputs), kept[0])
    activations, gradient = as_map(kept[0].detach()).float(), as_map(gradient).float()
    weights = gradient.flatten(2).mean(2).reshape(*gradient.shape[:2], *[1] * len(size))
    signed = (weights * activations).sum(1).relu()
    return F.interpolate(scaled(signed)[:, None], size=size, mode=MODES[len(size)])[:, 0]


def apply(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Each map from 0 to 1; a constant one zeros."""
    maps = maps - maps.flatten(1).amin(1).reshape(-1, *[1] * (maps.ndim - 1))
    highest = maps.flatten(1).amax(1).reshape(-1, *[1] * (maps.ndim - 1))
    return maps / highest.masked_fill(highest == 0, 1)

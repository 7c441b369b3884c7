"""How far a position of a layer's map, or of a segmentation, sees in what the model is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, on_device_of, with_image
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Outputs

_SEEN = 0.99  # of the gradient: behind it lie the corners of the kernels, which say next to nothing


def reach_of(
    model: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Inputs,
    spatial_from: SpatialFrom,
    as_map: Callable[[nn.Module, Any, torch.Tensor, Inputs], Callable[[Any], torch.Tensor]],
    scores_in: Callable[[Any], Any],
) -> list[int]:
    """How many positions of the image, to each side, a cell in the middle sees, in whole cells; one number for each
    axis, 0 where no gradient says it.

    That is where 99 % of its gradient with respect to the image lie; the most of the layers' maps and of scores
    (1, C, *spatial), of a segmentation. No more than half of the image can be seen here.
    inputs: of one image. as_map: from a layer, its output, the image and the inputs to what reads outputs as
    (1, C, *grid).
    Cost: one forward, and a backward of the whole model for each of the maps.
    """
    inputs = on_device_of(model, inputs)
    image = image_of(inputs, spatial_from).detach().clone().requires_grad_()
    with undisturbed(model), torch.enable_grad(), Outputs(layers) as outputs:
        scores = scores_in(call(model, with_image(inputs, image, spatial_from)))
        runs = list(zip(layers, outputs.kept, strict=False))
        maps = [as_map(layer, output, image, inputs)(output) for layer, output in runs]
        if isinstance(scores, torch.Tensor) and scores.ndim == image.ndim:
            maps.append(scores)
        reaches = [_reach(each, image) for each in maps if each.requires_grad]
    return [max(of_axis, default=0) for of_axis in zip([0] * (image.ndim - 2), *reaches, strict=True)]


def _reach(maps: torch.Tensor, image: torch.Tensor) -> list[int]:
    """Of the middle of maps (1, C, *grid), for each axis."""
    middle = [cells // 2 for cells in maps.shape[2:]]
    of_cell = maps[(Ellipsis, *middle)]  # type: ignore[index]
    (gradient,) = torch.autograd.grad(of_cell.sum(), image, retain_graph=True)
    strength = gradient[0].abs().double().sum(0)
    return [
        _along(strength.movedim(axis, 0).flatten(1).sum(1) if strength.ndim > 1 else strength, cell, cells)
        for axis, (cell, cells) in enumerate(zip(middle, maps.shape[2:], strict=True))
    ]


def _along(strength: torch.Tensor, cell: int, cells: int) -> int:
    """How far from a cell, of so many, lie 99 % of strengths (length,), in whole cells."""
    step = len(strength) / cells
    distances, order = (torch.arange(len(strength)) - (cell + 0.5) * step + 0.5).abs().sort()
    within = strength.cpu()[order].cumsum(0)
    if within[-1] == 0:
        return 0
    return round(math.ceil(distances[within >= _SEEN * within[-1]][0] / step) * step)

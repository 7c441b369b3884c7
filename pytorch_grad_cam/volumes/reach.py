"""How far a position of a layer's map, or of a segmentation, sees in what the model is shown, and in which steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import conv, pooling

from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, on_device_of, with_image
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Arguments, Outputs, Watch

_SEEN = 0.95  # of the gradient: of trained networks maps were within 0.03 then, and within 0.2 with 0.9
_NEARLY_ALL = 0.999  # where so much reaches the border, what is seen is all there is, as by attention and normalisation
_STRIDED = (conv._ConvNd, pooling._MaxPoolNd, pooling._AvgPoolNd)


class Reach(NamedTuple):
    """For each axis how many positions of the image, to each side, are seen by the cells between which a position is
    interpolated, 0 where no gradient says it; and the stride of the network's coarsest map.
    """

    far: tuple[int, ...]
    strides: tuple[int, ...]


def reach_of(
    model: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Inputs,
    spatial_from: SpatialFrom,
    as_map: Callable[[nn.Module, Any, torch.Tensor, Inputs], Callable[[Any], torch.Tensor]],
    scores_in: Callable[[Any], Any],
) -> Reach:
    """How far a cell in the middle sees.

    That is where 95 % of its gradient with respect to the image lie, the most of the layers' maps. Of a segmentation,
    scores (1, C, *spatial), it is how far scores see, and as far beside a cell as scores read it: its gradient depends
    on what they see. Half of the image, and more than that, where all of it is seen.
    inputs: of one image. as_map: from a layer, its output, the image and the inputs to what reads outputs as
    (1, C, *grid).
    Cost: one forward, and a backward of the whole model for each of the maps; of a segmentation one for the scores and
    one to each of the layers.
    """
    inputs = on_device_of(model, inputs)
    image = image_of(inputs, spatial_from).detach().clone().requires_grad_()
    size = image.shape[2:]
    with undisturbed(model), torch.enable_grad(), Outputs(layers) as outputs, _Strides(model, size) as strides:
        scores = scores_in(call(model, with_image(inputs, image, spatial_from)))
        runs = list(zip(layers, outputs.kept, strict=False))
        readers = [as_map(layer, output, image, inputs) for layer, output in runs]
        maps = [read(output) for read, (_, output) in zip(readers, runs, strict=True)]
        reaches = [_reach(each, _strength(each, image)) for each in maps if each.requires_grad]
        if isinstance(scores, torch.Tensor) and scores.ndim == image.ndim and scores.requires_grad:
            of_scores = _reach(scores, _strength(scores, image))
            for read, (_, output) in zip(readers, runs, strict=True):
                beside = [0] * len(size)
                if isinstance(output, torch.Tensor) and output.requires_grad:
                    read_cells = F.interpolate(_strength(scores, output, read)[None, None], tuple(size))[0, 0]
                    beside = _reach(scores, read_cells)
                reaches.append([sum(both) for both in zip(of_scores, beside, strict=True)])
    far = (max(of_axis) for of_axis in zip([0] * len(size), *reaches, strict=True))
    return Reach(tuple(far), tuple(strides.of_axes))


class _Strides(Watch):
    """The largest steps of the convolutions' and poolings' grids over an image of a size: `of_axes`."""

    def __init__(self, model: nn.Module, size: Sequence[int]) -> None:
        super().__init__([module for module in model.modules() if isinstance(module, _STRIDED)])
        self._size, self.of_axes = size, [1] * len(size)

    def seen(self, module: nn.Module, inputs: Arguments, output: torch.Tensor) -> None:
        grid = output.shape[2:]
        if len(grid) == len(self._size) and min(grid) > 1:  # a pooling over everything has no step
            axes = zip(self.of_axes, self._size, grid, strict=True)
            self.of_axes = [max(stride, round(length / cells)) for stride, length, cells in axes]


def _strength(
    maps: torch.Tensor, source: torch.Tensor, read: Callable[[Any], torch.Tensor] = lambda tensor: tensor
) -> torch.Tensor:
    """How strongly the middle of maps (1, C, *grid) depends on each position of what they are made of, (*spatial) as it
    is read.
    """
    middle = [cells // 2 for cells in maps.shape[2:]]
    of_cell = maps[(Ellipsis, *middle)]  # type: ignore[index]
    (gradient,) = torch.autograd.grad(of_cell.sum(), source, retain_graph=True, materialize_grads=True)
    return read(gradient)[0].abs().double().sum(0)


def _reach(maps: torch.Tensor, strength: torch.Tensor) -> list[int]:
    """Of the middle of maps (1, C, *grid) with strengths (*size), for each axis."""
    return [
        _along(strength.movedim(axis, 0).flatten(1).sum(1) if strength.ndim > 1 else strength, cells // 2, cells)
        for axis, cells in enumerate(maps.shape[2:])
    ]


def _along(strength: torch.Tensor, cell: int, cells: int) -> int:
    """How far from a position lie 95 % of the strengths (length,) of a cell, of so many, that it is interpolated of."""
    length = len(strength)
    step = length / cells
    distances, order = (torch.arange(length) - (cell + 0.5) * step + 0.5).abs().sort()
    within = strength.cpu()[order].cumsum(0)
    if within[-1] == 0:
        return 0
    near, far = (float(distances[within >= share * within[-1]][0]) for share in (_SEEN, _NEARLY_ALL))
    sees_all = far >= (length - 1) / 2
    return math.ceil((length / 2 if sees_all else near) + step - 1)

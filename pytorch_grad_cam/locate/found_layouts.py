"""How the outputs of layers hold their maps, settled at the first call with an image of a new size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom
from pytorch_grad_cam.engine.layouts import Layout, channels_first, grid_of_proportions, is_even_map, layouts_of
from pytorch_grad_cam.engine.trees import AsMap, first_tensor, floating_tensors
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.locate.runs_of_image import runs_of_other_inputs
from pytorch_grad_cam.locate.search import layout_of

Size = tuple[int, ...]
_TOKENS_NDIM = 3


class FoundLayouts:
    """How the outputs of layers hold their maps. unchecked: the layers whose place is still to be checked.

    of_other_inputs: runs of layers that read other inputs than the image, see `runs_of_image`.
    """

    def __init__(self, model: nn.Module, spatial_from: SpatialFrom) -> None:
        self.model, self.spatial_from = model, spatial_from
        self._readers: dict[tuple[nn.Module, Size, Size], AsMap] = {}
        self._searched: dict[tuple[nn.Module, Size], Layout] = {}
        self._fitting: set[tuple[nn.Module, Size, Size]] = set()
        self._seen: set[tuple[nn.Module, Size]] = set()
        self.unchecked: set[nn.Module] = set()
        self.of_other_inputs: set[tuple[nn.Module, int]] = set()

    def begin(self, inputs: Inputs, place: SpatialFrom) -> None:
        """Where the image is, known from now on."""
        self.spatial_from = place
        self.of_other_inputs = runs_of_other_inputs(self.model, inputs, place)

    def keep(self, location: Location, size: Size) -> None:
        """Keep what a search has found for images of this size."""
        for each in (location, *location.others):
            self._searched[each.layer, size] = each.layout

    def as_map(self, layer: nn.Module, output: Any, image: torch.Tensor, inputs: Inputs) -> AsMap:
        """From what the layer returned to a map (N, C, *grid).

        What has as many axes as the image, and one stride along all of them in one order of axes alone, is read so.
        Of maps of several sizes the first is read, with a CamWarning. Cost: for anything else than these, of a new
        size, two forwards of two samples. Raises ValueError where nothing fits, see `locate.layout_of`.
        """
        case = layer, first_tensor(output).shape, image.shape
        if case not in self._readers:
            layout = self._layout(layer, output, image.shape, inputs)
            self._check_later(layer, tuple(image.shape[2:]))
            self._readers[case] = first_tensor if layout == channels_first(case[1]) else layout.of_output
        return self._readers[case]

    def _layout(self, layer: nn.Module, output: Any, of_image: Size, inputs: Inputs) -> Layout:
        size, shape = tuple(of_image[2:]), first_tensor(output).shape
        if (layer, size) in self._searched:
            return self._searched[layer, size]
        _warn_of_levels(layer, [tuple(tensor.shape) for tensor in floating_tensors(output)], of_image)
        readings = layouts_of(shape, of_image[0], size, set())
        if len(shape) == len(of_image) and (not readings or is_even_map(readings, size)):
            return readings[0] if readings else channels_first(shape)
        return layout_of(self.model, inputs, layer, self.spatial_from)

    def _check_later(self, layer: nn.Module, size: Size) -> None:
        if (layer, size) not in self._seen:
            self._seen.add((layer, size))
            self.unchecked.add(layer)

    def check_transform(self, layer: nn.Module, output: Any, maps: Size, image_size: Size) -> None:
        """Warn where what a given reshape_transform made of an output cannot be its map, see `_warn_of_transform`."""
        case = layer, maps[1:], image_size
        if case not in self._fitting and not _warn_of_transform(output, maps, image_size):
            self._fitting.add(case)
            self._check_later(layer, image_size)


def _warn_of_levels(layer: nn.Module, shapes: Sequence[Size], of_image: Size) -> None:
    """Warn where a layer returns maps of several sizes, as the levels of a pyramid, of which only the first is read."""
    grids = [shape[2:] for shape in shapes if len(shape) == len(of_image) and shape[0] == of_image[0]]
    if len(grids) == len(shapes) and len({*grids}) > 1:
        listed = ", ".join(" x ".join(map(str, grid)) for grid in grids)
        levels = f"{type(layer).__name__} returns {len(grids)} maps, of {listed} cells, of which the first is explained"
        issue(
            CamWarning(
                f"{levels}: for all, name the modules that make them as target_layers, or none to have them found"
            )
        )


def _warn_of_transform(output: Any, maps: Sequence[int], image_size: Sequence[int]) -> bool:
    """Warn where a given reshape_transform gives maps (N, C, *grid) of cells that are not square, and square ones would
    fit as well, or cuts tokens (N, T, C) into other channels.

    Returns whether that is so.
    """
    grid = maps[2:]
    if isinstance(output, torch.Tensor) and output.ndim == _TOKENS_NDIM and maps[1] not in output.shape:
        cut = f"the reshape_transform gives {maps[1]} channels, but the layer returns {tuple(output.shape)}"
        issue(CamWarning(f"{cut}: its height and width are those of another size of the image, leave it out"))
        return True
    square = grid_of_proportions(math.prod(grid), image_size)
    if square is None or square == tuple(grid):
        return False
    found, expected, pixels = (" x ".join(map(str, size)) for size in (grid, square, image_size))
    cells = f"the reshape_transform gives {found} cells, but an image of {pixels} has {expected}"
    issue(CamWarning(f"{cells}: give it that height and width, or leave it out"))
    return True

"""The layers and layouts that are found at the first call with an input of a new size and a new kind of target."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import warn_of_proportions
from pytorch_grad_cam.engine.capture import Capture
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, rows_of
from pytorch_grad_cam.engine.layouts import Layout, channels_first, is_even_map, layouts_of
from pytorch_grad_cam.engine.targets import ClassifierOutputTarget, Target, Targets
from pytorch_grad_cam.engine.trees import first_tensor
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.locate.search import SAMPLES, Search, layout_of

Size = tuple[int, ...]


class Asked(NamedTuple):
    """What the layer is looked for with: the inputs, the image among them, and the targets as the user gave them."""

    inputs: Inputs
    image: torch.Tensor
    targets: Targets

    @property
    def key(self) -> tuple[Size, Hashable]:
        """What the choice is kept for: the image's size and the kind of target."""
        return tuple(self.image.shape[2:]), _kind_of(self.targets)


class FoundElsewhere(Exception):
    """The targets of this call have another layer than the one that was kept for their kind."""

    def __init__(self, location: Location) -> None:
        super().__init__(str(location))
        self.location = location


class FoundLayers:
    """The layers that a `Search` finds, for each size of the image and kind of target; threads can share one object."""

    def __init__(
        self,
        model: nn.Module,
        spatial_from: SpatialFrom,
        output_transform: Callable[[Any], Any],
        uses_targets: bool = True,
    ) -> None:
        self.model, self.spatial_from, self.output_transform = model, spatial_from, output_transform
        self.uses_targets = uses_targets
        self._lock = threading.Lock()
        self._locations: dict[tuple[Size, Hashable], Location] = {}
        self._advice: dict[tuple[tuple[nn.Module, ...], Size, Hashable], str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy searches for itself."""
        return FoundLayers, (self.model, self.spatial_from, self.output_transform, self.uses_targets)

    def location(self, asked: Asked) -> tuple[Location, Capture | None]:
        """The layers, and the forward of the search as a call's own, if it was made now for all samples.

        Cost: for a new size or kind of target that of a `Search` of the first two samples.
        """
        with self._lock:
            if asked.key in self._locations:
                return self._locations[asked.key], None
            search, location = self._searched(asked)
            self.keep(asked, location)
            whole = len(asked.image) <= SAMPLES
            return location, search.forward.capture(location.layers) if whole else None

    def advice(self, layers: Sequence[nn.Module], asked: Asked, found: bool) -> str:
        """Which layer to take where no gradient reaches these, as the end of a sentence; empty where there is none.

        found: they are what was kept for this kind of target. Cost: for new layers, size or kind that of a `Search`;
        of found ones for boxes, tokens and regions in each call. Raises FoundElsewhere where found ones are not those
        of these targets.
        """
        known = tuple(layers), *asked.key
        if known not in self._advice:
            try:
                search, location = self._searched(asked, whole=True)
            except Exception:  # noqa: BLE001
                self._advice[known] = ""  # nothing to advise; the maps are there all the same
                return ""
            same = {*location.layers} <= {*layers} if found else location.layer in layers
            if found and not same:
                raise FoundElsewhere(location)
            advice = "" if same else f"; try target_layers=[{location.name!r}]: {location.why}"
            if not search.is_of_whole_image:
                return advice
            self._advice[known] = advice
        return self._advice[known]

    def keep(self, asked: Asked, location: Location) -> None:
        """Take these layers for the size and the kind of target from now on."""
        self._locations[asked.key] = location

    def _searched(self, asked: Asked, whole: bool = False) -> tuple[Search, Location]:
        samples = len(asked.image)
        inputs, targets = asked.inputs, asked.targets
        if samples > SAMPLES and not whole:
            inputs = rows_of(inputs, torch.arange(SAMPLES), samples)
            targets = _first(targets, samples)
        search = Search(self.model, inputs, self.spatial_from, self.output_transform, targets, self.uses_targets)
        return search, search.choice()


class FoundLayouts:
    """How the outputs of layers hold their maps. unchecked: the layers whose place is still to be checked."""

    def __init__(self, model: nn.Module, spatial_from: SpatialFrom) -> None:
        self.model, self.spatial_from = model, spatial_from
        self._readers: dict[tuple[nn.Module, Size, Size], Callable[[Any], torch.Tensor]] = {}
        self._searched: dict[tuple[nn.Module, Size], Layout] = {}
        self._fitting: set[tuple[nn.Module, Size, Size]] = set()
        self._seen: set[tuple[nn.Module, Size]] = set()
        self.unchecked: set[nn.Module] = set()

    def keep(self, location: Location, size: Size) -> None:
        """Keep what a search has found for images of this size."""
        for each in (location, *location.others):
            self._searched[each.layer, size] = each.layout

    def as_map(
        self, layer: nn.Module, output: Any, image: torch.Tensor, inputs: Inputs
    ) -> Callable[[Any], torch.Tensor]:
        """From what the layer returned to a map (N, C, *grid).

        What has as many axes as the image, and one stride along all of them in one order of axes alone, is read so.
        Cost: for anything else, of a new size, two forwards of two samples. Raises ValueError where nothing fits, see
        `locate.layout_of`.
        """
        case = layer, first_tensor(output).shape, image.shape
        if case not in self._readers:
            layout = self._layout(*case, inputs)
            self._check_later(layer, tuple(image.shape[2:]))
            self._readers[case] = first_tensor if layout == channels_first(case[1]) else layout.of_output
        return self._readers[case]

    def _layout(self, layer: nn.Module, shape: Size, of_image: Size, inputs: Inputs) -> Layout:
        size = tuple(of_image[2:])
        if (layer, size) in self._searched:
            return self._searched[layer, size]
        readings = layouts_of(shape, of_image[0], size, set())
        if len(shape) == len(of_image) and (not readings or is_even_map(readings, size)):
            return readings[0] if readings else channels_first(shape)
        return layout_of(self.model, inputs, layer, self.spatial_from)

    def _check_later(self, layer: nn.Module, size: Size) -> None:
        if (layer, size) not in self._seen:
            self._seen.add((layer, size))
            self.unchecked.add(layer)

    def check_proportions(self, layer: nn.Module, grid: Size, image_size: Size) -> None:
        """Warn where the grid of a given reshape_transform has other proportions than the image."""
        case = layer, grid, image_size
        if case not in self._fitting and not warn_of_proportions(grid, image_size):
            self._fitting.add(case)
            self._check_later(layer, image_size)


def _kind_of(targets: Targets) -> Hashable:
    """The same for targets that read the output alike: all classes are one kind, each class of callables is one."""
    if isinstance(targets, list | tuple) and targets:
        return _kind_of(targets[0])
    if targets is None or isinstance(targets, int | np.integer | np.ndarray | torch.Tensor | ClassifierOutputTarget):
        return ClassifierOutputTarget
    return cast(Hashable, getattr(targets, "__code__", type(targets)))


def _first(targets: Targets, samples: int) -> Targets:
    """The targets of the first samples; None for as many as there are no samples, which the call will refuse."""
    if isinstance(targets, list | tuple | torch.Tensor | np.ndarray):
        return targets[:SAMPLES] if len(targets) == samples else None
    return targets


def as_asked(target_lists: Sequence[Sequence[Target]]) -> Targets:
    """Target lists, each with one target a sample, as the targets of each sample."""
    return [list(of_sample) for of_sample in zip(*target_lists, strict=True)]

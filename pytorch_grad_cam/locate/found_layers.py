"""The layers that are found at the first call with an input of a new size and a new kind of target."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.capture import Capture, Captured
from pytorch_grad_cam.engine.detections.box_targets import PredictionTarget
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, rows_of
from pytorch_grad_cam.engine.layer_run import Call
from pytorch_grad_cam.engine.targets import ClassifierOutputTarget, Target, TargetRule, Targets, scores_of_lists
from pytorch_grad_cam.engine.trees import first_tensor
from pytorch_grad_cam.locate.asked_score import sum_of_lists
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.locate.search import SAMPLES, Search
from pytorch_grad_cam.locate.ways import Ways, layers_of, ways_between

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


class Found(NamedTuple):
    """The layers for one size of the image and kind of target. ways: those of the score for which they were found."""

    location: Location
    ways: Ways | None


class FoundElsewhere(Exception):
    """The targets of this call have other layers than those that were kept for their kind."""

    def __init__(self, asked: Asked, found: Found) -> None:
        super().__init__(str(found.location))
        self.asked, self.found = asked, found


class FoundLayers:
    """The layers that a `Search` finds, for each size of the image and kind of target; threads can share one object.

    uses_targets, uses_gradients: of the method that asks.
    """

    def __init__(
        self,
        model: nn.Module,
        spatial_from: SpatialFrom,
        output_transform: Callable[[Any], Any],
        uses_targets: bool = True,
        uses_gradients: bool = True,
    ) -> None:
        self.model, self.spatial_from, self.output_transform = model, spatial_from, output_transform
        self.uses_targets, self.uses_gradients = uses_targets, uses_gradients
        self._lock = threading.Lock()
        self._kept: dict[tuple[Size, Hashable], Found] = {}
        self._advice: dict[tuple[tuple[nn.Module, ...], Size, Hashable], str] = {}
        self._paths: dict[tuple[tuple[nn.Module, ...], bool, Size, Hashable], list[Location]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy searches for itself."""
        how = self.uses_targets, self.uses_gradients
        return FoundLayers, (self.model, self.spatial_from, self.output_transform, *how)

    def location(self, asked: Asked) -> tuple[Location, Capture | None]:
        """The layers, and the forward of the search as a call's own, if it was made now for all samples.

        Cost: for a new size or kind of target that of a `Search` of the first two samples, for scores of boxes, tokens
        and regions of all; for these of each call where the method has no gradient by which they can be verified, and
        which costs many forwards.
        """
        with self._lock:
            kept = self._kept.get(asked.key)
            if kept is not None and (kept.ways is None or self.uses_gradients or not self.uses_targets):
                return kept.location, None
            search, found = self._searched(asked)
            self._kept[asked.key] = found
            is_whole = len(asked.image) == len(search.forward.image)
            return found.location, search.capture(found.location) if is_whole else None

    def read_by(self, call: Call, targets: Targets, runs: Captured) -> torch.Tensor | None:
        """Which of the found layers each target reads other than through another one of them: bool (N * K, layers), or
        None where all do.

        Cost: nothing for classes and dense outputs; for boxes, tokens and regions the backward from the scores to where
        the tensors of several levels are put together. Raises FoundElsewhere where the targets read other levels than
        those for which the layers were kept, and have other layers.
        """
        asked = Asked(call.inputs, call.image, targets)
        kept = self._kept[asked.key]
        if kept.ways is None or not self.uses_gradients:
            return None
        of_lists = scores_of_lists(call.scores, call.target_lists)
        layers = list(dict.fromkeys(layer for layer, _ in runs))
        nodes = layers_of([(layers.index(layer), first_tensor(output)) for layer, output in runs])
        if not of_lists.requires_grad:
            return None
        if ways_between(sum_of_lists(of_lists), nodes).edges != kept.ways.edges:
            found = self._searched(asked, whole=True)[1]
            if {*found.location.layers} != {*layers}:
                raise FoundElsewhere(asked, found)
            self.keep(asked, found)
        if len(layers) == 1:
            return None
        reading = [ways_between(score, nodes).first for of_sample in of_lists.mT for score in of_sample]
        return torch.tensor([[number in first for number in range(len(layers))] for first in reading])

    def path_to(self, layers: Sequence[nn.Module], asked: Asked, alike: bool) -> list[Location]:
        """`Search.path_to` for the size and the kind of target. Cost: for new ones that of a `Search` and one whole
        backward.
        """
        known = tuple(layers), alike, *asked.key
        if known not in self._paths:
            search, _ = self._searched(asked)
            self._paths[known] = search.path_to(layers, alike)
        return self._paths[known]

    def advice(self, layers: Sequence[nn.Module], asked: Asked, found: bool) -> str:
        """Which layer to take where no gradient reaches these, as the end of a sentence; empty where there is none.

        found: they are what was kept for this kind of target. Cost: for new layers, size or kind that of a `Search`;
        of found ones for boxes, tokens and regions in each call. Raises FoundElsewhere where found ones are not those
        of these targets.
        """
        known = tuple(layers), *asked.key
        if known not in self._advice:
            try:
                search, elsewhere = self._searched(asked, whole=True)
            except Exception:  # noqa: BLE001
                self._advice[known] = ""  # nothing to advise; the maps are there all the same
                return ""
            location = elsewhere.location
            same = {*location.layers} <= {*layers} if found else location.layer in layers
            if found and not same:
                raise FoundElsewhere(asked, elsewhere)
            advice = "" if same else f"; try target_layers=[{location.name!r}]: {location.why}"
            if not search.is_of_whole_image:
                return advice
            self._advice[known] = advice
        return self._advice[known]

    def keep(self, asked: Asked, found: Found) -> None:
        """Take these layers for the size and the kind of target from now on."""
        self._kept[asked.key] = found

    def _searched(self, asked: Asked, whole: bool = False) -> tuple[Search, Found]:
        samples = len(asked.image)
        inputs, targets = asked.inputs, asked.targets
        is_part = samples > SAMPLES and not whole
        if is_part:
            inputs = rows_of(inputs, torch.arange(SAMPLES), samples)
            targets = _first(targets, samples)
        search = Search(self.model, inputs, self.spatial_from, self.output_transform, targets, self.uses_targets)
        location = search.choice()
        ways = search.ways(location)
        return self._searched(asked, whole=True) if is_part and ways else (search, Found(location, ways))


def _kind_of(targets: Targets) -> Hashable:
    """The same for targets that read the output alike: all classes are one kind, each class of callables is one."""
    if isinstance(targets, list | tuple) and targets:
        several = len(targets) > 1 and all(isinstance(target, PredictionTarget) for target in targets)
        # Of several boxes the layer may be another than that of each: what is kept for them is nothing for one, whose
        # map must not depend on what was asked before.
        return (_kind_of(targets[0]), several) if several else _kind_of(targets[0])
    if targets is None or isinstance(targets, int | np.integer | np.ndarray | torch.Tensor | ClassifierOutputTarget):
        return ClassifierOutputTarget
    if isinstance(targets, PredictionTarget):
        return type(targets), targets.of
    return cast(Hashable, getattr(targets, "__code__", type(targets)))


def _first(targets: Targets, samples: int) -> Targets:
    """The targets of the first samples; None for as many as there are no samples, which the call will refuse."""
    if isinstance(targets, TargetRule):
        return replace(targets, targets=_first(targets.targets, samples))
    if isinstance(targets, list | tuple | torch.Tensor | np.ndarray):
        return targets[:SAMPLES] if len(targets) == samples else None
    return targets


def as_asked(target_lists: Sequence[Sequence[Target]]) -> Targets:
    """Target lists, each with one target a sample, as the targets of each sample."""
    return [list(of_sample) for of_sample in zip(*target_lists, strict=True)]

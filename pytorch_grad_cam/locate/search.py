"""Find the layer whose map explains a score, and the layout of its output, from one traced forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.capture import Capture
from pytorch_grad_cam.engine.inputs import SpatialFrom, call, image_of, on_device_of, rows_of, with_image
from pytorch_grad_cam.engine.layouts import Layout
from pytorch_grad_cam.engine.rectifiers import is_rectified
from pytorch_grad_cam.engine.targets import Targets, scores_in, scores_of_model
from pytorch_grad_cam.engine.trace import traced
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.locate.answers import image_like
from pytorch_grad_cam.locate.asked_score import NO_GRADIENT, asked_scores
from pytorch_grad_cam.locate.candidate_map import CandidateMap
from pytorch_grad_cam.locate.candidates import Candidates
from pytorch_grad_cam.locate.left_out import maps_beside, warn_of_branches, warn_of_other_inputs
from pytorch_grad_cam.locate.levels import levels
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.locate.map_choice import ONE_OF_SEVERAL, MapChoice
from pytorch_grad_cam.locate.readings import Readings
from pytorch_grad_cam.locate.scored_maps import ScoredMaps
from pytorch_grad_cam.locate.traced_forward import KnownGradients, TracedForward
from pytorch_grad_cam.locate.ways import Ways, layers_of, ways_between

# What is looked at of a batch: normalisation by the batch's own statistics needs two.
SAMPLES = 2


def locate(
    model: nn.Module,
    x: Any,
    spatial_from: SpatialFrom = None,
    output_transform: Callable[[Any], Any] = scores_in,
    targets: Targets = None,
) -> Location:
    """The last layer that every path from the input to the target's score passes and whose map is alive.

    Alive: the gradient reaches at least half of the cells, and the grid is at least 3 x 3 (2 x 2, or one cell, only
    where there is nothing larger). Where cells die behind that layer, as behind the last attention of a class-token
    ViT, the first layer that reads it takes its place: the norm before that attention.
    Scores of a box, a token or a region reach few cells: those that are reached must lie at least 3 x 3 cells apart.
    Where predictions of several scales are put together, an edge whose gradient is zero is no path; where several
    scales are left, a map of each is chosen: `others`. For dense outputs (a segmentation) it is the last map of the
    coarsest grid, behind the encoder.

    x: what the model is called with, see `engine.inputs`; its first sample is used. output_transform: from the model's
    output to its scores, see `engine.targets.scores_in`. targets: for that sample, see `engine.targets`; None is the
    highest number. Raises ValueError when no module returns a map on which the score depends.
    Cost: one forward with its graph and one backward of its last part (of all where nothing is found there); for tokens
    one more forward.
    """
    with undisturbed(model):
        return Search(model, _first_sample(model, x, spatial_from), spatial_from, output_transform, targets).choice()


def suggest_layers(
    model: nn.Module,
    x: Any,
    spatial_from: SpatialFrom = None,
    output_transform: Callable[[Any], Any] = scores_in,
    targets: Targets = None,
) -> list[Location]:
    """The choice of `locate`, then for each other grid the last map that is alive, from the output backwards.

    Arguments and errors are those of `locate`. Cost: that of `locate` and one whole backward.
    """
    with undisturbed(model):
        first = _first_sample(model, x, spatial_from)
        search = Search(model, first, spatial_from, output_transform, targets)
        locations = [search.choice()]
        alive = [candidate for candidate in search.scored.maps() if search.rules.is_alive(candidate)]
    grids = {locations[0].layout.grid}
    for candidate in [*reversed([m for m in alive if m.is_cut]), *reversed(alive)]:
        if candidate.layout.grid not in grids:
            grids.add(candidate.layout.grid)
            path = "goes through it" if candidate.is_cut else "does not all go through it"
            locations.append(search.location(candidate, f"the last map of this grid; the score {path}"))
    return locations


def layout_of(model: nn.Module, x: Any, layer: nn.Module, spatial_from: SpatialFrom = None) -> Layout:
    """The layout of a given layer's output, by how it answers to noise on the image. Cost: two forwards of two samples.

    Raises ValueError when the output cannot be read as a map of the image.
    """
    samples = len(image_of(x, spatial_from))
    x = on_device_of(model, rows_of(x, torch.arange(min(samples, SAMPLES)), samples))
    # Not the user's image: the reading is that of the layer, whatever is in the image.
    x = with_image(x, image_like(image_of(x, spatial_from)), spatial_from)
    with undisturbed(model):
        with torch.no_grad(), traced(model, {*model.modules(), layer}) as calls:
            call(model, x)
        return Readings(model, x, spatial_from, calls).of_layer(layer)


_RANK_OF_CLIPS = 3


class Search:
    """The maps of one traced forward, and the best of them for the score that was asked for.

    x: what the model is called with, on its device, within `undisturbed`. targets: one for each of its samples.
    uses_targets: False for methods that know no target. Cost of the constructor: one forward with its graph.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Any,
        spatial_from: SpatialFrom,
        output_transform: Callable[[Any], Any],
        targets: Targets,
        uses_targets: bool = True,
    ) -> None:
        self._x, self._spatial_from = x, spatial_from
        self.model, self.forward = model, TracedForward(model, x, spatial_from)
        self.rules: MapChoice
        self.scored: ScoredMaps
        self._readings = Readings(model, x, spatial_from, self.forward.runs)
        self._candidates = Candidates(self.forward, self._readings)
        scores = scores_of_model(model, output_transform, self.forward.image.shape, self.forward.outputs)
        asked = self.forward.outputs, scores, targets, uses_targets, self._candidates.runs, self.forward.image.shape
        self._asked_scores = asked_scores(*asked)

    @property
    def is_of_whole_image(self) -> bool:
        """Whether the score is that of a class."""
        return self.rules.asked.is_of_whole_image

    def ways(self, location: Location) -> Ways | None:
        """The ways from the score to the layers that it reads; None where they are the same for all targets: of classes
        and of dense outputs.
        """
        if self.is_of_whole_image or self.rules.asked.is_dense:
            return None
        numbers = {layer: number for number, layer in enumerate(location.layers)}
        first = [entry for entry in self._candidates.runs if entry.first and entry.module in numbers]
        made = [(numbers[entry.module], entry.returned) for entry in first]
        return ways_between(self.rules.asked.score, layers_of(made))

    def capture(self, location: Location) -> Capture | None:
        """The forward as a call's own, see `TracedForward.capture`, with the gradients that the search has taken."""
        return self.forward.capture(location.layers, KnownGradients(self.rules.asked.score, self.scored.gradients))

    def choice(self) -> Location:
        """The best map for the score asked for; where none depends on it, for the highest one; where there is none but
        the scores of the places themselves, as of one convolution, that.
        """
        of_places = []
        for asked in self._asked_scores:
            location = self._choice_by(MapChoice(asked, self._readings, self._candidates.pooled))
            if location is not None:
                if self.is_of_whole_image:
                    warn_of_other_inputs(self.model, self._x, self._spatial_from, self.forward, location)
                return location
            if self._candidates.readings and not self.scored.maps():
                raise ValueError(NO_GRADIENT)
            of_places += [] if asked.is_of_whole_image or asked.is_dense else [self.rules._replace(takes_scores=True)]
        for rules in of_places:
            location = self._choice_by(rules)
            if location is not None:
                return location
        size = "x".join(map(str, self._readings.size))
        raise ValueError(
            f"{type(self.model).__name__} has no module whose output is a map of the {size} input on which the "
            f"score depends{self._of_each_frame()}: pass target_layers, and a reshape_transform where the layer gives "
            "tokens"
        )

    def _of_each_frame(self) -> str:
        """Which module runs once for each frame of a clip, whose maps are none of the clip, and the way out."""
        runs = Counter(
            entry.name for entry in self._candidates.runs if entry.returned.ndim == self.forward.image.ndim - 1
        )
        name, count = max(runs.items(), key=lambda entry: entry[1], default=("", 0))
        if len(self._readings.size) < _RANK_OF_CLIPS or count < 2:
            return ""
        return f" ({name} runs {count} times, for a frame each: let it run once, with the frames folded into the batch)"

    def _choice_by(self, rules: MapChoice) -> Location | None:
        """The best map of the last few cuts; of all maps, where the cuts have none or only too coarse ones."""
        self.rules, self.scored = rules, ScoredMaps(self._candidates, rules.asked)
        best, why = self._best_without_dead_edges(late=not rules.asked.is_dense)
        if not rules.asked.is_dense and (best is None or not rules.is_large(best)):
            best, why = self._best_without_dead_edges(late=False)
        of_levels = levels(best, rules, self.scored)
        if of_levels:
            first, *others = [self.location(level, "") for level in of_levels]
            return first._replace(others=tuple(others), why="together they have all paths to the score")
        if best is not None and why == ONE_OF_SEVERAL and self.is_of_whole_image:
            alive = [m for m in self.scored.maps() if rules.is_alive(m) and rules.is_large(m)]
            branches = [best, *maps_beside(best, alive, self._candidates.runs)]
            warn_of_branches(*(self.location(branch, "").name for branch in branches))
        return None if best is None else self.location(best, why)

    def _best_without_dead_edges(self, late: bool) -> tuple[CandidateMap | None, str]:
        """The best map by the rules; anew while edges behind it turn out to have no gradient."""
        best, why = self.rules.best(self.scored.maps(late))
        while self.scored.finds_dead_edges(best):
            best, why = self.rules.best(self.scored.maps(late))
        return best, why

    def path_to(self, layers: Sequence[nn.Module], alike: bool = False) -> list[Location]:
        """The maps in front of these layers that every path to the score goes through and that are alive, in the order
        of execution; of a map and the same rectified the latter.

        alike: only those of the shape that one of the layers returns. Cost: one whole backward.
        """
        runs = self._candidates.runs
        own = [(number, entry.returned) for number, entry in enumerate(runs) if entry.module in layers]
        begin = min((number for number, _ in own), default=len(runs))
        ends, shapes = [tensor for _, tensor in own], {tensor.shape for _, tensor in own}
        in_front = {id(entry) for entry in runs[:begin] if all(entry.returned is not end for end in ends)}
        cuts = [m for m in self.scored.maps() if m.is_cut and id(m.call) in in_front and self.rules.is_alive(m)]
        behind = [*(m.call.returned for m in cuts), *ends]
        found = [
            self.location(candidate, "every path to the score goes through it")
            for candidate in cuts
            if (candidate.call.returned.shape in shapes or not alike)
            and not any(is_rectified(tensor, candidate.call.returned) for tensor in behind)
        ]
        return list({location.layer: location for location in found}.values())

    def location(self, chosen: CandidateMap, why: str) -> Location:
        """The location of a map, and why it was chosen."""
        return self._candidates.location(chosen, why)


def _first_sample(model: nn.Module, x: Any, spatial_from: SpatialFrom) -> Any:
    return on_device_of(model, rows_of(x, torch.tensor([0]), len(image_of(x, spatial_from))))

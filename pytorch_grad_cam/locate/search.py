"""Find the layer whose map explains a score, and the layout of its output, from one traced forward."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import SpatialFrom, call, image_of, on_device_of, rows_of, with_image
from pytorch_grad_cam.engine.layouts import (
    TOKEN_AXES,
    Layout,
    convolutions_layouts,
    is_even,
    is_even_map,
    layouts_of,
    layouts_without,
)
from pytorch_grad_cam.engine.targets import Targets, scores_in, scores_of_model
from pytorch_grad_cam.engine.trace import Call, traced
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.locate.answers import FEW, answer, image_like, unmoved_tokens, with_noise
from pytorch_grad_cam.locate.asked_score import NO_GRADIENT, AskedScore, asked_scores
from pytorch_grad_cam.locate.graph_cuts import Edge, cuts_between, dead_edges, edges_on, joins_before
from pytorch_grad_cam.locate.traced_forward import TracedForward

# What the thresholds rest on. "Nothing changes": in test_locate.py, and in the choice for 38 small networks of timm and
# transformers with seeded random weights; except for LeViTs where said.
# The share of living cells. A choice; nothing changes between 0.03 and 0.9: shares are nearly always 0 or 1.
_ALIVE = 0.5
# The last cuts that are looked at first, which saves time. Nothing changes from 4 to 64, 3 adds a warning.
_LATE = 4
# The difference between two answers. A choice; nothing changes between 0.036 and 0.20.
_TOO_CLOSE = 0.05
# The share of the clearest answer. A choice: behind the pooled branch of an ASPP of 8 x 8 cells it is below a third.
_NEARLY_AS_CLEAR = 0.5
# Tensors with as many tokens: the first ones may be position embeddings, which nothing changes. A choice.
_EARLIEST = 8
# The least cells along an axis, tried in turn. With 2 first, maps of 2 cells win in the tests; with 4 first, a map of
# 3 x 4 costs another forward; with 1 first, 25 of the 38 networks get their pooled map, with 2 to 7 none another one.
_SMALLEST_GRIDS = (3, 2, 1)
# Modules whose output lies channels first whatever its numbers say, and those that leave the axes as they are.
_CHANNELS_FIRST = (nn.modules.conv, nn.modules.batchnorm, nn.modules.instancenorm, nn.modules.pooling)
_ELEMENTWISE = (nn.modules.activation, nn.modules.dropout)


class Location(NamedTuple):
    """A layer that gives a map: its dotted name, its output's shape and layout, and why it was chosen.

    others: the layers that only together with this one have all paths to the score, as the levels of a pyramid.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
    >>> print(locate(load_digits_net(), preprocess_scene(example_scene())))
    layer4 (Sequential), output (1, 128, 8, 8): NCSS, grid 8 x 8; the last map that every path to the score goes through
    """

    name: str
    layer: nn.Module
    shape: tuple[int, ...]
    layout: Layout
    why: str
    others: tuple[Location, ...] = ()

    @property
    def layers(self) -> list[nn.Module]:
        """This layer and the others."""
        return [self.layer, *(other.layer for other in self.others)]

    def as_map(self, output: Any) -> torch.Tensor:
        """The map (N, C, *grid) in what the layer returned; for use as a reshape_transform."""
        return self.layout.of_output(output)

    def __str__(self) -> str:
        this = f"{self.name} ({type(self.layer).__name__}), output {self.shape}: {self.layout}"
        return "".join([this, *(f"; and {other}" for other in self.others)]) + (f"; {self.why}" if self.why else "")


class _Map(NamedTuple):
    """A tensor that can be read as a map.

    layout, other_layouts: its best reading and the others. gradient: of the score with respect to it. is_cut: whether
    every path from the score to the image goes through it. runs_once: whether its module does. is_hidden: whether
    something learned lies between it and the score.
    """

    call: Call
    layout: Layout
    other_layouts: tuple[Layout, ...]
    gradient: torch.Tensor
    is_cut: bool
    runs_once: bool
    is_hidden: bool

    @property
    def alive(self) -> torch.Tensor:
        """The cells (N, *grid) that a gradient reaches."""
        return (self.layout(self.gradient) != 0).any(1)

    @property
    def breadth_alive(self) -> int:
        """How far they reach, see `_breadth`."""
        alive = self.alive
        return _breadth([int(alive.movedim(axis, 0).flatten(1).any(1).sum()) for axis in range(1, alive.ndim)])


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
        alive = [candidate for candidate in search.maps() if search.is_alive(candidate)]
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
    x = on_device_of(model, rows_of(x, torch.arange(min(samples, 2)), samples))
    # Not the user's image: the reading is that of the layer, whatever is in the image.
    x = with_image(x, image_like(image_of(x, spatial_from)), spatial_from)
    with undisturbed(model):
        with torch.no_grad(), traced(model) as calls:
            call(model, x)
        return Readings(model, x, spatial_from, calls).of_layer(layer)


class Readings:
    """How the tensors that a forward's modules returned are to be read as maps of its image. Within `undisturbed`.

    x: what the model was called with, on its device; calls: what its modules returned.
    """

    def __init__(self, model: nn.Module, x: Any, spatial_from: SpatialFrom, calls: Sequence[Call]) -> None:
        self._model, self._x, self._spatial_from, self._calls = model, x, spatial_from, calls
        self._image = image_of(x, spatial_from)
        self.size = tuple(self._image.shape[2:])
        self._grids = _grids_of_convolutions(calls, self._image)
        self._channels_first: set[int] = set()
        for entry in calls:
            handed_on = id(entry.read) in self._channels_first and _is_of(_ELEMENTWISE, entry.module)
            if handed_on or _is_of(_CHANNELS_FIRST, entry.module):
                self._channels_first.add(id(entry.returned))
        self._by_numbers: dict[tuple[int, ...], list[Layout]] = {}

    def by_numbers(self, entry: Call) -> list[Layout]:
        """The readings that the numbers allow, the best first."""
        shape = tuple(entry.returned.shape)
        if id(entry.returned) in self._channels_first:
            return convolutions_layouts(shape, len(self._image), self.size)
        if shape not in self._by_numbers:
            self._by_numbers[shape] = layouts_of(shape, len(self._image), self.size, self._grids)
        return self._by_numbers[shape]

    def of_layer(self, layer: nn.Module) -> Layout:
        """The reading of the layer's output. Raises ValueError where it is no map of the image."""
        entries = [e for e in self._calls if e.module is layer and e.returned.is_floating_point()]
        if not entries:
            raise ValueError(f"target layer {type(layer).__name__} did not run when the model was called")
        entry, shape = entries[0], tuple(entries[0].returned.shape)
        layouts = self.by_numbers(entry)
        layout = layouts[0] if self.are_certain(layouts) else self.by_answers(entry)
        if layout is None:
            tokens = "; its tokens do not lie where they stood in the image (merged, dropped, sorted?)"
            raise ValueError(
                f"the target layer gives {shape}, which is no map of the {'x'.join(map(str, self.size))} input"
                f"{tokens if layouts and len(shape) == 3 else ''}: pass a reshape_transform from it to "
                "(N, C, *spatial), see pytorch_grad_cam.utils.reshape_transforms, or choose an earlier layer"
            )
        return layout

    def are_certain(self, layouts: Sequence[Layout]) -> bool:
        """Whether there is only one reading, with one stride for all axes and without tokens."""
        return is_even_map(layouts, self.size)

    def by_answers(self, entry: Call, clearly: bool = False) -> Layout | None:
        """The reading that answers to noise on the image in its place; None where none does. Cost: one forward.

        clearly: few cells, that may do so by accident, do not count.
        """
        if {layout.axes[:3] for layout in self.by_numbers(entry)} == {"NCS"}:
            return self._in_order_of_first_convolution(entry)
        shape = entry.returned.shape
        orders = [axes for axes in TOKEN_AXES if len(shape) == len(axes) and shape[axes.index("N")] == len(self._image)]
        as_many = {axes: self._of_as_many_tokens(entry, axes.index("T")) for axes in orders}
        changes = self.changes({each.module for each in chain([entry], *as_many.values())})
        seen = [layout for axes in orders for layout in self._without_others(entry, axes, map(changes, as_many[axes]))]
        change = changes(entry)
        by_sight = self._clearest(entry, [*dict.fromkeys(seen)], change, clearly)
        return by_sight or self._clearest(entry, self.by_numbers(entry), change, clearly)

    def _in_order_of_first_convolution(self, entry: Call) -> Layout | None:
        """The reading with the spatial axes in the order in which the first convolution has them.

        There the answer is clear: each cell has seen little of the image. Cost: one forward.
        """
        first = next(
            each
            for each in self._calls
            if each.returned.ndim == entry.returned.ndim
            and (each is entry or (_is_of(_CHANNELS_FIRST, each.module) and self.by_numbers(each)))
        )
        as_first = self._clearest(first, self.by_numbers(first), self.changes({first.module})(first))
        return next((k for k in self.by_numbers(entry) if as_first and k.order == as_first.order), None)

    def changes(self, modules: Collection[nn.Module]) -> Callable[[Call], torch.Tensor]:
        """How much the outputs of the modules change with faint noise on the image. Cost: one forward."""
        noisy = with_image(self._x, with_noise(self._image.detach()), self._spatial_from)
        with torch.no_grad(), traced(self._model, modules) as calls:
            call(self._model, noisy)

        def change(entry: Call) -> torch.Tensor:
            runs = [each for each in self._calls if each.module is entry.module and each.first == entry.first]
            repeated = [each for each in calls if each.module is entry.module and each.first == entry.first]
            index = next(index for index, each in enumerate(runs) if each is entry)
            return (repeated[index].returned - entry.returned.detach()).float().abs()

        return change

    def _of_as_many_tokens(self, entry: Call, token_axis: int) -> list[Call]:
        """The first tensors, up to this one, that have as many tokens."""
        until = next(place for place, each in enumerate(self._calls) if each is entry)
        earlier = (each for each in self._calls[: until + 1] if each.first and each.returned.ndim == len(TOKEN_AXES[0]))
        as_many = (each for each in earlier if each.returned.shape[token_axis] == entry.returned.shape[token_axis])
        return list(islice(as_many, _EARLIEST))

    def _without_others(self, entry: Call, axes: str, changes: Iterator[torch.Tensor]) -> list[Layout]:
        """The readings without the tokens that are not of the image; none where no such tokens are seen.

        changes: of the tensors with as many tokens. In the first of them that changes, nothing has mixed the others
        with those of the image: they do not change.
        """
        for change in changes:
            others = unmoved_tokens(axes, change)
            if len(others) < change.shape[axes.index("T")]:
                shape = tuple(entry.returned.shape)
                return layouts_without(others, axes, shape, self.size, self._grids) if others else []
        return []

    def _clearest(
        self, entry: Call, layouts: Sequence[Layout], change: torch.Tensor, clearly: bool = False
    ) -> Layout | None:
        """The reading that answers best; of those that answer alike the first one, with a warning where no convolution
        made its grid; None where none answers in its place.
        """
        answers = {layout: answer(layout, change) for layout in layouts}
        passing = {layout: found.is_clear if clearly else found.is_in_place for layout, found in answers.items()}
        in_place = alike = [layout for layout in layouts if passing[layout]]
        if not in_place and any(self.are_certain([layout]) for layout in layouts):
            # Channels first and in proportion: a map, if one that looks everywhere.
            alike = [layout for layout in layouts if "T" not in layout.axes and is_even(layout, self.size)]
        are_few = all("T" not in k.axes and math.prod(k.grid) < FEW for k in layouts)
        if are_few:
            alike = list(layouts)  # what few cells answer depends on the image
        if not alike:
            return None
        if in_place and not are_few:
            best = max(answers[layout].at_least for layout in in_place)
            alike = [layout for layout in in_place if best - answers[layout].correlation < _TOO_CLOSE]
        first, *others = [k for k in alike if k.grid in self._grids] or alike
        if others:
            issue(
                CamWarning(
                    f"{entry.name} gives {tuple(entry.returned.shape)}, which can be read as {first} and as "
                    f"{others[0]}, and it answers alike to noise on the image in both: it is read as {first}. Pass a "
                    "reshape_transform if that is wrong"
                )
            )
        return first


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
        self.model, self.forward = model, TracedForward(model, x, spatial_from)
        self._asked: AskedScore
        self._dead: set[Edge]
        self.calls = [entry for entry in self.forward.runs if entry.returned.requires_grad]
        self._readings = Readings(model, x, spatial_from, self.forward.runs)
        scores = scores_of_model(model, output_transform, self.forward.image.shape, self.forward.outputs)
        asked = self.forward.outputs, scores, targets, uses_targets, self.calls, self.forward.image.shape
        self._asked_scores = asked_scores(*asked)
        self._candidates = [
            (position, layouts)
            for position, entry in enumerate(self.calls)
            if entry.first and (layouts := self._readings.by_numbers(entry))
        ]
        self._runs = Counter(self.calls[position].module for position, _ in self._candidates)
        self._pooled = {
            tuple(entry.returned.shape[2:])
            for entry in self.calls
            if type(entry.module).__name__.startswith("Adaptive") and _is_of((nn.modules.pooling,), entry.module)
        }

    @property
    def is_of_whole_image(self) -> bool:
        """Whether the score is that of a class."""
        return self._asked.is_of_whole_image

    def choice(self) -> Location:
        """The best map for the score asked for; where none depends on it, for the highest one."""
        for asked in self._asked_scores:
            self._asked, self._dead = asked, set()
            location = self._choice_of_score()
            if location is not None:
                return location
            if self._candidates and not self.maps():
                raise ValueError(NO_GRADIENT)
        size = "x".join(map(str, self._readings.size))
        raise ValueError(
            f"{type(self.model).__name__} has no module whose output is a map of the {size} input on which the "
            "score depends: pass target_layers, and a reshape_transform where the layer gives tokens"
        )

    def _choice_of_score(self) -> Location | None:
        """The best map of the last few cuts; of all maps, where the cuts have none or only too coarse ones."""
        best, why = self._best_without_dead_edges(late=not self._asked.is_dense)
        if not self._asked.is_dense and (best is None or self._breadth(best) < _SMALLEST_GRIDS[0]):
            best, why = self._best_without_dead_edges(late=False)
        levels = self._levels(best)
        if levels:
            first, *others = [self.location(level, "") for level in levels]
            return first._replace(others=tuple(others), why="together they have all paths to the score")
        return None if best is None else self.location(best, why)

    def _best_without_dead_edges(self, late: bool) -> tuple[_Map | None, str]:
        """The best map by the rules; anew while edges behind it turn out to have no gradient."""
        while True:
            best, why = self._verified(self.maps(late))
            joins = self._joins_behind(best)
            dead = dead_edges(self._asked.score, joins) - self._dead
            if not dead:
                return best, why
            self._dead |= dead

    def _levels(self, best: _Map | None) -> list[_Map]:
        """Maps of several grids that only together have all paths from the score; none where one map behind them has.

        Cost: where tensors are put together behind the best map, one backward.
        """
        joins = [] if self._asked.is_dense else self._joins_behind(best)
        maps = self.maps() if joins else []
        for join in joins:
            levels = {}
            for edge in edges_on(join, self._dead):
                is_cut = cuts_between(edge, self.forward.image, self._dead)
                of_edge, _ = self._verified([m._replace(is_cut=True) for m in maps if is_cut(m.call.returned)])
                if of_edge is not None:
                    levels[of_edge.call.module] = of_edge
            grids = {level.layout.grid for level in levels.values()}
            if len(grids) > 1 and len(grids) == len(levels):
                return list(levels.values())
        return []

    def _joins_behind(self, best: _Map | None) -> list[Any]:
        """Where tensors are put together between the map, or what its module read, and the score."""
        around = [] if best is None else [best.call.returned, best.call.read]
        ends = [tensor.grad_fn for tensor in around if tensor is not None]
        return joins_before(self._asked.edge, ends, self._dead)

    def maps(self, late: bool = False) -> list[_Map]:
        """The maps among what the modules return, in the order of execution.

        late: only those from the fourth last cut on. Cost: one backward, as far as the first of them.
        """
        is_cut = cuts_between(self._asked.edge, self.forward.image, self._dead)
        cuts = [position for position, _ in self._candidates if is_cut(self.calls[position].returned)]
        start = cuts[-_LATE] if late and len(cuts) >= _LATE else 0
        calls = self.calls[start:]
        gradients = torch.autograd.grad(
            self._asked.score, [entry.returned for entry in calls], allow_unused=True, retain_graph=True
        )
        # A CAM captures one tensor of a module and cuts it off from the others that the module returned: none of
        # those may lead to the score.
        reached = [gradient is not None for gradient in gradients]
        leading = Counter(entry.run for entry, leads in zip(calls, reached, strict=True) if leads)
        learned = [entry for entry, leads in zip(calls, reached, strict=True) if leads and entry.module._parameters]
        read_by_learned = [entry.read.grad_fn for entry in learned if entry.read is not None]
        hidden = {*nodes_behind(*read_by_learned)}
        maps = []
        for position, (layout, *other_layouts) in self._candidates:
            place = position - start
            if place >= 0 and reached[place] and leading[self.calls[position].run] == 1:
                entry = self.calls[position]
                facts = is_cut(entry.returned), self._runs[entry.module] == 1, entry.returned.grad_fn in hidden
                maps.append(_Map(entry, layout, tuple(other_layouts), gradients[place], *facts))
        return maps

    def is_alive(self, candidate: _Map) -> bool:
        """Whether the score depends on enough of the map."""
        if self._asked.is_of_whole_image:
            return candidate.alive.float().mean().item() >= _ALIVE
        return candidate.is_hidden and bool(candidate.alive.any())

    def _verified(self, maps: Sequence[_Map]) -> tuple[_Map | None, str]:
        """The best map by the rules whose tokens are the cells of a grid, and why.

        Cost: for tokens, for dense outputs and where a tensor can be read in several ways, one forward; where the first
        choice does not answer in its place, one more.
        """
        best, why = self._best(maps)
        while best is not None and not self._readings.are_certain([best.layout, *best.other_layouts]):
            layout = self._readings.by_answers(best.call, clearly=True)
            if layout == best.layout:
                return best, why
            if layout is not None:
                # Which cells are alive depends on the reading: the choice is made anew, with the right one.
                shape = best.call.returned.shape
                maps = [
                    m._replace(layout=layout, other_layouts=()) if m.call.returned.shape == shape else m for m in maps
                ]
                best, why = self._best(maps)
                if best is not None and best.layout == layout:
                    return best, why
                continue
            unread = best.layout
            alike = [candidate for candidate in maps if candidate.layout == unread]
            changes = self._readings.changes({candidate.call.module for candidate in alike})
            silent = [m for m in alike if m.call is best.call or not answer(unread, changes(m.call)).is_clear]
            maps = [candidate for candidate in maps if not any(candidate is each for each in silent)]
            best, why = self._best(maps)
        return best, why

    def _behind_encoder(self, maps: Sequence[_Map]) -> _Map:
        """Of the maps of the coarsest grid the last that answers to noise nearly as clearly as any of them.

        Behind branches that pool the whole image, cells look everywhere. Cost: one forward.
        """
        strided = _passing(maps, lambda candidate: candidate.layout.grid not in self._pooled)
        coarsest = min(math.prod(candidate.layout.grid) for candidate in strided)
        coarse = [candidate for candidate in strided if math.prod(candidate.layout.grid) == coarsest]
        changes = self._readings.changes({candidate.call.module for candidate in coarse})
        answers = [answer(candidate.layout, changes(candidate.call)).correlation for candidate in coarse]
        clear = [m for m, found in zip(coarse, answers, strict=True) if found >= _NEARLY_AS_CLEAR * max(answers)]
        return (clear or coarse)[-1]

    def _best(self, maps: Sequence[_Map]) -> tuple[_Map | None, str]:
        """The best map by the rules, and why. The rules apply in turn; one that no map passes is skipped."""
        once = _passing([m for m in maps if self.is_alive(m)], lambda candidate: candidate.runs_once)
        for smallest in _SMALLEST_GRIDS:
            large = [m for m in once if self._breadth(m) >= smallest]
            if large:
                break
        else:
            return None, ""
        unpadded = _passing(large, lambda candidate: not _is_of((nn.modules.padding,), candidate.call.module))
        if self._asked.is_dense:
            return self._behind_encoder(unpadded), "the last map of the coarsest grid, behind the encoder"
        cuts = _passing(unpadded, lambda candidate: candidate.is_cut)
        last = cuts[-1]
        same_grid = [candidate for candidate in cuts if candidate.layout == last.layout]
        best = _passing(same_grid, lambda candidate: not _is_of((nn.modules.pooling,), candidate.call.module))[-1]
        place = next(place for place, candidate in enumerate(maps) if candidate is best)
        behind = maps[place + 1 :]
        if any(m.layout == best.layout and m.is_hidden and self._has_lost_cells(m) for m in behind):
            readers = [m for m in once if m.call.read is best.call.returned and m.layout == best.layout]
            if readers:
                return readers[0], "the last map before positions lose their way to the score (class token)"
        if best.is_cut:
            return best, "the last map that every path to the score goes through"
        return best, "the last map that the score depends on; none lies on every path to it"

    def _has_lost_cells(self, candidate: _Map) -> bool:
        """Whether most cells do not lead to the score; of tokens, whose score is one of them, all but a few."""
        are_few = "T" in candidate.layout.axes and self._breadth(candidate) < _SMALLEST_GRIDS[0]
        return not self.is_alive(candidate) or are_few

    def _breadth(self, candidate: _Map) -> int:
        grid = _breadth(candidate.layout.grid)
        of_all_cells = self._asked.is_of_whole_image or self._asked.is_dense
        return grid if of_all_cells else min(grid, candidate.breadth_alive)

    def location(self, chosen: _Map, why: str) -> Location:
        """The location of a map, named by a module that returns it: one that runs once and returns nothing else
        before others, the shortest name before longer ones.
        """
        runs = Counter(entry.module for entry in self.calls if entry.first)
        same = [e for e in self.calls if e.returned is chosen.call.returned and (e.alone or e is chosen.call)]
        # Of names of one length the last: modules behind it may have written into what the others returned.
        named = min(same[::-1], key=lambda entry: (runs[entry.module] > 1, not entry.alone, len(entry.name)))
        samples, shape, axes = len(self.forward.image), [*named.returned.shape], chosen.layout.axes
        shape[axes.index("F" if "F" in axes else "N")] //= samples
        return Location(named.name, named.module, tuple(shape), chosen.layout, why)


def _first_sample(model: nn.Module, x: Any, spatial_from: SpatialFrom) -> Any:
    return on_device_of(model, rows_of(x, torch.tensor([0]), len(image_of(x, spatial_from))))


def _breadth(lengths: Sequence[int]) -> int:
    """The second largest of the lengths along the axes, of a signal its only one: a clip may have a single frame."""
    return sorted(lengths)[-2:][0]


def _passing(maps: Sequence[_Map], rule: Callable[[_Map], bool]) -> list[_Map]:
    """The maps that pass the rule, or all where none does."""
    return [candidate for candidate in maps if rule(candidate)] or list(maps)


def _grids_of_convolutions(calls: Sequence[Call], image: torch.Tensor) -> set[tuple[int, ...]]:
    """The grids that convolutions made, patch embeddings among them; of frames of a clip also those of the clip."""
    made = [tuple(e.returned.shape) for e in calls if isinstance(e.module, nn.modules.conv._ConvNd)]
    of_images = {shape[2:] for shape in made if len(shape) == image.ndim}
    of_frames = {
        shape[2:] for shape in made if len(shape) == image.ndim - 1 and shape[0] == len(image) * image.shape[2]
    }
    return of_images | of_frames | {(image.shape[2], *grid) for grid in of_frames}


def _is_of(kinds: Sequence[ModuleType], module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's own of these kinds: pooling and padding return what they read."""
    return type(module).__module__ in [kind.__name__ for kind in kinds]

"""How tensors are read as maps: by their numbers, and where these leave a choice by how they answer to noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, islice, permutations
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import ImagePlace, PackedPatches, SpatialFrom, call, image_of, with_image
from pytorch_grad_cam.engine.layouts import (
    TOKEN_AXES,
    Layout,
    convolutions_layouts,
    covers,
    is_even,
    is_even_map,
    layouts_of,
    layouts_without,
    packed_layouts,
)
from pytorch_grad_cam.engine.trace import Call, traced
from pytorch_grad_cam.locate.answers import FEW, answer, unmoved_tokens, with_noise

# What the thresholds rest on: in test_locate.py, and in the choice for 38 small networks of timm and transformers with
# seeded random weights.
# The difference between two answers. A choice; nothing changes between 0.036 and 0.20.
_TOO_CLOSE = 0.05
# Tensors with as many tokens: the first ones may be position embeddings, which nothing changes. A choice.
_EARLIEST = 8
# Modules whose output lies channels first whatever its numbers say, and those that leave the axes as they are.
_CHANNELS_FIRST = (nn.modules.conv, nn.modules.batchnorm, nn.modules.instancenorm, nn.modules.pooling)
_ELEMENTWISE = (nn.modules.activation, nn.modules.dropout)


class Readings:
    """How the tensors that a forward's modules returned are to be read as maps of its image. Within `undisturbed`.

    x: what the model was called with, on its device; calls: what its modules returned.
    """

    def __init__(self, model: nn.Module, x: Any, spatial_from: SpatialFrom, calls: Sequence[Call]) -> None:
        self._model, self._x, self._spatial_from, self._calls = model, x, spatial_from, calls
        self._image = image_of(x, spatial_from)
        self.size = tuple(self._image.shape[2:])
        self._grids = _grids_of_convolutions(calls, self._image)
        if isinstance(spatial_from, PackedPatches):
            self._grids |= spatial_from.grids(x)
        self._channels_first: set[int] = set()
        for entry in calls:
            handed_on = id(entry.read) in self._channels_first and is_of(_ELEMENTWISE, entry.module)
            if handed_on or is_of(_CHANNELS_FIRST, entry.module):
                self._channels_first.add(id(entry.returned))
        # No number tells in which order axes of one stride are; images with axes of their own are turned at times.
        self._may_be_turned = isinstance(spatial_from, ImagePlace)
        self._of_text = _modules_of_text(model, x)
        self._by_numbers: dict[tuple[int, ...], list[Layout]] = {}
        self._noisy: dict[nn.Module, list[Call]] = {}

    def by_numbers(self, entry: Call) -> list[Layout]:
        """The readings that the numbers allow, the best first."""
        shape = tuple(entry.returned.shape)
        if entry.module in self._of_text:
            return []
        if id(entry.returned) in self._channels_first:
            return convolutions_layouts(shape, len(self._image), self.size)
        if len(shape) == 2 and isinstance(self._spatial_from, PackedPatches):
            return packed_layouts(shape, len(self._image), self._spatial_from.grids(self._x), self._spatial_from.block)
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

        clearly: few cells, that may do so by accident, do not count, unless a convolution has made such a grid.
        """
        if entry.module in self._of_text:
            return None
        if {layout.axes[:3] for layout in self.by_numbers(entry)} == {"NCS"}:
            return self._in_order_of_first_convolution(entry)
        shape = entry.returned.shape
        orders = [axes for axes in TOKEN_AXES if len(shape) == len(axes) and shape[axes.index("N")] == len(self._image)]
        as_many = {axes: self._of_as_many_tokens(entry, axes.index("T")) for axes in orders}
        change = self.changes({each.module for each in chain([entry], *as_many.values())})(entry)
        moved = {axes: self._first_moved(as_many[axes], axes.index("T")) for axes in orders}
        firsts = {axes: first for axes, first in moved.items() if first is not None}
        seen = [layout for axes, first in firsts.items() for layout in self._without_others(entry, axes, first)]
        layouts = [*dict.fromkeys(seen)]
        layout = self._clearest(entry, layouts, change, firsts, clearly)
        layout = layout or self._clearest(entry, self.by_numbers(entry), change, firsts, clearly)
        if layout is None or layout.axes not in firsts:
            return layout
        return _in_order_of_first(layout, firsts[layout.axes], change, self._may_be_turned)

    def _in_order_of_first_convolution(self, entry: Call) -> Layout | None:
        """The reading with the spatial axes in the order in which the first convolution has them.

        There the answer is clear: each cell has seen little of the image. Cost: one forward.
        """
        first = next(
            each
            for each in self._calls
            if each.returned.ndim == entry.returned.ndim
            and (each is entry or (is_of(_CHANNELS_FIRST, each.module) and self.by_numbers(each)))
        )
        as_first = self._clearest(first, self.by_numbers(first), self.changes({first.module})(first), {})
        return next((k for k in self.by_numbers(entry) if as_first and k.order == as_first.order), None)

    def changes(self, modules: Collection[nn.Module], of_read: bool = False) -> Callable[[Call], torch.Tensor]:
        """How much the outputs of the modules, or what they read, change with faint noise on the image.

        Cost: one forward, unless all of the modules were asked about before.
        """
        if not self._noisy.keys() >= {*modules}:
            self._noisy = self._with_noise({*self._noisy, *modules})
        noisy = self._noisy

        def change(entry: Call) -> torch.Tensor:
            runs = [each for each in self._calls if each.module is entry.module and each.first == entry.first]
            repeated = [each for each in noisy[entry.module] if each.first == entry.first]
            index = next(index for index, each in enumerate(runs) if each is entry)
            both = entry, repeated[index]
            before, after = (cast(torch.Tensor, each.read if of_read else each.returned) for each in both)
            return (after - before.detach()).float().abs()

        return change

    def _with_noise(self, modules: Collection[nn.Module]) -> dict[nn.Module, list[Call]]:
        """What the modules return for the image with noise."""
        noisy = with_image(self._x, with_noise(self._image.detach()), self._spatial_from)
        with torch.no_grad(), traced(self._model, modules) as calls:
            call(self._model, noisy)
        return {module: [each for each in calls if each.module is module] for module in modules}

    def _of_as_many_tokens(self, entry: Call, token_axis: int) -> list[Call]:
        """The first tensors, up to this one, that have as many tokens."""
        until = next(place for place, each in enumerate(self._calls) if each is entry)
        earlier = (each for each in self._calls[: until + 1] if each.first and each.returned.ndim == len(TOKEN_AXES[0]))
        as_many = (each for each in earlier if each.returned.shape[token_axis] == entry.returned.shape[token_axis])
        return list(islice(as_many, _EARLIEST))

    def _first_moved(self, entries: Sequence[Call], token_axis: int) -> torch.Tensor | None:
        """How the first of the tensors changes that does so: there nothing has mixed the tokens. What a module has read
        is one of them, too: an encoder may mix them before any module returns them.
        """
        modules = {entry.module for entry in entries}
        of_read, of_returned = self.changes(modules, of_read=True), self.changes(modules)
        for entry in entries:
            asked = [of_read, of_returned] if _has_read_as_many(entry, token_axis) else [of_returned]
            for change in (of(entry) for of in asked):
                if change.any():
                    return change
        return None

    def _without_others(self, entry: Call, axes: str, first: torch.Tensor) -> list[Layout]:
        """The readings without the tokens that are not of the image; none where no such tokens are seen.

        first: how the first tensor with as many tokens changes: those of the image do, the others do not.
        """
        others = unmoved_tokens(axes, first)
        return layouts_without(others, axes, tuple(entry.returned.shape), self.size, self._grids) if others else []

    def _clearest(
        self,
        entry: Call,
        layouts: Sequence[Layout],
        change: torch.Tensor,
        firsts: Mapping[str, torch.Tensor],
        clearly: bool = False,
    ) -> Layout | None:
        """The reading that answers best; of those that answer alike that which does so in the first tensor of as many
        tokens, too; of these the first one with one stride along all axes, with a warning where no convolution made its
        grid alone; None where none answers in its place.

        change: of the entry. firsts: by the order of axes how that first tensor changes.
        """
        answers = {layout: answer(layout, change) for layout in layouts}
        passing = {
            layout: found.is_clear if clearly and layout.grid not in self._grids else found.is_in_place
            for layout, found in answers.items()
        }
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
            alike = _clearest_of_first(alike, firsts)
        made = [k for k in alike if k.grid_of_tensor in self._grids] or [k for k in alike if k.grid in self._grids]
        made = made or alike
        first, *others = sorted(made, key=lambda layout: not covers(layout.grid, self.size))
        if others:
            issue(
                CamWarning(
                    f"{entry.name} gives {tuple(entry.returned.shape)}, which can be read as {first} and as "
                    f"{others[0]}, and it answers alike to noise on the image in both: it is read as {first}. Pass a "
                    "reshape_transform if that is wrong"
                )
            )
        return first


def _has_read_as_many(entry: Call, token_axis: int) -> bool:
    """Whether what the module read may be tokens, as many as it returned."""
    read, returned = entry.read, entry.returned
    if read is None or not read.is_floating_point() or read.ndim != returned.ndim:
        return False
    return read.shape[token_axis] == returned.shape[token_axis]


def _clearest_of_first(layouts: Sequence[Layout], firsts: Mapping[str, torch.Tensor]) -> list[Layout]:
    """Of readings of tokens those that answer best in the first tensor of as many; all where none does clearly."""
    if len(layouts) == 1 or any(layout.axes not in firsts for layout in layouts):
        return [*layouts]
    answers = [answer(layout, firsts[layout.axes]) for layout in layouts]
    best = max(answers, key=lambda found: found.correlation)
    return [layout for layout, found in zip(layouts, answers, strict=True) if not best.is_clearer_than(found)]


def _in_order_of_first(layout: Layout, first: torch.Tensor, change: torch.Tensor, may_be_turned: bool) -> Layout:
    """The reading with its axes in the order in which the first tensor of as many tokens answers better, if what is
    read answers nearly as well so. No number tells in which order tokens of squares, or of as many on both axes, are.

    first, change: of that tensor and of what is read. may_be_turned: whether the model may have turned the image, so
    that each axis may have the other's cells, too.
    """
    orders = list(permutations(range(len(layout.grid))))
    turned = [layout._replace(order=order) for order in ((), *orders[1:])]
    if may_be_turned and not layout.order:
        turned += [layout._replace(grid=_in_order(layout, order), order=order) for order in orders[1:]]
    best = max(turned, key=lambda each: answer(each, first).correlation)
    is_alike = answer(layout, change).correlation - answer(best, change).correlation < _TOO_CLOSE
    return best if is_alike and answer(best, first).is_clearer_than(answer(layout, first)) else layout


def _in_order(layout: Layout, order: tuple[int, ...]) -> tuple[int, ...]:
    """The grid along the axes of the image where the tensor has them in another order."""
    return tuple(layout.grid_of_tensor[axis] for axis in order)


def _modules_of_text(model: Any, x: Any) -> set[nn.Module]:
    """The modules of a language model that reads token numbers: its tokens are a text's, with or without an image's
    among them, whatever grid their number would make.
    """
    get = getattr(model, "get_decoder", None)
    if get is None or not isinstance(x, Mapping) or x.keys().isdisjoint(("input_ids", "decoder_input_ids")):
        return set()
    decoder = get()
    # Models of one stack for both, such as ViLT, give themselves.
    is_whole = decoder is model or decoder is getattr(model, "base_model", None)
    return set() if is_whole or not isinstance(decoder, nn.Module) else set(decoder.modules())


def _grids_of_convolutions(calls: Sequence[Call], image: torch.Tensor) -> set[tuple[int, ...]]:
    """The grids that convolutions made, patch embeddings among them; of frames of a clip also those of the clip."""
    made = [tuple(e.returned.shape) for e in calls if isinstance(e.module, nn.modules.conv._ConvNd)]
    of_images = {shape[2:] for shape in made if len(shape) == image.ndim}
    of_frames = {
        shape[2:] for shape in made if len(shape) == image.ndim - 1 and shape[0] == len(image) * image.shape[2]
    }
    return of_images | of_frames | {(image.shape[2], *grid) for grid in of_frames}


def is_of(kinds: Sequence[ModuleType], module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's own of these kinds: pooling and padding return what they read."""
    return type(module).__module__ in [kind.__name__ for kind in kinds]

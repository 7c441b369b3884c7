"""Whether a layer answers where its map says: the check that is made once for each layer and size of the image."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Sequence
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of, rows_of, with_image
from pytorch_grad_cam.engine.inputs import call as run_model
from pytorch_grad_cam.engine.layer_run import Call, CapturedRun
from pytorch_grad_cam.engine.layers import names_of
from pytorch_grad_cam.engine.torch_quirks.quantised_modules import NoDerivative
from pytorch_grad_cam.engine.trees import first_tensor
from pytorch_grad_cam.engine.watch import Outputs
from pytorch_grad_cam.locate.answers import contrast_of, signs_like
from pytorch_grad_cam.locate.inner_preprocessing import FirstReads, ends_of_reads
from pytorch_grad_cam.locate.views import Views

# How often the changed cells change more than others; less is looked at again. By accident it is 0.5; of networks with
# random weights, where cells do not look nearly everywhere, 0.69 to 1. For tokens that do not stand out, as those that
# nothing of the image is in, each of them.
_LEAST_OF_MAPS = 0.6
_LEAST_OF_TOKENS = 0.9
_TOKENS_NDIM = 3  # (N, tokens, channels)
# How much more the tokens that stand out change than the next one. In networks with random weights 3.4 times at least
# where attention alone mixes tokens, 1.2 at most where convolutions do, too (CoaT, EfficientFormer).
_STANDS_OUT = 2
# How strongly a part of the image is changed, in its standard deviations. Deep networks with random weights are chaotic
# at times (EfficientNet-B6): there little tells what much does not; elsewhere it is the other way round (FBNetV3).
_STRENGTHS = (1, 0.05)
# How far from its place a map may be drawn, in cells and in the image's length. From half a cell on a cell is drawn on
# its neighbour's place. A choice: a 32nd is two or three times what a first convolution uses up of padding.
_CELLS, _OF_IMAGE = 1 / 2, 1 / 32

_Passed = weakref.WeakKeyDictionary[nn.Module, weakref.WeakKeyDictionary[nn.Module, set[Any]]]
_passed: _Passed = weakref.WeakKeyDictionary()


def check_places(call: Call, drawn: Sequence[tuple[CapturedRun, torch.Tensor]], transform: Any) -> None:
    """`check_place` for the runs of a call, each with its maps (N * K, 1, *spatial), and the reshape_transform."""
    for (_, read, run, *_), maps in drawn:
        if len(maps):
            how = call.model, call.inputs, call.spatial_from, run.layer, run.call_index
            reading = call.spatial_from, getattr(transform, "__code__", type(transform))
            check_place(*how, read, run.activations, maps[0, 0], reading)


def check_place(
    model: nn.Module,
    inputs: Inputs,
    spatial_from: SpatialFrom,
    layer: nn.Module,
    call_index: int,
    read: Callable[[Any], torch.Tensor],
    activations: torch.Tensor,
    drawn: torch.Tensor,
    reading: Hashable,
) -> None:
    """A CamWarning where the layer's cells do not answer to a change of the image where they are drawn, and where the
    model pads or crops its images, so that the map is of another part than the image.

    A layer's run that has answered in place, for this size of the image and this reading, is not asked again.

    It sees what puts a cell on another one's place: axes that are exchanged or turned; tokens that are sorted, dropped
    or read behind too many extra ones; images that are padded or cropped by half a cell or more. It does not see where
    within its tile a cell looks: that is less than half a cell, finer than a map tells, and `registration` measures it.
    Nor, where cells look nearly everywhere, more than whether each half answers.

    read: from what the layer returned to (N, C, *grid), which was `activations`; reading: what tells it from others.
    drawn: the first sample's map (*spatial). The part of a cell is changed where the map is highest, and one where it
    is lowest.
    Cost: one forward of the first sample, for a batch in one with its changed copy. Where that does not show the place,
    one more for each half along each axis, as four for pictures, and as many again before a warning. Where none of the
    model's first layers reads the image as it is, three more, and three where a layer reads something else of as many
    channels, which may be a part of the image.
    """
    image = image_of(inputs, spatial_from)[:1].detach()
    size = tuple(image.shape[2:])
    passed = _passed.setdefault(model, weakref.WeakKeyDictionary()).setdefault(layer, set())
    if (size, reading, call_index) in passed:
        return
    probe = _Probe(model, inputs, spatial_from, image, layer, call_index, read, activations)
    trouble = probe.trouble_at([_cell(place, size, probe.grid) for place in _highest_and_lowest(drawn)])
    if trouble:
        issue(CamWarning(f"the map of {names_of(model, [layer])[0]} may lie in the wrong place: {trouble}"))
    else:
        passed.add((size, reading, call_index))


class _Probe(NamedTuple):
    """The model with the first sample's image changed. image: (1, C, *spatial); the others as in `check_place`."""

    model: nn.Module
    inputs: Inputs
    spatial_from: SpatialFrom
    image: torch.Tensor
    layer: nn.Module
    call_index: int
    read: Callable[[Any], torch.Tensor]
    activations: torch.Tensor

    @property
    def size(self) -> tuple[int, ...]:
        """The image's."""
        return tuple(self.image.shape[2:])

    @property
    def grid(self) -> tuple[int, ...]:
        """The layer's."""
        return tuple(self.activations.shape[2:])

    def trouble_at(self, cells: Sequence[list[int]]) -> str:
        """Why the map is not where it is drawn, empty where it is. cells: those to change first."""
        first_reads, outputs = self._run_with(self._changed([_pixels(cell, self.size, self.grid) for cell in cells], 1))
        ends = ends_of_reads(self.image, self._views_of) if first_reads.has_other else []
        if not ends and not first_reads.has_image:
            ends = ends_of_reads(self.image, lambda image: self._run_with(image)[0].reads)[:1]
        for of_read in ends:
            if self._is_apart(of_read):
                return _preprocessed(_by(self.size), of_read)
        output = outputs.kept[self.call_index]
        change = self._change(output)
        axes = first_tensor(output).ndim
        if axes == self.image.ndim or axes > _TOKENS_NDIM:  # a map, or those of frames that are folded into the batch
            is_shown = max(fmean(_ranks(change, cells, radius)) for radius in (0, 1)) >= _LEAST_OF_MAPS
        else:
            standing_out = _standing_out(change, len(cells))
            if standing_out and sorted(standing_out) != sorted(cells):
                return _OTHER_CELLS.format(_by(self.size))
            is_shown = bool(standing_out) or min(_ranks(change, cells, 0)) >= _LEAST_OF_TOKENS
        is_in_place = is_shown or any(map(self._halves_answer, _STRENGTHS))
        return "" if is_in_place else _OTHER_CELLS.format(_by(self.size))

    def _is_apart(self, ends: Sequence[tuple[float, float]]) -> bool:
        """Whether what the first layers read begins or ends too far from where the image does."""
        axes = zip(ends, self.size, self.grid, strict=True)
        return any(
            max(abs(begin), abs(end - length)) > length * max(_CELLS / cells, _OF_IMAGE)
            for (begin, end), length, cells in axes
        )

    def _halves_answer(self, strength: float) -> bool:
        """Whether each of the parts that halves along each axis make changes most, among all of them, when it itself is
        changed: with random weights some cells answer to everything more strongly than others do.
        """
        halves = [(0, 1) if cells > 1 else (None,) for cells in self.grid]
        parts = [*product(*halves)]
        shares = []
        for part in parts:
            changed = self._changed([_half_of(self.size, part)], strength)
            change = self._change(self._run_with(changed)[1].kept[self.call_index])
            of_parts = torch.stack([change[tuple(_half_of(self.grid, other))].mean() for other in parts])
            shares.append(of_parts / change.sum())
        answers = torch.stack(shares)
        return bool(((answers / answers.mean(0)).argmax(1).cpu() == torch.arange(len(parts))).all())

    def _changed(self, regions: Sequence[Sequence[slice]], strength: float) -> torch.Tensor:
        noise = strength * contrast_of(self.image) * signs_like(self.image)
        changed = self.image.clone()
        for region in regions:
            part = (slice(None), slice(None), *region)
            changed[part] += noise[part]
        return changed

    def _run_with(self, changed: torch.Tensor) -> tuple[FirstReads, Outputs]:
        """A forward with this image as the first sample's; for a batch with the image as it was and with this one: what
        normalises over the batch needs both.
        """
        samples = len(self.activations)
        batch = changed if samples == 1 else torch.cat([self.image, changed])
        rows = rows_of(self.inputs, torch.zeros(len(batch), dtype=torch.long), samples)
        first_reads = FirstReads(self.model, changed, len(batch), self.spatial_from)
        with torch.no_grad(), first_reads, Outputs([self.layer]) as outputs:
            run_model(self.model, with_image(rows, batch, self.spatial_from))
        return first_reads, outputs

    def _views_of(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Which versions of the image the layer's run sees, see `Views`; none behind quantised modules, where no graph
        leads to the image. Cost: a forward with its graph.
        """
        leaf = image.detach().clone().requires_grad_()
        rows = rows_of(self.inputs, torch.zeros(1, dtype=torch.long), len(self.activations))
        try:
            with torch.enable_grad(), Views(self.model, leaf, self.layer) as views:
                run_model(self.model, with_image(rows, leaf, self.spatial_from))
        except NoDerivative:
            return []
        return views.of_run(self.call_index)

    def _change(self, output: Any) -> torch.Tensor:
        """How much each cell (*grid) of what the layer returned changed."""
        after = self.read(output).detach()
        before = self.activations[0].detach() if len(after) == 1 else after[0]
        return (after[-1] - before).abs().sum(0)


_WAYS_OUT = "check_place=False leaves this check out"
_OTHER_CELLS = (
    "where the {} image was changed, other cells changed more than those that are drawn there. Look how the layer's "
    "output lies in memory, and pass a reshape_transform from it to (N, C, *spatial), or axes= where the channels of "
    f"the image are not its second axis; {_WAYS_OUT}"
)
_PREPROCESSED = (
    "the model {0} the {1} image before its first layer, which reads {2}, and the map of that is drawn over the whole "
    f"image. {{3}} the image before, as the model does, and pass that; {_WAYS_OUT}"
)


def _preprocessed(image: str, ends: Sequence[tuple[float, float]]) -> str:
    """What is said of a model that shows its layers another part of the image, or turns it."""
    if not all(math.isfinite(begin) for begin, _ in ends):
        return _PREPROCESSED.format("crops", image, "a part of it", "Crop")
    part = " x ".join(f"{begin:.0f} to {end:.0f}" for begin, end in ends)
    if any(begin > end for begin, end in ends):
        return _PREPROCESSED.format("mirrors or turns", image, f"its pixels {part}", "Mirror or turn")
    part = f"the part {part} of it (in pixels; more than the image is padding)"
    return _PREPROCESSED.format("pads or crops", image, part, "Pad, crop or resize")


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _highest_and_lowest(drawn: torch.Tensor) -> list[int]:
    flat = drawn.flatten()
    highest, lowest = int(flat.argmax()), int(flat.argmin())
    return [highest, lowest if lowest != highest else len(flat) - 1]


def _cell(place: int, size: Sequence[int], grid: Sequence[int]) -> list[int]:
    pixel = [int(index) for index in torch.unravel_index(torch.tensor(place), tuple(size))]
    return [index * cells // length for index, cells, length in zip(pixel, grid, size, strict=True)]


def _pixels(cell: Sequence[int], size: Sequence[int], grid: Sequence[int]) -> list[slice]:
    """The pixels that the cell covers, in part or as a whole."""
    of_axes = zip(cell, size, grid, strict=True)
    return [slice(index * length // cells, -(-(index + 1) * length // cells)) for index, length, cells in of_axes]


def _half_of(size: Sequence[int], halves: Sequence[int | None]) -> list[slice]:
    """The first or the last half of each axis, or all of it."""
    of_axes = zip(size, halves, strict=True)
    return [
        slice(None) if half is None else slice(-(length // 2), None) if half else slice(length // 2)
        for length, half in of_axes
    ]


def _standing_out(change: torch.Tensor, most: int) -> list[list[int]]:
    """The cells, at most so many, that change much more than all others; empty where none stand out."""
    strongest, places = change.flatten().sort(descending=True)
    gaps = (strongest[:-1] > _STANDS_OUT * strongest[1:])[:most].nonzero()
    count = int(gaps.amax()) + 1 if len(gaps) else 0
    return torch.stack(torch.unravel_index(places[:count], tuple(change.shape)), dim=1).tolist()


def _ranks(change: torch.Tensor, cells: Sequence[Sequence[int]], radius: int) -> list[float]:
    """Of each cell how often it, or one within the radius, changes more than one of the others; 1 without others.

    The others are those nearer to it than to another one of the cells: what one change does beside its cell may be more
    than what another one does in its own.
    """
    places = torch.stack(torch.meshgrid(*map(torch.arange, change.shape), indexing="ij"), dim=-1)
    apart = torch.stack([(places - torch.tensor(cell)).abs() for cell in cells]).to(change.device)
    near, nearest = apart.amax(-1) <= radius, apart.square().sum(-1).argmin(0)
    comparisons = []
    for number, is_near in enumerate(near):
        inside, outside = change[is_near][:, None], change[(nearest == number) & ~near.any(0)]
        comparisons.append(((inside > outside).float() + (inside == outside).float() / 2).flatten())
    return [each.mean().nan_to_num(1.0).item() for each in comparisons]

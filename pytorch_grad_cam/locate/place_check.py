"""Whether a layer answers where its map says: the check that is made once for each layer and size of the image."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of, rows_of, with_image
from pytorch_grad_cam.engine.inputs import call as run_model
from pytorch_grad_cam.engine.layer_run import Call, CapturedRun
from pytorch_grad_cam.engine.layers import names_of
from pytorch_grad_cam.engine.trees import first_tensor
from pytorch_grad_cam.engine.watch import Outputs
from pytorch_grad_cam.locate.answers import contrast_of, signs_like

# How often the cells of the changed parts change more than others, for a warning. By accident it is 0.5. Of 58 networks
# of timm and transformers with random weights the tokens of the right patches had 0.92 (CoaT) to 1.0, those shifted by
# one, of the worse of the two, mostly below 0.7; maps of convolutions, which look aside, 0.69 to 1 on average, but for
# one MobileViT with 0.19.
_LEAST_OF_TOKENS = 0.9
_LEAST_OF_MAPS = 0.6
# A choice: with it a FBNetV3 whose cells look nearly everywhere has 0.6 to 0.9, of single pairs 0.5 to 0.9.
_OTHER_PAIRS = 4

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
    """A CamWarning where the layer's cells do not answer to a change of the image where they are drawn.

    A model's layer that has answered so once, for this size of the image and this reading, is not asked again.

    read: from what the layer returned to (N, C, *grid), which was `activations`; reading: what tells it from others.
    drawn: the first sample's map (*spatial). The part of a cell is changed where the map is highest, and one where it
    is lowest.
    Cost: one forward of the first sample, for a batch in one with its changed copy; four more before a warning, with
    other cells, which tell a place that is wrong from cells that look nearly everywhere.
    """
    image = image_of(inputs, spatial_from)[:1].detach()
    size, grid = tuple(image.shape[2:]), tuple(activations.shape[2:])
    passed = _passed.setdefault(model, weakref.WeakKeyDictionary()).setdefault(layer, set())
    if (size, reading) in passed:
        return
    noise = signs_like(image) * contrast_of(image)

    def rank_of(cells: Sequence[Sequence[int]]) -> tuple[float, float]:
        """How often the cells change more than others, and how often they have to."""
        changed = image.clone()
        for cell in cells:
            part = (slice(None), slice(None), *_pixels(cell, size, grid))
            changed[part] += noise[part]
        with torch.no_grad(), Outputs([layer]) as outputs:
            run_model(model, _instead_of_first(inputs, image, changed, spatial_from))
        output = outputs.kept[call_index]
        after = read(output).detach()
        change = (after[-1] - (activations[0].detach() if len(after) == 1 else after[0])).abs().sum(0)
        ranks = _ranks(change, cells, 0)
        if first_tensor(output).ndim != image.ndim:
            return min(ranks), _LEAST_OF_TOKENS
        return max(fmean(ranks), fmean(_ranks(change, cells, 1))), _LEAST_OF_MAPS

    rank, least = rank_of([_cell(place, size, grid) for place in _highest_and_lowest(drawn)])
    if rank < least:
        rank = fmean([rank, *(rank_of(pair)[0] for pair in _other_pairs(grid))])
    if rank < least:
        issue(CamWarning(_misplaced(names_of(model, [layer])[0], size, rank)))
    else:
        passed.add((size, reading))


def _instead_of_first(inputs: Inputs, image: torch.Tensor, changed: torch.Tensor, spatial_from: SpatialFrom) -> Inputs:
    """The first sample changed; of a batch twice, as it was and changed: what normalises over the batch needs both."""
    samples = len(image_of(inputs, spatial_from))
    batch = changed if samples == 1 else torch.cat([image, changed])
    return with_image(rows_of(inputs, torch.zeros(len(batch), dtype=torch.long), samples), batch, spatial_from)


def _misplaced(name: str, size: Sequence[int], rank: float) -> str:
    return (
        f"the map of {name} may lie in the wrong place: where the {'x'.join(map(str, size))} image was changed, the "
        f"cells drawn there changed more than others in {rank:.0%} of comparisons only. Look how the layer's output "
        "lies in memory, and pass a reshape_transform from it to (N, C, *spatial), or axes= where the channels of the "
        "image are not its second axis; check_place=False leaves this check out"
    )


def _highest_and_lowest(drawn: torch.Tensor) -> list[int]:
    flat = drawn.flatten()
    highest, lowest = int(flat.argmax()), int(flat.argmin())
    return [highest, lowest if lowest != highest else len(flat) - 1]


def _cell(place: int, size: Sequence[int], grid: Sequence[int]) -> list[int]:
    pixel = [int(index) for index in torch.unravel_index(torch.tensor(place), tuple(size))]
    return [index * cells // length for index, cells, length in zip(pixel, grid, size, strict=True)]


def _other_pairs(grid: Sequence[int]) -> list[list[list[int]]]:
    """Four pairs of cells, always the same; of small grids fewer."""
    places = torch.randperm(math.prod(grid), generator=torch.Generator().manual_seed(0))[: 2 * _OTHER_PAIRS]
    cells = torch.stack(torch.unravel_index(places, tuple(grid)), dim=1).tolist()
    return [cells[first : first + 2] for first in range(0, len(cells) - 1, 2)]


def _pixels(cell: Sequence[int], size: Sequence[int], grid: Sequence[int]) -> list[slice]:
    """The pixels that the cell covers, in part or as a whole."""
    of_axes = zip(cell, size, grid, strict=True)
    return [slice(index * length // cells, -(-(index + 1) * length // cells)) for index, length, cells in of_axes]


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

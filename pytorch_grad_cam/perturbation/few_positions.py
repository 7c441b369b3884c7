"""A tail's outputs for cells shown alone, from a few positions in the place of a whole map of zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from pytorch_grad_cam.attention.attention_watch import AttentionWatch
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.trees import AsMap, floating_tensors, has_rows

CellOutputs = Callable[[Rows, torch.Tensor], Any]
"""From rows of the samples and the cell (rows,) that each of them shows alone to the model's scores."""

# Of the highest score. The same sums in another order differed by up to 4e-7 (seven ViTs).
_ROUNDED = 2e-6


@dataclass(frozen=True)
class _TokenRows(Rows):
    """Rows that have some of their sample's `count` tokens: those of the places `tokens` (rows, tokens)."""

    tokens: torch.Tensor
    count: int

    def read(self, tree: Any, batch: int) -> Any:
        """As `Rows.read`, with these tokens of each tensor that has all of them on its second axis."""

        def some_tokens(leaf: Any) -> Any:
            if not has_rows(leaf, batch) or leaf.ndim == 1 or leaf.shape[1] != self.count:
                return Rows.read(self, leaf, batch)
            return leaf[self.index.to(leaf.device)[:, None], self.tokens.to(leaf.device)]

        return tree_map(some_tokens, tree)


def outputs_of_few_positions(
    tail: PartialForward, numbers: torch.Tensor, whole: CellOutputs, as_map: AsMap, known: dict[str, int]
) -> tuple[CellOutputs, int]:
    """What gives the outputs of `whole` from a few of the layer's positions, and from how many; else `whole` from all.

    Where the tail begins with the mean over all positions, one cell divided by their number has the mean of a map that
    is zero elsewhere. Where the score reads a class token, the zero tokens are one key to its attention, and one of
    them that counts for all has their weight. Whether the outputs are the same is seen by the two loudest cells of all
    samples, of scores in float32 or better: cells of zeros, as at the rim of a padded image, tell nothing. What they
    told is kept in `known`.
    numbers: of `cells_of_numbers`, (1, ...). Cost, where nothing is known: two rows of the tail, and two more with few
    positions for each way that is tried.
    """
    ways = [(whole, numbers.numel()), *_ways(tail, numbers)]
    if "way" in known or len(ways) == 1:
        return ways[known.get("way", 0)]
    equal, is_told = _first_equal([way for way, _ in ways], tail, int(numbers.max()), as_map)
    if is_told:
        known["way"] = equal
    return ways[equal]


def _first_equal(ways: list[CellOutputs], tail: PartialForward, count: int, as_map: AsMap) -> tuple[int, bool]:
    """Which of the ways gives what the first one gives, itself if no other does; and whether the cells tell it, of
    which there are `count`: where they say the same, their place may not matter for once.
    """
    loudest = as_map(tail.layer_output).abs().sum(1).flatten().topk(min(2, tail.batch * count)).indices
    rows, cells = Rows.of((loudest // count).tolist(), loudest.device), loudest % count
    try:
        expected = floating_tensors(ways[0](rows, cells))
    except Exception:  # noqa: BLE001
        return 0, False  # a model for one image, which gets one row at a time
    is_told = any(not _equal(tensor[:1].expand_as(tensor), tensor) for tensor in expected)
    for number, way in enumerate(ways[1:], 1):
        try:
            found = floating_tensors(way(rows, cells))
        except Exception:  # noqa: BLE001
            continue  # the tail needs all positions: the whole run, which works, gave `expected`
        if len(found) == len(expected) and all(map(_equal, found, expected)):
            return number, is_told
    return 0, is_told


def _ways(tail: PartialForward, numbers: torch.Tensor) -> Iterator[tuple[CellOutputs, int]]:
    """What might give the outputs of cells alone from few positions, and from how many."""
    axes = [axis for axis in range(1, numbers.ndim) if numbers.shape[axis] > 1]
    by_place = numbers.flatten()
    others = (by_place == 0).nonzero().flatten()
    if len(by_place) != int(numbers.max()) + len(others):
        return  # a cell has several places
    places = by_place.argsort(stable=True)[len(others) :]
    if not len(others):
        yield partial(_of_means, tail, axes, places), 1
    elif axes == [1]:
        yield partial(_of_tokens, tail, places, others), len(others) + 2


def _of_means(tail: PartialForward, axes: list[int], places: torch.Tensor, rows: Rows, cells: torch.Tensor) -> Any:
    """From one position, which has the mean over all: the cell divided by their number."""

    def mean(output: torch.Tensor) -> torch.Tensor:
        by_place = output.movedim(axes, tuple(range(1, 1 + len(axes)))).flatten(1, len(axes))
        of_rows = by_place[torch.arange(len(rows), device=output.device), places[cells]] / len(places)
        return of_rows.reshape([1 if axis in axes else size for axis, size in enumerate(output.shape)])

    return tail(rows, mean)


def _of_tokens(
    tail: PartialForward, places: torch.Tensor, others: torch.Tensor, rows: Rows, cells: torch.Tensor
) -> Any:
    """From the tokens that are no cells, the cell, and one token of zeros that counts for all of the other cells."""
    zero = places[torch.where(cells == 0, 1, 0)]
    tokens = torch.cat([others.expand(len(rows), -1), places[cells][:, None], zero[:, None]], dim=1)
    counts = torch.ones_like(tokens)
    counts[:, -1] = len(places) - 1
    tokens, order = tokens.sort(dim=1)  # what reads the first token, or the last, finds it there
    counts = counts.gather(1, order)
    is_zero = tokens == zero[:, None]

    def counted(weights: torch.Tensor) -> torch.Tensor:
        of_rows = torch.unflatten(weights, 0, (len(rows), -1))
        of_rows = of_rows * counts.to(weights).reshape(len(rows), *[1] * (of_rows.ndim - 2), -1)
        return (of_rows / of_rows.sum(-1, keepdim=True)).flatten(0, 1)

    def shown(output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill(is_zero.reshape(*is_zero.shape, *[1] * (output.ndim - 2)), 0)

    some = _TokenRows(rows.samples, rows.index, tokens, len(places) + len(others))
    with AttentionWatch(counted, lambda attention: None):
        return tail(some, shown)


def _equal(found: torch.Tensor, expected: torch.Tensor) -> bool:
    # Rounding in half precision is as large as what cells differ by.
    if found.shape != expected.shape or expected.dtype not in (torch.float32, torch.float64):
        return False
    return torch.allclose(found, expected, rtol=0, atol=_ROUNDED * expected.abs().max().item())

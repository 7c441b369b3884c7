"""The scores of a model whose layer shows one cell of its map alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from pytorch_grad_cam.engine.chunks import in_chunks, rows_at_a_time
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import ClassTargets, RowScores, Target
from pytorch_grad_cam.engine.trees import AsMap, copied
from pytorch_grad_cam.perturbation.few_positions import CellOutputs, outputs_of_few_positions

# One axis of the paper's 3 x 3 Gaussian, whose nine weights add up to 1.
_GAUSSIAN = (0.25, 0.5, 0.25)


class CellsOfLayer(NamedTuple):
    """Where the cells lie in what a layer returned.

    numbers: of `cells_of_numbers`, as `as_map` reads leaves of these `shapes`. known: of `outputs_of_few_positions`.
    """

    as_map: AsMap
    shapes: Sequence[torch.Size | None]
    numbers: list[torch.Tensor | None]
    known: dict[str, int]


def windows(grid: Sequence[int], gaussian: bool) -> torch.Tensor:
    """What is left of each cell where one is shown: (shown, cells), 1 for the cell itself and 0 for all others; with
    `gaussian` a quarter of it and less of its neighbours, on two axes.
    """
    if not gaussian:
        return torch.eye(math.prod(grid))
    of_axes = []
    for cells in grid:
        places = torch.arange(cells)
        apart = (places[:, None] - places).abs()
        of_axes.append(torch.tensor([_GAUSSIAN[1], _GAUSSIAN[0], 0.0])[apart.clamp(max=2)])
    window = of_axes[0]
    for of_axis in of_axes[1:]:
        window = torch.kron(window, of_axis)
    return window


def cells_of_numbers(output: Any, as_map: AsMap, grid: Sequence[int]) -> list[torch.Tensor | None]:
    """Of each leaf of what a layer returned the cell of each of its numbers, from 1; 0 for those that are in no cell,
    as a class token. None for leaves that are no floating tensors.

    Axes along which the cells do not change, as that of the channels and mostly that of the samples, have length 1.
    as_map: from what the layer returned to a map (N, C, *grid). Raises ValueError where it mixes numbers.
    """
    leaves, structure = tree_flatten(output)
    sources = [_source(leaf) for leaf in leaves]
    wanted = [source for source, leaf in zip(sources, leaves, strict=True) if source is not leaf]
    with torch.enable_grad():
        cells = torch.arange(1.0, math.prod(grid) + 1).reshape(*grid)
        maps = as_map(tree_unflatten(sources, structure))
        numbered = (maps * cells.to(maps.device)).sum()
        found = torch.autograd.grad(numbered, wanted, allow_unused=True, materialize_grads=True)
    found = tuple(map(_without_equal_slices, found))
    if any(not torch.equal(numbers, numbers.round()) or (numbers < 0).any() for numbers in found):
        raise ValueError(
            "a cell is shown alone where the layer's output holds it in numbers of its own, but the reshape_transform "
            "mixes or scales them: pass one that only selects and arranges, or take a method with gradients"
        )
    remaining = iter(found)
    return [None if source is leaf else next(remaining).long() for source, leaf in zip(sources, leaves, strict=True)]


def _without_equal_slices(numbers: torch.Tensor) -> torch.Tensor:
    """One slice along each axis whose slices are all equal."""
    for axis in range(numbers.ndim):
        first = numbers.narrow(axis, 0, min(1, numbers.shape[axis]))
        numbers = first if torch.equal(first.expand_as(numbers), numbers) else numbers
    return numbers


def _source(leaf: Any) -> Any:
    """A leaf for gradients in float32, where numbers of cells are exact, of more than a tail could be run for; what is
    no floating tensor as it is.
    """
    is_float = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.detach().float().requires_grad_() if is_float else leaf


def scores_of_cells(
    tail: PartialForward,
    target_lists: Sequence[Sequence[Target]],
    as_map: AsMap,
    grid: Sequence[int],
    gaussian: bool,
    batch_size: int | None,
    learnt: dict[Any, Any],
) -> torch.Tensor:
    """The scores (K, N, *grid) of K lists of N targets where the layer shows each cell of each sample alone.

    Of classes it is their probability among all classes; what is in no cell stays. batch_size: how many rows the tail
    gets at a time; None for as many as suit the device. learnt: of the model, see `KnownModel`. Raises what
    `cells_of_numbers` raises.
    Cost: a row of the tail for each sample and cell; of few positions where they tell the same, see
    `outputs_of_few_positions`.
    """
    device = tail.scores.device
    samples, cells = tail.batch, math.prod(grid)
    if not samples:
        return torch.zeros(len(target_lists), 0, *grid, device=device)
    numbers, known = _cells_of_layer(tail, as_map, grid, learnt)
    kept = torch.cat([torch.ones(cells, 1), windows(grid, gaussian)], dim=1).to(device)

    def whole(of_rows: Rows, of_cells: torch.Tensor) -> Any:
        def alone(output: Any) -> Any:
            leaves, structure = tree_flatten(output)
            shown = [
                copied(leaf) if of_leaf is None else leaf * _of_rows(kept[of_cells], of_leaf, of_rows, samples).to(leaf)
                for leaf, of_leaf in zip(leaves, numbers, strict=True)
            ]
            return tree_unflatten(shown, structure)

        return tail(of_rows, alone)

    outputs_of: CellOutputs = whole
    size = rows_at_a_time(device)
    if not gaussian and len(numbers) == 1 and numbers[0] is not None and len(numbers[0]) == 1:
        outputs_of, positions = outputs_of_few_positions(tail, numbers[0].to(device), whole, as_map, known)
        size *= max(1, cells // positions)
    rows = Rows.repeated(range(samples), cells, device)
    score_rows = RowScores(target_lists, device)
    are_classes = tail.scores.ndim == 2 and all(isinstance(targets, ClassTargets) for targets in target_lists)

    def scores(start: int, stop: int) -> torch.Tensor:
        of_rows = rows[start:stop]
        outputs = outputs_of(of_rows, torch.arange(start, stop, device=device) % cells)
        return score_rows(full_precision(outputs).softmax(1) if are_classes else outputs, of_rows).T

    size = size if batch_size is None else batch_size
    return in_chunks(scores, len(rows), size, "ReciproCAM cells").T.reshape(len(target_lists), samples, *grid)


def _cells_of_layer(
    tail: PartialForward, as_map: AsMap, grid: Sequence[int], learnt: dict[Any, Any]
) -> tuple[list[torch.Tensor | None], dict[str, int]]:
    """The numbers' cells and what is known of few positions, see `CellsOfLayer`."""
    shapes = [leaf.shape if isinstance(leaf, torch.Tensor) else None for leaf in tree_leaves(tail.layer_output)]
    case = CellsOfLayer, tail.layer, tail.call_index
    if case not in learnt or learnt[case][:2] != (as_map, shapes):
        learnt[case] = CellsOfLayer(as_map, shapes, cells_of_numbers(tail.layer_output, as_map, grid), {})
    cells: CellsOfLayer = learnt[case]
    return cells.numbers, cells.known


def _of_rows(kept: torch.Tensor, numbers: torch.Tensor, rows: Rows, samples: int) -> torch.Tensor:
    """What is kept of each number of a leaf: kept (rows, 1 + cells) at the cells of its rows' numbers."""
    of_rows = numbers.expand(samples, *numbers.shape[1:])[rows.index.to(numbers.device)]
    return kept.to(numbers.device).gather(1, of_rows.flatten(1)).reshape(of_rows.shape)

"""Gradients on the straight way from a layer's output of zeros to what it returned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from pytorch_grad_cam.engine.chunks import chunk_by_chunk, rows_at_a_time
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import RowScores, Target
from pytorch_grad_cam.engine.trees import AsMap, copied, floating_tensors


def path_gradients(
    tail: PartialForward,
    target_lists: Sequence[Sequence[Target]],
    as_map: AsMap,
    steps: int,
    batch_size: int | None,
) -> torch.Tensor:
    """The mean over the steps of the gradients of K lists of N targets: (K, N, C, *grid), float32 or better.

    Step i of m is at (i + 1/2) / m of the way. as_map: from what the layer returned to (N, C, *grid). batch_size: how
    many rows the tail gets at a time; None for as many as suit the device.
    Cost: a row of the tail, and K backwards through it, for each step and sample.
    """
    device = tail.scores.device
    if not tail.batch:
        return torch.stack([full_precision(as_map(tail.layer_output))] * len(target_lists))
    score_rows = RowScores(target_lists, device)
    size = rows_at_a_time(device) if batch_size is None else batch_size
    at_a_time = max(1, size // tail.batch)

    def summed(first: int, behind: int) -> torch.Tensor:
        shares = torch.tensor([(step + 0.5) / steps for step in range(first, behind)], device=device)
        of_lists = [full_precision(as_map(tree)) for tree in _gradients(tail, score_rows, shares)]
        return torch.stack([torch.unflatten(each, 0, (behind - first, -1)).sum(0) for each in of_lists])

    return reduce(torch.add, chunk_by_chunk(summed, steps, at_a_time, "steps")) / steps


def _gradients(tail: PartialForward, score_rows: RowScores, shares: torch.Tensor) -> list[Any]:
    """For each target list the gradients with respect to the layer's output, times each of the shares in turn."""
    rows = Rows.of([*range(tail.batch)] * len(shares), shares.device)
    of_rows = shares.repeat_interleave(tail.batch)
    on_the_way: Any = None

    def scaled(leaf: torch.Tensor) -> torch.Tensor:
        share = of_rows.to(leaf).reshape(-1, *[1] * (leaf.ndim - 1))
        return (leaf * share).requires_grad_() if leaf.is_floating_point() else leaf

    def replace(output: Any) -> Any:
        nonlocal on_the_way
        on_the_way = tree_map_only(torch.Tensor, scaled, output)
        return copied(on_the_way)  # an operation in place behind the layer must not meet a leaf

    with torch.enable_grad():
        scores = score_rows(tail(rows, replace), rows)
        return [_gradient_of(score.sum(), on_the_way) for score in scores]


def _gradient_of(score: torch.Tensor, tree: Any) -> Any:
    """The tree with gradients in the place of its floating tensors."""
    found = iter(
        torch.autograd.grad(score, floating_tensors(tree), None, True, allow_unused=True, materialize_grads=True)
    )
    return tree_map_only(torch.Tensor, lambda leaf: next(found) if leaf.is_floating_point() else leaf, tree)

"""What the numbers that a layer returned add to a score, by DeepLIFT through the model's part behind the layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.chunks import rows_at_a_time
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.tail import TOLERANCES, PartialForward
from pytorch_grad_cam.engine.targets import RowScores, Target
from pytorch_grad_cam.engine.trees import AsMap, copied, floating_tensors
from pytorch_grad_cam.perturbation.deep_lift import Lifted, Reference

# Of what is added up, and of the score: rounding leaves out far less of the one, and up to this of the other.
_LOST, _ROUNDED = 0.01, 1e-5


def tail_contributions(
    tail: PartialForward, target_lists: Sequence[Sequence[Target]], as_map: AsMap, batch_size: int | None
) -> torch.Tensor:
    """What each number of a layer's map adds to the scores of K lists of N targets against zeros: (K, N, C, *grid).

    as_map: from what the layer returned to (N, C, *grid). batch_size: how many samples the tail gets at a time; None
    for as many as suit the device.
    A CamWarning where all numbers together, those of tokens that are in no cell too, add something else than the
    score's change: the tail has functions for which DeepLIFT has no rule here, which keep their derivatives.
    Raises ValueError where the tail has no gradients, and what `Lifted` raises.
    Cost: two rows of the tail for each sample, and K backwards through one.
    """
    device = tail.scores.device
    if not tail.batch:
        return torch.stack([full_precision(as_map(tail.layer_output))] * len(target_lists))
    score_rows = RowScores(target_lists, device)
    size = rows_at_a_time(device) if batch_size is None else batch_size
    chunks, lost = [], []
    for start in range(0, tail.batch, size):
        rows = Rows.of(range(start, min(start + size, tail.batch)), device)
        added, scores, without = _contributions(tail, score_rows, rows)
        lost.append(_are_lost(added, scores, without))
        chunks.append(torch.stack([full_precision(as_map(tree)) for tree in added]))
    if torch.cat(lost, dim=1).any():
        issue(CamWarning(_INCOMPLETE))
    return torch.cat(chunks, dim=1)


_INCOMPLETE = (
    "contributions of the layer's channels do not add up to what the layer adds to the score: behind it are functions "
    "that DeepLIFT has no rule for. Take AblationCAM, or LayerIntegratedGradients, whose contributions do"
)


def _are_lost(added: Sequence[Any], scores: torch.Tensor, without: torch.Tensor) -> torch.Tensor:
    """Where contributions do not add up to the change of the scores (K, rows)."""
    leaves = [[leaf.flatten(1).to(scores) for leaf in floating_tensors(tree)] for tree in added]
    totals, sizes = (
        torch.stack([torch.stack([measure(leaf).sum(1) for leaf in of_list]).sum(0) for of_list in leaves])
        for measure in (torch.clone, torch.abs)
    )
    share = max(_LOST, *(TOLERANCES.get(leaf.dtype, 0) for leaf in floating_tensors(added)))
    allowed = share * torch.maximum(sizes, (scores - without).abs()) + _ROUNDED * scores.abs()
    return (totals - (scores - without)).abs() > allowed


def _contributions(
    tail: PartialForward, score_rows: RowScores, rows: Rows
) -> tuple[list[Any], torch.Tensor, torch.Tensor]:
    """For each target list what each number of the layer's output adds; the scores with the layer's output and with
    zeros (K, rows).
    """
    leaves: Any = None

    def begin(output: Any, scale: int) -> Any:
        nonlocal leaves
        leaves = tree_map_only(torch.Tensor, lambda leaf: _leaf(leaf * scale), output)
        return copied(leaves)  # an operation in place behind the layer must not meet a leaf

    with torch.enable_grad():
        with Reference() as reference:
            without = score_rows(tail(rows, lambda output: begin(output, 0)), rows).detach()
        with Lifted(reference):
            scores = score_rows(tail(rows, lambda output: begin(output, 1)), rows)
        if not scores.requires_grad:
            raise ValueError(
                "no gradient leads from the score to the layer, which DeepLIFT needs behind it: take AblationCAM or "
                "ReciproCAM, which only ask for scores"
            )
        return [_added(score, leaves) for score in scores], scores.detach(), without


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def _added(score: torch.Tensor, tree: Any) -> Any:
    """The tree with multipliers times values in the place of its floating tensors."""
    found = iter(
        torch.autograd.grad(score.sum(), floating_tensors(tree), None, True, allow_unused=True, materialize_grads=True)
    )
    return tree_map_only(
        torch.Tensor, lambda leaf: next(found) * leaf.detach() if leaf.is_floating_point() else leaf, tree
    )

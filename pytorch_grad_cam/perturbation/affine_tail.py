"""What each channel of a layer adds to a score, where the model is affine behind the layer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.tail import TOLERANCES, Replace
from pytorch_grad_cam.engine.torch_quirks.quantised_modules import NoDerivative

_AFFINE = {
    f"{name}Backward{version}"
    for version in (0, 1)
    for name in (
        "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "Add", "Alias", "AsStrided", "AvgPool2D", "AvgPool3D", "Cat", "Clone",
        "Expand", "Gather", "Index", "Mean", "Neg", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "Squeeze",
        "Stack", "Sub", "Sum", "T", "ToCopy", "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "View",
    )
}  # fmt: skip
_AFFINE_IN_EACH_FACTOR = {f"{name}Backward0" for name in ("Addmm", "Bmm", "Convolution", "Dot", "Mm", "Mul", "Mv")}


ScoresWith = Callable[[Rows, Replace], torch.Tensor]
"""From rows of the samples, and what replaces the layer's output for them, to scores (K, rows)."""


def contributions(
    scores_with: ScoresWith, layer_output: Any, channel_axis: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    r"""What each channel adds to the K scores of each sample, gradient times output (K, N, C), and whether a sample's
    scores fall by just that without the channel: bool (N,). None where a score is not affine.

    The score of an affine tail (global pooling and a linear classifier) falls by just the sum of the contributions of
    what is set to zero. The graph tells where it may be affine. A comparison, a detached value or a choice of the
    highest class leaves no trace there, so the falls without the even channels, the odd ones and all are compared.

    Cost: five runs of the tail, one with the first sample and four with all, and a backward for each of the K lists.
    Where the tail is not affine it is run with the first sample only: the graph behind an early layer is large.
    """
    if not isinstance(layer_output, torch.Tensor):
        return None
    every = Rows.of(range(len(layer_output)), layer_output.device)
    kept: list[torch.Tensor] = []

    def source(output: torch.Tensor) -> torch.Tensor:
        kept[:] = [output.clone().requires_grad_()]
        return kept[0].clone()  # an operation in place behind the layer must not meet a leaf

    with torch.enable_grad():
        for samples in sorted({1, len(every)}):
            try:
                scores = scores_with(every[:samples], source)
            except NoDerivative:
                return None
            if not scores.requires_grad or not all(map(_is_affine, nodes_behind(scores.grad_fn))):
                return None
        added, sizes = zip(*(_by_channel(score, kept[0], channel_axis) for score in scores), strict=True)
    falls_of_channels, size = torch.stack(added).to(scores.device), torch.stack(sizes).to(scores.device)
    tolerance = TOLERANCES.get(layer_output.dtype, 1e-3) * size
    exact = torch.ones(len(every), dtype=torch.bool, device=scores.device)
    for removed in (slice(0, None, 2), slice(1, None, 2), slice(None)):
        falls = scores.detach() - scores_with(every, partial(_without, removed=removed, channel_axis=channel_axis))
        exact &= ((falls - falls_of_channels[:, :, removed].sum(2)).abs() <= tolerance).all(0)
    return falls_of_channels, exact


def _by_channel(score: torch.Tensor, output: torch.Tensor, channel_axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient times output of the score (N,), summed over each channel (N, C), and its absolute sum (N,)."""
    (gradient,) = torch.autograd.grad(score.sum(), output, retain_graph=True)
    added = (gradient * full_precision(output.detach())).movedim(channel_axis, 1)
    return added.reshape(*added.shape[:2], -1).sum(2), added.flatten(1).abs().sum(1)


def _without(output: torch.Tensor, removed: slice, channel_axis: int) -> torch.Tensor:
    remaining = output.clone()
    remaining.movedim(channel_axis, 1)[:, removed] = 0
    return remaining


def _is_affine(node: Any) -> bool:
    """Of a node of a graph whose only leaf is the layer's output: whether it is affine in what leads there."""
    inputs = [following for following, _ in node.next_functions if following is not None]
    return not inputs or node.name() in _AFFINE or (node.name() in _AFFINE_IN_EACH_FACTOR and len(inputs) == 1)

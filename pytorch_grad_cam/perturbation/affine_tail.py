"""What each value of a layer's output adds to a score, where the model is affine behind the layer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.tail import TOLERANCES, PartialForward
from pytorch_grad_cam.engine.targets import Target, scores_of_lists

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


def contributions(
    tail: PartialForward, image: int, targets: Sequence[Target], channel_axis: int
) -> list[torch.Tensor] | None:
    r"""For each target gradient times output (1, ...) of one image of the layer; None where one is not affine.

    The score of an affine tail (global pooling and a linear classifier) falls by just the sum of the contributions of
    what is set to zero. The graph tells where it may be affine. A comparison, a detached value or a choice of the
    highest class leaves no trace there, so the falls without the even channels, the odd ones and all are compared.
    Cost: two forwards of the tail and one backward for each target, of one image and three copies of it.
    """
    kept: list[torch.Tensor] = []

    def source(output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().clone().requires_grad_())
        return kept[0].clone()  # an operation in place behind the layer must not meet a leaf

    def scores_with(replace: Callable, rows: int) -> torch.Tensor:
        return scores_of_lists(tail(image, rows, replace), [[target] * rows for target in targets])

    if not isinstance(tail.layer_output, torch.Tensor):
        return None
    with torch.enable_grad():
        scores = scores_with(source, 1)
        if not scores.requires_grad or not all(map(_is_affine, nodes_behind(scores))):
            return None
        gradients = [torch.autograd.grad(score, kept, retain_graph=True)[0] for score in scores]
    added = [(gradient * kept[0]).detach() for gradient in gradients]
    removed = torch.zeros_like(added[0], dtype=torch.bool).repeat(3, *[1] * (added[0].ndim - 1))
    by_channel = removed.movedim(channel_axis, 1)
    by_channel[0, ::2] = by_channel[1, 1::2] = by_channel[2] = True
    falls = scores.detach() - scores_with(lambda output: output.masked_fill(removed, 0), 3)
    expected = torch.stack([(each * removed).flatten(1).sum(1) for each in added])
    size = torch.stack([each.abs().sum() for each in added])[:, None]
    exact = (falls - expected).abs() <= TOLERANCES.get(added[0].dtype, 1e-3) * size
    return added if exact.all() else None


def _is_affine(node: Any) -> bool:
    """Of a node of a graph whose only leaf is the layer's output: whether it is affine in what leads there."""
    inputs = [following for following, _ in node.next_functions if following is not None]
    return not inputs or node.name() in _AFFINE or (node.name() in _AFFINE_IN_EACH_FACTOR and len(inputs) == 1)

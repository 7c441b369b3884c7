"""The score whose layer is looked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.cam_warning import warnings_kept
from pytorch_grad_cam.engine.detections.predictions import Detected
from pytorch_grad_cam.engine.layouts import covers, covers_finely
from pytorch_grad_cam.engine.segmentation.segments import Segmented
from pytorch_grad_cam.engine.targets import Targets, scores_of_lists, target_lists
from pytorch_grad_cam.engine.trace import Call

_OF_HIGHEST = ("AmaxBackward", "MaxBackward", "TopkBackward", "SortBackward", "AdaptiveMaxPool")
NO_GRADIENT = (
    "no gradient leads from the output to the image (a quantised model, inference_mode, detach or argmax in it?), "
    "so the layer cannot be found: pass target_layers, for methods without gradients (EigenCAM, ScoreCAM, AblationCAM)"
)


class AskedScore(NamedTuple):
    """A scalar of the output, and what kind of output it is a score of.

    is_of_whole_image: a score of a class, that all positions may lead to; else of a box, a token, a region, or the
    highest of several places.
    is_dense: of an output that itself is a map, as a segmentation's.
    """

    score: torch.Tensor
    is_of_whole_image: bool
    is_dense: bool

    @property
    def edge(self) -> GradientEdge:
        """Where the score stands in the graph."""
        return get_gradient_edge(self.score)


def asked_scores(
    outputs: Any,
    scores: Any,
    targets: Targets,
    uses_targets: bool,
    calls: Sequence[Call],
    image_shape: Sequence[int],
) -> Iterator[AskedScore]:
    """The targets' score; then, for what has no gradient, the highest number, and a random projection of the features.

    outputs: the model's. scores: what targets read of them. calls: what the modules returned. image_shape: (N, C,
    *spatial).
    Raises ValueError when no number of the output has a gradient; for targets see `engine.targets.resolve_targets`.
    """
    is_of_whole_image = isinstance(scores, torch.Tensor) and scores.ndim <= 2
    plain = scores.plain if isinstance(scores, Segmented) else scores
    kind = is_of_whole_image, _is_dense(plain, image_shape[2:])
    if uses_targets and (targets is not None or is_of_whole_image or isinstance(scores, list | Detected)):
        with warnings_kept(shown=None):  # the call says them
            lists = target_lists(targets, scores, image_shape=image_shape)[0]
        asked = sum_of_lists(scores_of_lists(scores, lists))
        if asked.requires_grad:
            is_of_one_place = is_of_whole_image and _is_highest_of_several(asked, calls)
            yield AskedScore(asked, is_of_whole_image and not is_of_one_place, kind[1])
    leaves = [leaf for leaf in tree_leaves([scores, outputs]) if isinstance(leaf, torch.Tensor)]
    differentiable = [leaf for leaf in leaves if leaf.requires_grad and leaf.numel()]
    if not differentiable:
        raise ValueError(NO_GRADIENT)
    if isinstance(scores, torch.Tensor) and scores.requires_grad:
        differentiable = [scores]
    of_boxes = (
        [each.logits for each in scores.predictions if each.logits.numel()] if isinstance(scores, Detected) else []
    )
    if any(logits.requires_grad for logits in of_boxes):
        differentiable = of_boxes
    yield AskedScore(torch.stack([leaf.float().amax() for leaf in differentiable]).sum(), *kind)
    of_heads = [entry.read for entry in calls if entry.returned.shape == differentiable[0].shape]
    features = [read for read in of_heads if read is not None and read.requires_grad]
    if features:
        noise = torch.randn(features[-1].shape, generator=torch.Generator().manual_seed(0), device="cpu")
        yield AskedScore((features[-1] * noise.to(features[-1])).sum(), *kind)


def _is_highest_of_several(score: torch.Tensor, calls: Sequence[Call]) -> bool:
    """Whether the score is the highest of what the last learned modules gave, as of all places of all levels where a
    detector serves as a classifier.
    """
    learned = {entry.returned.grad_fn for entry in calls if entry.module._parameters}
    behind = nodes_behind(get_gradient_edge(score).node, ends=learned)
    return any(node.name().startswith(_OF_HIGHEST) for node in behind)


def sum_of_lists(scores: torch.Tensor) -> torch.Tensor:
    """One score of those of K lists (K, N), which has a gradient where any of them has one."""
    # Other factors than one, so that classes whose sum is constant do not cancel.
    return (scores.sum(1) * torch.linspace(1, 2, len(scores)).to(scores)).sum()


def _is_dense(scores: Any, size: Sequence[int]) -> bool:
    if not isinstance(scores, torch.Tensor) or scores.ndim not in (len(size) + 1, len(size) + 2):
        return False
    grid = tuple(scores.shape[-len(size) :])
    # Without an axis of classes, as depths are, an output of queries or tokens may have the image's proportions.
    has_classes = scores.ndim == len(size) + 2
    return scores.ndim > 2 and (covers if has_classes else covers_finely)(grid, size)

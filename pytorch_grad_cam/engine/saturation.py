"""Probabilities so near to 0 or 1 that rounding loses their gradient."""

from functools import partial
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.probabilities import is_logarithmic, is_softmax, probabilities_behind

# 1 - p, the factor of the gradient, is then off by more than 6 %.
_EPSILONS_FROM_ONE = 16
_LOST = (
    "a score is a probability so near to 0 or 1 that rounding loses its gradient: there, the logit in front of it is "
    "explained instead. Explain the logits of all, by a model without its softmax or sigmoid or by an "
    "output_transform, to compare maps"
)


def explain_logits_where_lost(scores: torch.Tensor) -> None:
    """Where scores are probabilities whose gradient rounding loses, let it be that of the logits, with a CamWarning.

    Others keep their own gradient. scores: with their graph, in which a softmax, log-softmax or sigmoid must be the
    last operation that computes: selections, sums, views and conversions may follow.
    Cost: for such scores one wait for the device and the backward from the scores to the probabilities, else nothing.
    """
    nodes: list[Any] = probabilities_behind(scores.grad_fn)
    if not nodes:
        return
    edges = [GradientEdge(node, 0) for node in nodes]
    gradients = torch.autograd.grad(scores.sum(), edges, retain_graph=True)
    if torch.stack([is_lost(*of_node).any() for of_node in zip(nodes, gradients, strict=True)]).any():
        _explain_logits(nodes)


def is_lost(node: Any, gradient: torch.Tensor) -> torch.Tensor:
    """Where the backward of a probabilities' node loses the gradient (N, ...) with respect to them: bool (N, 1, ...).

    It is lost for a sample where it is for all of the probabilities that are asked for.
    """
    asked, is_kept = gradient != 0, ~_at_limit(node)
    of_sample = [*range(1, asked.ndim)] or ([0] if is_softmax(node) else [])
    if not of_sample:
        return asked & ~is_kept
    return asked.any(of_sample, keepdim=True) & ~(asked & is_kept).any(of_sample, keepdim=True)


def _at_limit(node: Any) -> torch.Tensor:
    saved: torch.Tensor = node._saved_result.detach()
    probabilities = saved.exp() if is_logarithmic(node) else saved
    limits = torch.finfo(saved.dtype)
    at_one = 1 - probabilities <= _EPSILONS_FROM_ONE * limits.eps
    return at_one if is_logarithmic(node) else at_one | (probabilities < limits.tiny / limits.eps**0.5)


def _explain_logits(nodes: list[Any]) -> None:
    new = [node for node in nodes if _explain_logits not in node.metadata]
    for node in new:
        node.metadata[_explain_logits] = node.register_hook(partial(_of_logits, node))
    if new:
        issue(CamWarning(_LOST))


def _of_logits(node: Any, of_logits: Any, of_probabilities: Any) -> tuple[torch.Tensor]:
    (through,), (received,) = of_logits, of_probabilities
    return (torch.where(is_lost(node, received), received.to(through.dtype), through),)

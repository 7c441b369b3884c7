"""Probabilities so near to 0 or 1 that rounding loses their gradient."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

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
    asked = [(_Limits.of(node), gradient) for node, gradient in zip(nodes, gradients, strict=True)]
    if torch.stack([limits.lose(gradient).any() for limits, gradient in asked]).any():
        new = [node for node in nodes if _LOST not in node.metadata]
        for node in new:
            node.metadata[_LOST] = node.register_hook(partial(_of_logits, _Limits.of(node)))
        if new:
            issue(CamWarning(_LOST))


class _Limits(NamedTuple):
    """Which probabilities are so near to 0 or 1, and which axes a sample has. It has no hold on the graph."""

    reached: torch.Tensor
    axes_of_sample: list[int]

    @classmethod
    def of(cls, node: Any) -> _Limits:
        """Those of a node of probabilities or their logarithms."""
        saved: torch.Tensor = node._saved_result.detach()
        limits, are_logarithms = torch.finfo(saved.dtype), is_logarithmic(node)
        probabilities = saved.exp() if are_logarithms else saved
        reached = 1 - probabilities <= _EPSILONS_FROM_ONE * limits.eps
        if not are_logarithms:
            reached |= probabilities < limits.tiny / limits.eps**0.5
        return cls(reached, [*range(1, saved.ndim)] or ([0] if is_softmax(node) else []))

    def lose(self, gradient: torch.Tensor) -> torch.Tensor:
        """For which samples all that the gradient (N, ...) asks for is lost: bool (N, 1, ...)."""
        asked = gradient != 0
        if not self.axes_of_sample:
            return asked & self.reached
        is_kept = (asked & ~self.reached).any(self.axes_of_sample, keepdim=True)
        return asked.any(self.axes_of_sample, keepdim=True) & ~is_kept


def _of_logits(limits: _Limits, of_logits: Any, of_probabilities: Any) -> tuple[torch.Tensor]:
    (through,), (received,) = of_logits, of_probabilities
    return (torch.where(limits.lose(received), received.to(through.dtype), through),)

"""The biases that a forward pass added, wherever in the model, and a score's gradients where they were added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from pytorch_grad_cam.engine.inputs import Inputs, call


class BiasGradients:
    """Records the biases of all convolutions and batch normalisations of a forward pass, in the order of execution.

    It watches the calls of `F.conv2d`, `F.batch_norm` and their kin, not modules: subclasses, layers that are reused
    or skipped, and functional calls are all read as they were executed. The calls of other threads are not seen.

    Used in a call in the place of `engine.capture.Capture`.
    """

    def __init__(self, model: nn.Module, *_: Any) -> None:
        self.runs: Sequence[tuple[nn.Module, Any]] = ()
        self._model = model
        self._added: list[tuple[GradientEdge, torch.Tensor]] = []

    def __enter__(self) -> BiasGradients:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to remove: no hooks are registered."""

    def run(self, inputs: Inputs) -> Any:
        """Run the model and keep its biases. Cost: one forward with its graph."""

        def keep(result: torch.Tensor, bias: torch.Tensor) -> None:
            if result.requires_grad:
                # An edge, not the tensor: what happens to the tensor in place behind it does not move the edge.
                self._added.append((get_gradient_edge(result), bias.detach()))

        with BiasWatch(keep), torch.enable_grad():
            return call(self._model, inputs)

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[list[tuple[int, Any]], Sequence[torch.Tensor | None]]:
        """Each bias that the score depends on by way of the inputs: its number in the order of execution, and what
        `contribution` keeps of it. And the gradients with respect to `inputs`. Cost: one whole backward.

        Raises ValueError when no gradient leads from the score to the inputs.
        """
        arrived: dict[int, Any] = {}

        def keep(
            index: int, edge: GradientEdge, bias: torch.Tensor, gradients: tuple[torch.Tensor | None, ...]
        ) -> None:
            gradient = gradients[edge.output_nr]
            if gradient is not None:
                arrived[index] = self.contribution(bias, gradient)

        added = enumerate(self._added)
        handles = [edge.node.register_prehook(partial(keep, index, edge, bias)) for index, (edge, bias) in added]
        found: Sequence[torch.Tensor | None] = [None]
        try:
            if score.requires_grad:
                found = torch.autograd.grad(score, inputs, allow_unused=True, retain_graph=keep_graph)
        finally:
            for handle in handles:
                handle.remove()
        if found[0] is None:
            raise ValueError("no gradient leads from the score to the input: the model detaches what it computes")
        return sorted(arrived.items()), found

    def contribution(self, bias: torch.Tensor, gradient: torch.Tensor) -> Any:
        """What is kept of a bias (C,) and the score's gradient (N, C, *spatial) at the positions that it was added to.

        Here both. A subclass that keeps less saves the memory of the gradients, which arrive one by one.
        """
        return bias, gradient


class BiasWatch(TorchFunctionMode):
    """Hands on the result of each operation that adds a bias, and the bias."""

    def __init__(self, keep: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        super().__init__()
        self.keep = keep

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch.enable_grad():  # where a model runs its backbone under no_grad, the graph must reach through it
            result = function(*args, **kwargs)
        bias_of = _BIAS_OF.get(function)
        bias = None if bias_of is None else bias_of(*args, **kwargs)
        if bias is not None:
            self.keep(result, bias)
        return result


def _convolution_bias(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *_: Any, **__: Any
) -> torch.Tensor | None:
    return bias if input.ndim == weight.ndim else None  # not of one sample without a batch


def _batch_norm_bias(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor | None:
    r"""All that a batch normalisation adds: $\beta - \gamma \mu / \sqrt{\sigma^2 + \epsilon}$."""
    if training or running_mean is None or running_var is None:
        return bias
    shift = -running_mean * torch.rsqrt(running_var + eps)
    shift = shift if weight is None else shift * weight
    return shift if bias is None else shift + bias


_BIAS_OF: dict[Callable[..., torch.Tensor], Callable[..., torch.Tensor | None]] = {
    F.conv1d: _convolution_bias,
    F.conv2d: _convolution_bias,
    F.conv3d: _convolution_bias,
    F.conv_transpose1d: _convolution_bias,
    F.conv_transpose2d: _convolution_bias,
    F.conv_transpose3d: _convolution_bias,
    F.batch_norm: _batch_norm_bias,
}

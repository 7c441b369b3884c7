"""Quantised modules, whose derivative PyTorch takes to be zero: gradients go round them, by shortcuts, in silence."""

from typing import Any

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.watch import Arguments, Watch

_QUANTISED, _IN_FLOATS = "torch.ao.nn.quantized", "torch.ao.nn.quantized.reference"
_OF_TORCHAO = "torchao."


def is_quantised(module: nn.Module) -> bool:
    """Whether a module computes with PyTorch's quantised kernels, static ones or those of `quantize_dynamic`, or has a
    quantised weight of torchao.
    """
    return _has_quantised_kernels(module) or any(
        type(parameter).__module__.startswith(_OF_TORCHAO) for parameter in module._parameters.values()
    )


def _has_quantised_kernels(module: nn.Module) -> bool:
    kind = type(module).__module__
    return kind.startswith(_QUANTISED) and not kind.startswith(_IN_FLOATS)


class NoDerivative(ValueError):
    """A gradient is wanted that does not exist."""


class QuantisedWatch(Watch):
    """A context: raises NoDerivative where a gradient would have to lead through one of the modules.

    Of torchao's, those with activations in floats have a gradient, those with quantised ones return a tensor that
    requires one, for the weight, but does not depend on what the module read.
    """

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        wanted = [tensor for tensor in floating_tensors(inputs) if tensor.requires_grad]
        if not torch.is_grad_enabled() or not wanted:
            return
        if _has_quantised_kernels(module) or not _depends_on(wanted, floating_tensors(output)):
            raise NoDerivative(
                f"no gradient leads through {type(module).__name__}, which is quantised: explain the model as it was "
                "before, or name target_layers for methods without gradients (EigenCAM, ScoreCAM, AblationCAM)"
            )


def _depends_on(read: list[torch.Tensor], returned: list[torch.Tensor]) -> bool:
    """Whether a gradient leads from the tensors that a module returned to those that it read."""
    ends = {get_gradient_edge(tensor).node for tensor in read}
    starts = [get_gradient_edge(tensor).node for tensor in returned if tensor.requires_grad]
    return not ends.isdisjoint(nodes_behind(*starts, ends=ends))

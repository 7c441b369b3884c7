"""Quantised modules, whose derivative PyTorch takes to be zero: gradients go round them, by shortcuts, in silence."""

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.watch import Arguments, Watch

_QUANTISED, _IN_FLOATS = "torch.ao.nn.quantized", "torch.ao.nn.quantized.reference"


def is_quantised(module: nn.Module) -> bool:
    """Whether a module computes with PyTorch's quantised kernels, static ones or those of `quantize_dynamic`."""
    kind = type(module).__module__
    return kind.startswith(_QUANTISED) and not kind.startswith(_IN_FLOATS)


class NoDerivative(ValueError):
    """A gradient is wanted that does not exist."""


class QuantisedWatch(Watch):
    """A context: raises NoDerivative where a gradient would have to lead through one of the modules."""

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        if torch.is_grad_enabled() and any(
            isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in tree_leaves(inputs)
        ):
            raise NoDerivative(
                f"no gradient leads through {type(module).__name__}, which is quantised: explain the model as it was "
                "before, or name target_layers for methods without gradients (EigenCAM, ScoreCAM, AblationCAM)"
            )

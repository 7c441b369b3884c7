"""Quantised modules, which have no derivative: gradients would go round them, through shortcuts, without a word."""

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.watch import Arguments, Watch

_QUANTISED = "torch.ao.nn.quantized"  # static ones and those of quantize_dynamic


def is_quantised(module: nn.Module) -> bool:
    """Whether a module computes with PyTorch's quantised kernels."""
    return type(module).__module__.startswith(_QUANTISED)


class QuantisedWatch(Watch):
    """A context: raises ValueError where a gradient would have to lead through one of the modules, and cannot."""

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        if torch.is_grad_enabled() and _requires_gradient(inputs) and not _requires_gradient(output):
            raise ValueError(
                f"no gradient leads through {type(module).__name__}, which is quantised: explain the model as it was "
                "before, or name target_layers for methods without gradients (EigenCAM, ScoreCAM, AblationCAM)"
            )


def _requires_gradient(tree: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in tree_leaves(tree))

"""A Hardsigmoid that can be differentiated twice.

PyTorch, up to 2.14 at least, has no derivative of `hardsigmoid_backward`, alone among the activations:
https://github.com/pytorch/pytorch/blob/v2.14.1/tools/autograd/derivatives.yaml. It is zero.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class _Hardsigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward((x > -3) & (x < 3))
        return F.hardsigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        rises: torch.Tensor = ctx.saved_tensors[0]
        return gradient * rises / 6


class TwiceDifferentiableHardsigmoid(TorchFunctionMode):
    """A context: `F.hardsigmoid` has the same values and gradients, and a second derivative."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is F.hardsigmoid:
            return _hardsigmoid(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _hardsigmoid(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    result: torch.Tensor = _Hardsigmoid.apply(input)
    if inplace:
        input.copy_(result)
        return input
    return result

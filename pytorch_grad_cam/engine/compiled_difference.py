"""Whether a compiled model gives what the model as it was written gave."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

# Of the largest value, relative: fused operations round otherwise.
_ROUNDED = {torch.float16: 2e-2, torch.bfloat16: 1e-1}


def difference(compiled: Callable[[], Any], written: Any) -> str | None:
    """In what that which runs compiled differs from what the model as it was written gave, up to rounding; None if it
    does not. Of the leaves of both, floating-point tensors are compared.
    """
    try:
        found = tree_leaves(compiled())
    except Exception as error:  # noqa: BLE001
        # Whatever cannot be compiled of it, the model ran as it was written.
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    expected = tree_leaves(written)
    pairs = [pair for pair in zip(found, expected, strict=False) if _is_floating_point(pair[1])]
    is_same = len(found) == len(expected) and all(_is_close(*pair) for pair in pairs)
    return None if is_same else "what it gives when it is compiled is not the same"


def _is_floating_point(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _is_close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    finite = expected.detach()[expected.isfinite()].abs()
    tolerance = _ROUNDED.get(found.dtype, 1e-3) * (finite.amax().item() if len(finite) else 0)
    return torch.allclose(found.detach().float(), expected.detach().float(), rtol=0, atol=tolerance, equal_nan=True)

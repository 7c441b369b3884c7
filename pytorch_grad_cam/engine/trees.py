"""What modules return: tensors, or tuples, lists and dicts of them."""

from collections.abc import Callable
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from pytorch_grad_cam.engine.maps import full_precision

AsMap = Callable[[Any], torch.Tensor]
"""From what a layer returned, or the gradient with respect to it, to a map (N, C, *grid)."""


def detached(tree: Any) -> Any:
    """The tree, of dataclasses too, with its tensors outside the autograd graph."""
    return tree.detach() if isinstance(tree, torch.Tensor) else tree_map(_detached, tree)


def _detached(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf.detach()
    if not is_dataclass(leaf) or isinstance(leaf, type):
        return leaf
    result = copy(leaf)
    for field in fields(leaf):
        object.__setattr__(result, field.name, detached(getattr(leaf, field.name)))  # frozen ones too
    return result


def to_array(value: Any) -> Any:
    """A tensor as a NumPy array on the host; anything else as it is."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def copied(tree: Any) -> Any:
    """The tree with copies of its tensors: an operation in place on one does not change the other."""
    return tree.clone() if isinstance(tree, torch.Tensor) else tree_map_only(torch.Tensor, copied, tree)


def has_rows(leaf: Any, rows: int) -> bool:
    """Whether it is a tensor whose first axis has that length."""
    return isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == rows


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tree's tensors, in its order."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def floating_tensors(tree: Any) -> list[torch.Tensor]:
    """The tree's floating-point tensors, in its order."""
    if isinstance(tree, torch.Tensor):
        return [tree] if tree.is_floating_point() else []
    return [tensor for tensor in tensors_in(tree) if tensor.is_floating_point()]


def first_tensor(output: Any) -> torch.Tensor:
    """The first floating-point tensor of what a layer returned. Raises ValueError where there is none."""
    tensors = floating_tensors(output)
    if not tensors:
        raise ValueError(_no_tensor_in(output))
    return tensors[0]


def _no_tensor_in(output: Any) -> str:
    kinds = ", ".join(str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in tree_leaves(output))
    return (
        f"a target layer returned no floating-point tensor but {type(output).__name__} ({kinds}): pass a "
        "reshape_transform from it to a map"
    )


def read_as_map(as_map: Callable[[Any], torch.Tensor], detach: bool, tree: Any) -> torch.Tensor:
    """What a layer returned, or the gradient with respect to it, as (N, C, *grid), float32 or better."""
    return full_precision(as_map(detached(tree) if detach else tree))

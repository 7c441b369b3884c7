"""What modules return: tensors, or tuples, lists and dicts of them."""

from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map


def detached(tree: Any) -> Any:
    """The tree with its tensors outside the autograd graph."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, tree)


def copied(tree: Any) -> Any:
    """The tree with copies of its tensors: an operation in place on one does not change the other."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, tree)


def floating_tensors(tree: Any) -> list[torch.Tensor]:
    """The tree's floating-point tensors, in its order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]

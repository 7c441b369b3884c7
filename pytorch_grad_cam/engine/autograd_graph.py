"""The graph that autograd keeps of a computation."""

from typing import Any

import torch


def nodes_behind(score: torch.Tensor) -> list[Any]:
    """The nodes of the graph of a tensor, each before those that it leads to; none of a tensor without a graph."""
    order, seen, stack = [], set(), [(score.grad_fn, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions)
    return order[::-1]

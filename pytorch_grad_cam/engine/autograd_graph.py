"""The graph that autograd keeps of a computation."""

from collections.abc import Collection
from typing import Any


def nodes_behind(*starts: Any, ends: Collection[Any] = ()) -> list[Any]:
    """The nodes of the graph from some on, each before those that it leads to; none behind those of `ends`.

    starts: tensors' `grad_fn`; none are behind None.
    """
    order, seen, stack = [], set(), [(start, False) for start in starts]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node not in ends:
                stack.extend((following, False) for following, _ in node.next_functions)
    return order[::-1]

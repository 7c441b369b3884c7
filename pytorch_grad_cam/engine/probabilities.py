"""Probabilities in the autograd graph, and the logits in front of them."""

from typing import Any

_PROBABILITIES = ("Softmax", "LogSoftmax", "Sigmoid")
# What selects numbers, puts them together or changes their shape and precision, but not what they say.
_HANDING_ON = (
    *("Alias", "Amax", "Cat", "Clone", "Expand", "Gather", "Index", "Max", "Mean", "Permute", "ReshapeAlias"),
    *("Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "Sum", "T", "ToCopy", "Topk", "Transpose"),
    *("Unbind", "UnsafeView", "Unsqueeze", "View", "Where"),
)


MAY_HAND_ON = frozenset(f"{kind}Backward{number}" for kind in (*_PROBABILITIES, *_HANDING_ON) for number in range(3))
"""The names of the nodes that are, or may hand on, probabilities."""


def probabilities_behind(node: Any) -> list[Any]:
    """The nodes of a softmax or sigmoid, whose logarithm too, that a node of the graph hands on."""
    return [origin for origin in origins(node) if _kind(origin) in _PROBABILITIES]


def origins(node: Any) -> list[Any]:
    """The nodes that computed the numbers which a node of the graph hands on: itself where it computes."""
    found, stack, seen = [], [node], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _kind(node) in _HANDING_ON:
            stack.extend(following for following, _ in node.next_functions)
        else:
            found.append(node)
    return found


def logits_behind(probabilities: Any) -> list[Any]:
    """The nodes that computed the logits of a softmax's or sigmoid's node."""
    return origins(probabilities.next_functions[0][0])


def is_logarithmic(probabilities: Any) -> bool:
    """Whether the node is of their logarithms."""
    return _kind(probabilities) == "LogSoftmax"


def is_softmax(probabilities: Any) -> bool:
    """Whether the node's probabilities depend on each other's logits."""
    return _kind(probabilities) != "Sigmoid"


def _kind(node: Any) -> str:
    return type(node).__name__.rpartition("Backward")[0]

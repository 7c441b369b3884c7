"""The paths of an autograd graph, and its cuts: the tensors that every path goes through."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pytorch_grad_cam.engine.autograd_graph import nodes_behind

Edge = tuple[Any, int]
"""One of the edges that lead on from a node: the node, and which of its `next_functions`."""

# What puts tensors together of which the score may read only one: predictions of several levels, boxes of several
# images. Elsewhere a gradient of exactly zero is this image's accident, as behind a gate that is shut.
_JOINS = ("Cat", "Stack", "IndexPut", "Where", "Maximum", "Scatter", "ScatterAdd", "MaskedScatter")
_NAMES_OF_JOINS = (*(f"{name}Backward" for name in _JOINS), "CopySlices")


class Paths:
    """The paths of the autograd graph from a start to an end, counted exactly: in integers, down and up.

    end: the image, or another tensor of the graph. dead: edges that are no paths.
    """

    def __init__(self, start: GradientEdge, end: torch.Tensor, dead: Collection[Edge] = ()) -> None:
        last = get_gradient_edge(end).node
        order = nodes_behind(start.node, ends=[last])
        self._down: Counter[tuple[Any, int]] = Counter({(start.node, start.output_nr): 1})
        into: Counter[Any] = Counter({start.node: 1})
        for node in order:
            for following, output in _alive(node, dead) if node is not last else ():
                self._down[following, output] += into[node]
                into[following] += into[node]
        self._up: Counter[Any] = Counter()
        for node in reversed(order):
            if node is last:
                self._up[node] = 1
            else:
                self._up[node] = sum(self._up[following] for following, _ in _alive(node, dead))
        self.count = self._up[start.node]

    def through(self, tensor: torch.Tensor) -> int:
        """How many of the paths go through a tensor."""
        return self._down[tensor.grad_fn, tensor.output_nr] * self._up[tensor.grad_fn]

    def are_cut_by(self, tensor: torch.Tensor) -> bool:
        """Whether all go through it."""
        return self.count > 0 and self.through(tensor) == self.count


def joins_before(start: GradientEdge, ends: Collection[Any], dead: Collection[Edge] = ()) -> list[Any]:
    """The nodes behind the start that put several tensors together, each before those that it leads to.

    ends: what lies behind these nodes is left out.
    """
    within = nodes_behind(start.node, ends=ends)
    return [node for node in within if is_join(node) and len([*_alive(node, dead)]) > 1]


def is_join(node: Any) -> bool:
    """Whether the node puts tensors together of which the score may read only one."""
    return bool(node.name().split("::")[-1].startswith(_NAMES_OF_JOINS))


def nodes_ahead(nodes: Sequence[Any], ends: Collection[Any]) -> set[Any]:
    """Of nodes, each before those that it leads to, those that lead to the ends, which are among them."""
    leading: set[Any] = set()
    for node in reversed(nodes):
        if node in ends or any(following in leading for following, _ in node.next_functions):
            leading.add(node)
    return leading


def dead_edges(score: torch.Tensor, nodes: Collection[Any]) -> set[Edge]:
    """Of the edges that lead on from the nodes those without a gradient of the score.

    Cost: the backward to them, and one wait for the device.
    """
    edges = [(node, place) for node in nodes for place, (following, _) in enumerate(node.next_functions) if following]
    if not edges:
        return set()
    ends = [GradientEdge(*node.next_functions[place]) for node, place in edges]
    gradients = torch.autograd.grad(score, ends, retain_graph=True, allow_unused=True)
    are_alive = [score.new_zeros(()) if gradient is None else gradient.any().to(score) for gradient in gradients]
    return {edge for edge, is_alive in zip(edges, torch.stack(are_alive).tolist(), strict=True) if not is_alive}


def edges_on(node: Any, dead: Collection[Edge]) -> list[tuple[int, GradientEdge]]:
    """The node's edges that are not dead: which of its `next_functions`, and where it leads."""
    edges = enumerate(node.next_functions)
    return [(place, GradientEdge(*edge)) for place, edge in edges if edge[0] is not None and (node, place) not in dead]


def _alive(node: Any, dead: Collection[Edge]) -> Iterator[tuple[Any, int]]:
    for place, (following, output) in enumerate(node.next_functions):
        if following is not None and (not dead or (node, place) not in dead):
            yield following, output

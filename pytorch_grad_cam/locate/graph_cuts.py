"""The paths of an autograd graph, and its cuts: the tensors that every path goes through."""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from pytorch_grad_cam.engine.autograd_graph import nodes_behind

Edge = tuple[Any, int]
"""One of the edges that lead on from a node: the node, and which of its `next_functions`."""

# What puts tensors together of which the score may read only one: predictions of several levels, boxes of several
# images. Elsewhere a gradient of exactly zero is this image's accident, as behind a gate that is shut.
_JOINS = ("Cat", "Stack", "IndexPut", "Where", "Maximum", "Scatter", "ScatterAdd", "MaskedScatter")


class Paths:
    """The paths of the autograd graph from a start to the image, counted exactly: in integers, down and up.

    image: a leaf of the graph. dead: edges that are no paths.
    """

    def __init__(self, start: GradientEdge, image: torch.Tensor, dead: Collection[Edge] = ()) -> None:
        order = nodes_behind(start.node)
        self._down: Counter[tuple[Any, int]] = Counter({(start.node, start.output_nr): 1})
        into: Counter[Any] = Counter({start.node: 1})
        for node in order:
            for following, output in _alive(node, dead):
                self._down[following, output] += into[node]
                into[following] += into[node]
        self._up: Counter[Any] = Counter()
        for node in reversed(order):
            if getattr(node, "variable", None) is image:
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
    names = tuple(f"{name}Backward" for name in _JOINS) + ("CopySlices",)
    return [node for node in within if node.name().split("::")[-1].startswith(names) and len([*_alive(node, dead)]) > 1]


def dead_edges(score: torch.Tensor, nodes: Collection[Any]) -> set[Edge]:
    """Of the edges that lead on from the nodes those without a gradient of the score. Cost: the backward to them."""
    edges = [(node, place) for node in nodes for place, (following, _) in enumerate(node.next_functions) if following]
    if not edges:
        return set()
    ends = [GradientEdge(*node.next_functions[place]) for node, place in edges]
    gradients = torch.autograd.grad(score, ends, retain_graph=True, allow_unused=True)
    return {edge for edge, gradient in zip(edges, gradients, strict=True) if gradient is None or not gradient.any()}


def edges_on(node: Any, dead: Collection[Edge]) -> list[GradientEdge]:
    """Where the node's edges lead that are not dead."""
    return [GradientEdge(*following) for following in _alive(node, dead)]


def _alive(node: Any, dead: Collection[Edge]) -> Iterator[tuple[Any, int]]:
    for place, (following, output) in enumerate(node.next_functions):
        if following is not None and (not dead or (node, place) not in dead):
            yield following, output

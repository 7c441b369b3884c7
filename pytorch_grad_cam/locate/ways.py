"""The ways from a score to layers: which of the tensors that were put together in front of it lead there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import get_gradient_edge

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.locate.graph_cuts import dead_edges, is_join, nodes_ahead

Layers = Mapping[Any, int]
"""Nodes of the graph, where layers' tensors were made, and the number of the layer that each is of."""


class Ways(NamedTuple):
    """What a score reads of layers.

    edges: of the nodes that put tensors together and lead to the layers by several edges, those with a gradient: the
    number of the node, counted from the score, and that of its edge. It is the same for two scores of one model that
    read the same levels of a pyramid. first: the layers that it reads other than through another one of them.
    """

    edges: frozenset[tuple[int, int]]
    first: frozenset[int]


def ways_between(score: torch.Tensor, layers: Layers) -> Ways:
    """The ways from a score to layers. Cost: the backward from the score to where tensors were put together."""
    start = get_gradient_edge(score).node
    within = nodes_behind(start, ends=layers)
    leading = nodes_ahead(within, layers)
    joins = [node for node in within if is_join(node) and len(_leading_edges(node, leading)) > 1]
    dead = dead_edges(score, joins)

    def alive_edges(node: Any) -> list[int]:
        return [edge for edge in _leading_edges(node, leading) if (node, edge) not in dead]

    seen: set[Any] = set()
    ahead: list[Any] = [start]
    while ahead:
        node = ahead.pop()
        if node not in seen:
            seen.add(node)
            ahead += [] if node in layers else [node.next_functions[edge][0] for edge in alive_edges(node)]
    edges = frozenset((number, edge) for number, join in enumerate(joins) for edge in alive_edges(join))
    return Ways(edges, frozenset(layers[node] for node in seen if node in layers))


def layers_of(tensors: list[tuple[int, torch.Tensor]]) -> Layers:
    """The nodes of tensors, each with the number of its layer."""
    return {get_gradient_edge(tensor).node: number for number, tensor in tensors if tensor.requires_grad}


def _leading_edges(node: Any, leading: set[Any]) -> list[int]:
    return [edge for edge, (following, _) in enumerate(node.next_functions) if following in leading]

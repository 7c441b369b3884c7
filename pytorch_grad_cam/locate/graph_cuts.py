"""The cuts of an autograd graph: the tensors that every path goes through."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from pytorch_grad_cam.engine.autograd_graph import nodes_behind


def cuts_between(score: torch.Tensor, image: torch.Tensor) -> Callable[[torch.Tensor], bool]:
    """A function that tells whether every path of the autograd graph from the score to the image goes through a tensor.

    image: a leaf of the graph. Exact: the paths are counted, in integers, down from the score and up from the image;
    a cut has them all.
    """
    order = nodes_behind(score)
    paths_down: Counter[tuple[Any, int]] = Counter({(score.grad_fn, 0): 1})
    paths_into: Counter[Any] = Counter({score.grad_fn: 1})
    for node in order:
        for following, output in node.next_functions:
            if following is not None:
                paths_down[following, output] += paths_into[node]
                paths_into[following] += paths_into[node]
    paths_up: Counter[Any] = Counter()
    for node in reversed(order):
        if getattr(node, "variable", None) is image:
            paths_up[node] = 1
        else:
            paths_up[node] = sum(paths_up[following] for following, _ in node.next_functions if following is not None)
    total = paths_up[score.grad_fn]

    def is_cut(tensor: torch.Tensor) -> bool:
        return paths_down[tensor.grad_fn, tensor.output_nr] * paths_up[tensor.grad_fn] == total

    return is_cut

"""What the score depends on beside the layer that is explained, and that is not in the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import SpatialFrom, call, image_of
from pytorch_grad_cam.engine.trace import Call, traced
from pytorch_grad_cam.engine.trees import floating_tensors, tensors_in
from pytorch_grad_cam.locate.candidate_map import CandidateMap
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.locate.traced_forward import TracedForward


def maps_beside(best: CandidateMap, maps: Sequence[CandidateMap], calls: Sequence[Call]) -> list[CandidateMap]:
    """Of maps in the order of execution those that lead to the score beside all runs of the best one's module, as those
    of an ensemble's other members: of each branch the last.
    """
    runs = _nodes_of_runs(best, calls)
    in_front = {*nodes_behind(*runs)}
    beside = []
    for other in reversed(maps):
        node = other.call.returned.grad_fn
        if node not in in_front and runs.isdisjoint(nodes_behind(node)):
            beside.append(other)
            runs |= _nodes_of_runs(other, calls)
            in_front |= {*nodes_behind(*runs)}
    return beside


def warn_of_branches(explained: str, *others: str) -> None:
    """A CamWarning where there are other branches than the one that is explained. All are names of modules."""
    if others:
        issue(
            CamWarning(
                f"the score depends on {explained}, which is explained, and beside it on {', '.join(others)}, whose "
                f"part is not in the map. The mean of all is that of target_layers={[explained, *others]}"
            )
        )


def warn_of_other_inputs(
    model: nn.Module, x: Any, spatial_from: SpatialFrom, forward: TracedForward, location: Location
) -> None:
    """A CamWarning where another input of as many axes changes the output but not the layers, as that of a second
    stream: what it says is not in the map. forward: of x. Cost: with such an input one forward.
    """
    image = image_of(x, spatial_from)
    others = {id(leaf): leaf for leaf in floating_tensors(x) if _is_beside(leaf, image)}
    if not others:
        return
    layers = {*location.layers}
    # Not noise: what the model reads may have to be in a range.
    changed = tree_map_only(torch.Tensor, lambda leaf: leaf.flip(-1) / 2 if id(leaf) in others else leaf, x)
    with torch.no_grad(), traced(model, layers) as calls:
        outputs = call(model, changed)
    of_layers = [entry for entry in forward.runs if entry.module in layers]
    sees_it = any(
        before.returned.requires_grad and not torch.equal(before.returned, after.returned)
        for before, after in zip(of_layers, calls, strict=False)
    )
    pairs = zip(tensors_in(forward.outputs), tensors_in(outputs), strict=False)
    if not sees_it and any(not torch.equal(before, after) for before, after in pairs):
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in others.values())
        issue(
            CamWarning(
                f"the score depends on {location.name}, which is explained, and beside it on another input, {shapes}, "
                "whose part is not in the map: spatial_from=, its position or key, explains that one"
            )
        )


def _nodes_of_runs(candidate: CandidateMap, calls: Sequence[Call]) -> set[Any]:
    """The graph's nodes of all that the module of a map returned."""
    return {entry.returned.grad_fn for entry in calls if entry.module is candidate.call.module}


def _is_beside(tensor: torch.Tensor, image: torch.Tensor) -> bool:
    """Whether a tensor of the inputs is not the image, nor its view with other axes, and has as many axes."""
    is_image = tensor.data_ptr() == image.data_ptr() and tensor.numel() == image.numel()
    return tensor.ndim == image.ndim and not is_image

"""From the runs of layers in a call to one map for each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import RunEvidence, warn_of_blank_maps
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import full_precision, scaled_evidence
from pytorch_grad_cam.engine.trees import detached


class CapturedRun(NamedTuple):
    """A run that the map is made of: its place among all that were captured, and what reads a tree as a map."""

    place: int
    read: Callable[[Any], torch.Tensor]
    run: LayerRun

    def explaining(self, position: int, gradients: Sequence[Any] | None) -> LayerRun:
        """The run for one target list, with the gradients of its score with respect to all that was captured."""
        gradient = None if gradients is None else gradients[self.place]
        return self.run._replace(position=position, grads=None if gradient is None else self.read(gradient))


class SignedMaps(NamedTuple):
    """What the target lists have made of a run so far: signed maps (N, *grid), largest absolute gradients (N,)."""

    maps: list[torch.Tensor]
    strongest_gradients: list[torch.Tensor]

    def add(self, run: LayerRun, signed: torch.Tensor) -> None:
        """Those of one more target list."""
        self.maps.append(signed)
        if run.grads is not None:
            self.strongest_gradients.append(torch.linalg.vector_norm(run.grads.flatten(1), torch.inf, dim=1))


def read_as_map(as_map: Callable[[Any], torch.Tensor], detach: bool, tree: Any) -> torch.Tensor:
    """What a layer returned, or the gradient with respect to it, as (N, C, *grid), float32 or better."""
    return full_precision(as_map(detached(tree) if detach else tree))


def chosen_runs(
    captured: Sequence[tuple[nn.Module, Any]], call_index: int | None
) -> list[tuple[int, nn.Module, int, Any]]:
    """Of the runs (layer, output) those that the map is made of: each with its place, and which run of the layer it is.

    call_index: which run of each layer; None is all. Raises IndexError where a layer did not run as often.
    """
    places: dict[nn.Module, list[int]] = {}
    for place, (layer, _) in enumerate(captured):
        places.setdefault(layer, []).append(place)
    chosen = []
    for layer, of_layer in places.items():
        indices = range(len(of_layer)) if call_index is None else (call_index,)
        if call_index is not None and not -len(of_layer) <= call_index < len(of_layer):
            raise IndexError(f"call_index is {call_index}, but {type(layer).__name__} ran {len(of_layer)} times")
        chosen += [(of_layer[i], layer, i % len(of_layer), captured[of_layer[i]][1]) for i in indices]
    return chosen


def maps_of_layers(
    runs: Sequence[LayerRun], signed: Sequence[SignedMaps], size: Sequence[int], alternative: Callable[[], str]
) -> list[torch.Tensor]:
    """For each layer its maps (N * K, 1, *size), rectified, scaled to [0, 1] and enlarged: the mean over its runs.

    signed: of each run, for K target lists. alternative: see `warn_of_blank_maps`, which says why maps are blank.
    """
    of_layers: dict[nn.Module, list[torch.Tensor]] = {}
    scaled, evidence = [], []
    for run, (of_lists, gradients) in zip(runs, signed, strict=True):
        maps = torch.stack(of_lists, dim=1)
        evidence.append(RunEvidence(run.activations, maps, torch.stack(gradients, dim=1) if gradients else None))
        scaled.append(scaled_evidence(maps.flatten(0, 1)))
        of_layers.setdefault(run.layer, []).append(run.enlarged(scaled[-1][:, None], size))
    warn_of_blank_maps(scaled, evidence, alternative)
    return [maps[0] if len(maps) == 1 else torch.stack(maps).mean(0) for maps in of_layers.values()]

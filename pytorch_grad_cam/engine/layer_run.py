"""What one call of a CAM hands on: the runs of its layers, and the maps that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import RunEvidence, warn_of_blank_maps
from pytorch_grad_cam.engine.inputs import Inputs, rows_of, with_image
from pytorch_grad_cam.engine.inputs import call as run_model
from pytorch_grad_cam.engine.maps import resize, scaled_evidence
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import Target


class Enlarging(Protocol):
    """Where the cells of a layer are drawn: a `registration.Registration`."""

    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, *grid) at the size of the image."""


class Call(NamedTuple):
    """One call of a CAM, made once the model has answered.

    inputs: all that the model was called with; image: the (N, C, *spatial) among them. scores: what targets read of the
    output, by output_transform. target_lists: K lists with one target a sample; one empty list where a method knows no
    targets. eigen_smooth: what the caller asked for. known_tails: whether the tail behind a layer can be run on its
    own, which a CAM knows from call to call.
    """

    model: Any
    inputs: Inputs
    image: torch.Tensor
    scores: Any
    target_lists: Sequence[Sequence[Target]]
    eigen_smooth: bool
    output_transform: Any
    spatial_from: int | str | None
    known_tails: dict[tuple[nn.Module, int, int], bool]

    def scores_of(self, images: torch.Tensor, rows: torch.Tensor) -> Any:
        """What targets read of the output for images in the place of those of the samples `rows`, with the other inputs
        of these samples. Cost: one forward.
        """
        inputs = images
        if self.inputs is not self.image:
            inputs = with_image(rows_of(self.inputs, rows, len(self.image)), images, self.spatial_from)
        return self.output_transform(run_model(self.model, inputs))


class LayerRun(NamedTuple):
    """One run of a target layer in a call, for one of the target lists: what a method makes a map of.

    call_index: which run of the layer this is. activations: (N, C, *grid), float32 or better, on the model's device.
    registration: where the layer's cells are drawn; None is as even tiles. of_all_lists: see `of_targets`.
    position, targets: the target list that is explained. grads: the gradient of its score, of the activations' shape;
    None for methods without gradients.
    """

    call: Call
    layer: nn.Module
    call_index: int
    activations: torch.Tensor
    registration: Enlarging | None
    of_all_lists: dict[str, torch.Tensor]
    position: int = 0
    grads: Any = None

    @property
    def image(self) -> torch.Tensor:
        """The (N, C, *spatial) that is explained."""
        return self.call.image

    @property
    def targets(self) -> Sequence[Target]:
        """One target a sample."""
        return self.call.target_lists[self.position]

    def enlarged(self, maps: torch.Tensor, size: Sequence[int], align_corners: bool = False) -> torch.Tensor:
        """Maps (N, C, *grid) of the layer at the input's size.

        align_corners: of even tiles, the outermost centres lie on the outermost pixels.
        """
        return resize(maps, size, align_corners) if self.registration is None else self.registration.enlarge(maps)

    def tail(self) -> PartialForward:
        """The part of the model behind this run. Cost: see `PartialForward`."""
        call = self.call
        batch = len(call.image)
        return PartialForward(
            call.model, self.layer, call.inputs, batch, self.call_index, call.output_transform, call.known_tails
        )

    def of_targets(self, compute: Callable[[Sequence[Sequence[Target]]], torch.Tensor]) -> torch.Tensor:
        """What `compute` gives for the target list: from K lists to (K, ...).

        It is asked once for all lists of the call, for methods whose forwards are the same whatever the target.
        """
        if "computed" not in self.of_all_lists:
            self.of_all_lists["computed"] = compute(self.call.target_lists)
        return self.of_all_lists["computed"][self.position]


class CapturedRun(NamedTuple):
    """A run that the map is made of, and what the target lists have made of it so far.

    place: where it is among all that were captured. read: from what the layer returned, or the gradient with respect to
    it, to (N, C, *grid). signed_maps: (N, *grid) of each list; strongest_gradients: their largest absolute values (N,).
    """

    place: int
    read: Callable[[Any], torch.Tensor]
    run: LayerRun
    signed_maps: list[torch.Tensor]
    strongest_gradients: list[torch.Tensor]

    def explain(
        self, position: int, gradients: Sequence[Any] | None, signed_map: Callable[[LayerRun], torch.Tensor]
    ) -> None:
        """Add what one target list makes of the run.

        gradients: of the list's score with respect to all that was captured. signed_map: from the run to (N, *grid).
        """
        gradient = None if gradients is None else gradients[self.place]
        grads = None if gradient is None else self.read(gradient)
        self.signed_maps.append(signed_map(self.run._replace(position=position, grads=grads)))
        if grads is not None:
            self.strongest_gradients.append(torch.linalg.vector_norm(grads.flatten(1), torch.inf, dim=1))


def chosen_runs(captured: Sequence[tuple[nn.Module, Any]], call_index: int | None) -> Iterator[tuple[int, int]]:
    """Of the captured runs those that the map is made of: the place of each, and which run of its layer it is.

    call_index: which run of each layer; None is all. Raises IndexError where a layer did not run as often.
    """
    places: dict[nn.Module, list[int]] = {}
    for place, (layer, _) in enumerate(captured):
        places.setdefault(layer, []).append(place)
    for layer, of_layer in places.items():
        if call_index is None:
            yield from zip(of_layer, range(len(of_layer)), strict=True)
        elif -len(of_layer) <= call_index < len(of_layer):
            yield of_layer[call_index], call_index % len(of_layer)
        else:
            raise IndexError(f"call_index is {call_index}, but {type(layer).__name__} ran {len(of_layer)} times")


def maps_of_layers(
    runs: Sequence[CapturedRun], size: Sequence[int], alternative: Callable[[], str]
) -> list[torch.Tensor]:
    """For each layer its maps (N * K, 1, *size), rectified, scaled to [0, 1] and enlarged: the mean over its runs.

    alternative: see `warn_of_blank_maps`, which says why maps are blank.
    """
    of_layers: dict[nn.Module, list[torch.Tensor]] = {}
    drawn, evidence = [], []
    for _, _, run, signed_maps, gradients in runs:
        signed = torch.stack(signed_maps, dim=1)
        evidence.append(RunEvidence(run.activations, signed, torch.stack(gradients, dim=1) if gradients else None))
        drawn.append(run.enlarged(scaled_evidence(signed.flatten(0, 1))[:, None], size))
        of_layers.setdefault(run.layer, []).append(drawn[-1])
    warn_of_blank_maps(drawn, evidence, alternative)
    return [maps[0] if len(maps) == 1 else torch.stack(maps).mean(0) for maps in of_layers.values()]

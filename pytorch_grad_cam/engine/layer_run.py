"""What one call of a CAM hands on: the runs of its layers, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from pytorch_grad_cam.engine.capture import Captured
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, rows_of, with_image
from pytorch_grad_cam.engine.inputs import call as run_model
from pytorch_grad_cam.engine.maps import resize
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import Target, TargetLists, target_scores
from pytorch_grad_cam.engine.trees import AsMap, detached

_ROUNDED = 1e-5

Drawn = tuple[list[torch.Tensor], Callable[[], None]]
"""For each layer its maps (N * K, 1, *spatial), and what checks them: it waits for the device, so it is called when all
else has been given to the device."""


class Enlarging(Protocol):
    """Where the cells of a layer are drawn: a `registration.Registration`."""

    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, *grid) at the size of the image."""


class Call(NamedTuple):
    """One call of a CAM, made once the model has answered.

    inputs: all that the model was called with; image: the (N, C, *spatial) among them. scores: what targets read of the
    output, by output_transform. target_lists: K lists with one target a sample; one empty list where a method knows no
    targets. eigen_smooth: what the caller asked for. learnt: see `undisturbed.KnownModel`, with which tails can
    be run on their own. tails: those that the call's own forward has recorded, by layer and run.
    """

    model: Any
    inputs: Inputs
    image: torch.Tensor
    scores: Any
    target_lists: TargetLists
    eigen_smooth: bool
    output_transform: Any
    spatial_from: SpatialFrom
    learnt: dict[Any, Any]
    tails: Mapping[tuple[nn.Module, int], PartialForward] = MappingProxyType({})

    def probability_at_limit(self, sample: int, position: int) -> int | None:
        """0 or 1 where the sample's score rounds to it and is a probability: the sample's output is between 0 and 1.

        None for other scores, and where all of the sample's output is 0. Cost: some waits for the device.
        """
        outputs = detached(self.scores)
        sample = min(sample, len(outputs) - 1)  # a bag of images has one output
        output = outputs[sample]
        if not isinstance(output, torch.Tensor) or not output.any() or not (output.amin() >= 0 and output.amax() <= 1):
            return None  # NaN, too
        score = target_scores(output[None], self.target_lists[position][sample : sample + 1]).item()
        return round(score) if abs(score - round(score)) < _ROUNDED else None

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
    registration: where the layer's cells are drawn; None is as even tiles. as_map: from what the layer returned to
    (N, C, *grid). of_all_lists: see `of_targets`.
    position, targets: the target list that is explained. grads: the gradient of its score, of the activations' shape;
    None for methods without gradients. of_whole: see `channel_sums`.
    """

    call: Call
    layer: nn.Module
    call_index: int
    activations: torch.Tensor
    registration: Enlarging | None
    as_map: AsMap | None
    of_all_lists: dict[str, torch.Tensor]
    position: int = 0
    grads: Any = None
    of_whole: torch.Tensor | None = None

    @property
    def channel_sums(self) -> torch.Tensor:
        """The activations' sums over the positions (N, C); of a window those of the whole image, if known."""
        return self.activations.flatten(2).sum(2) if self.of_whole is None else self.of_whole

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
        """The part of the model behind this run. Cost: see `PartialForward`; none where the call has recorded it."""
        call = self.call
        recorded = call.tails.get((self.layer, self.call_index))
        if recorded is not None:
            return recorded
        batch = len(call.image)
        return PartialForward(
            call.model, self.layer, call.inputs, batch, self.call_index, call.output_transform, call.learnt
        )

    def of_targets(self, compute: Callable[[TargetLists], torch.Tensor]) -> torch.Tensor:
        """What `compute` gives for the target list: from K lists to (K, ...).

        It is asked once for all lists of the call, for methods whose forwards are the same whatever the target.
        """
        if "computed" not in self.of_all_lists:
            self.of_all_lists["computed"] = compute(self.call.target_lists)
        return self.of_all_lists["computed"][self.position]


class CapturedRun(NamedTuple):
    """A run that the map is made of, and what the target lists have made of it so far.

    place: where it is among all that were captured. read: from what the layer returned, or the gradient with respect to
    it, to (N, C, *grid). signed_maps: (N, *grid) of each list; gradient_norms: those of its gradient (N,).
    """

    place: int
    read: Callable[[Any], torch.Tensor]
    run: LayerRun
    signed_maps: list[torch.Tensor]
    gradient_norms: list[torch.Tensor]

    def explain(self, position: int, gradient: Any, signed_map: Callable[[LayerRun], torch.Tensor]) -> None:
        """Add what one target list makes of the run.

        gradient: of the list's score with respect to what the layer returned. signed_map: from the run to (N, *grid).
        """
        grads = None if gradient is None else self.read(gradient)
        self.signed_maps.append(signed_map(self.run._replace(position=position, grads=grads)))
        if grads is not None:
            self.gradient_norms.append(torch.linalg.vector_norm(grads.flatten(1), dim=1))


def chosen_runs(captured: Captured, call_index: int | None, without: Collection[Any] = ()) -> Iterable[tuple[int, int]]:
    """Of the captured runs those that the map is made of: the place of each, and which run of its layer it is.

    call_index: which run of each layer; None is all but those of `without`, layers and which run. Raises IndexError
    where a layer did not run as often.
    """
    layers = [*map(itemgetter(0), captured)]
    runs = [(at, n) for at, run in enumerate(layers) if (run, n := layers[:at].count(run)) not in without]
    return runs if call_index is None else _runs_at(call_index, captured)


def _runs_at(call_index: int, captured: Captured) -> Iterator[tuple[int, int]]:
    places: dict[nn.Module, list[int]] = {}
    for place, (layer, _) in enumerate(captured):
        places.setdefault(layer, []).append(place)
    for layer, of_layer in places.items():
        if not -len(of_layer) <= call_index < len(of_layer):
            raise IndexError(f"call_index is {call_index}, but {type(layer).__name__} ran {len(of_layer)} times")
        yield of_layer[call_index], call_index % len(of_layer)

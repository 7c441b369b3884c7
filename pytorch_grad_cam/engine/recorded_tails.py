"""A call's forward from which the tails behind the layers can be run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.engine.capture import Capture, Captured
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of
from pytorch_grad_cam.engine.tail import PartialForward

if TYPE_CHECKING:
    from typing_extensions import Self


class RecordedTails:
    """Takes the place of a call's `Capture` for methods that ask the tail behind a layer, and nothing for gradients.

    tails: the tail behind the only run of each layer. A layer that ran several times has none: a method records it by a
    forward of its own.
    known: see `PartialForward`. Cost: one forward for each layer, and where nothing is known two more.
    """

    def __init__(
        self,
        output_transform: Callable[[Any], Any],
        spatial_from: SpatialFrom,
        known: dict[Any, Any],
        model: nn.Module,
        layers: Sequence[nn.Module],
        *_: bool,
    ) -> None:
        self.runs: Captured = ()
        self.tails: Mapping[tuple[nn.Module, int], PartialForward] = {}
        self._model, self._layers = model, list(dict.fromkeys(layers))
        self._how = output_transform, spatial_from, known

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for tail in self.tails.values():
            tail.__exit__(*exception)

    def run(self, inputs: Inputs) -> Any:
        """The model's output. Raises ValueError when a layer did not run."""
        output_transform, spatial_from, known = self._how
        batch = len(image_of(inputs, spatial_from))
        with torch.no_grad():
            tails = [
                PartialForward(self._model, layer, inputs, batch, 0, output_transform, known) for layer in self._layers
            ]
        self.tails = {(tail.layer, 0): tail for tail in tails}
        if all(tail.runs == 1 for tail in tails):
            self.runs = [(tail.layer, tail.layer_output) for tail in tails]
            return tails[0].outputs
        self.__exit__()
        self.tails = {}
        with Capture(self._model, self._layers, gradients=False) as capture:
            outputs = capture.run(inputs)
            self.runs = capture.runs
        return outputs

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[Sequence[Any], Sequence[torch.Tensor | None]]:
        """Nothing: such methods have `uses_gradients = False`."""
        raise NotImplementedError

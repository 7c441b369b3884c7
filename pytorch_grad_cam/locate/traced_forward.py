"""One forward of which the search looks at every module's output, and which then is the call's own forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from pytorch_grad_cam.engine.capture import Capture
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, with_image
from pytorch_grad_cam.engine.trace import Trace
from pytorch_grad_cam.engine.trees import tensors_in
from pytorch_grad_cam.engine.watch import Arguments


class TracedForward(Trace):
    """One forward with its graph from the image on; with gradients where the model runs under `no_grad`, too.

    runs: what each module returned, in the order of execution. outputs: the model's. Cost: one forward with its graph.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, spatial_from: SpatialFrom) -> None:
        super().__init__(model)
        self._model = model
        self.image = image_of(inputs, spatial_from).detach().clone().requires_grad_()
        self._outputs: list[tuple[nn.Module, Any, list[int]]] = []
        with self:
            self.outputs = call(model, with_image(inputs, self.image, spatial_from))

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        super().seen(module, inputs, output)
        self._outputs.append((module, output, _versions(output)))

    def capture(self, layers: Sequence[nn.Module]) -> Capture | None:
        """This forward as the run of these layers in a call; None where the model wrote into what they returned."""
        runs = [run for layer in layers for run in self._outputs if run[0] is layer]
        if any(versions != _versions(output) for _, output, versions in runs):
            return None
        return _Traced(self._model, layers, self.outputs, [(layer, output) for layer, output, _ in runs])


class _Traced(Capture):
    """A capture of a forward that has been run."""

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], outputs: Any, runs: list[tuple[nn.Module, Any]]
    ) -> None:
        super().__init__(model, layers, gradients=True)
        self._modules = ()
        self.outputs = outputs
        self.runs = runs

    def run(self, inputs: Inputs) -> Any:
        return self.outputs


def _versions(output: Any) -> list[int]:
    """How often each tensor was written; those made in inference mode do not know."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors_in(output)]

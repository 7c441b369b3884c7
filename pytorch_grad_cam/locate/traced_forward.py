"""One forward of which the search looks at every module's output, and which then is the call's own forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
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

    def capture(self, layers: Sequence[nn.Module], known: KnownGradients) -> Capture | None:
        """This forward as the run of these layers in a call; None where the model wrote into what they returned.

        known: gradients of a score that the call need not take again.
        """
        runs = [run for layer in layers for run in self._outputs if run[0] is layer]
        if any(versions != _versions(output) for _, output, versions in runs):
            return None
        return _Traced(self._model, layers, self.outputs, [(layer, output) for layer, output, _ in runs], known)


class KnownGradients(NamedTuple):
    """The gradients of a score of the traced forward with respect to tensors that its modules returned."""

    score: torch.Tensor
    gradients: Mapping[torch.Tensor, torch.Tensor | None]

    def of(self, score: torch.Tensor, wanted: Sequence[torch.Tensor], outputs: Any) -> list[torch.Tensor | None] | None:
        """Those of another score, if it is the same function of the model's output, a single tensor; else None.

        All that the score depends on lies in front of the output: where the gradients with respect to that are equal,
        so are those further in front. Cost: the backward from the scores to the output.
        """
        if not all(tensor in self.gradients for tensor in wanted) or not isinstance(outputs, torch.Tensor):
            return None
        gradient, known = (
            torch.autograd.grad(each, outputs, retain_graph=True, allow_unused=True)[0] for each in (score, self.score)
        )
        is_same = gradient is not None and known is not None and torch.equal(gradient, known)
        return [self.gradients[tensor] for tensor in wanted] if is_same else None


class _Traced(Capture):
    """A capture of a forward that has been run."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[nn.Module],
        outputs: Any,
        runs: list[tuple[nn.Module, Any]],
        known: KnownGradients,
    ) -> None:
        super().__init__(model, layers, gradients=True)
        self._modules = ()
        self._known = known
        self.outputs = outputs
        self.runs = runs

    def run(self, inputs: Inputs) -> Any:
        return self.outputs

    def derivatives(
        self, score: torch.Tensor, wanted: list[torch.Tensor], keep_graph: bool, create_graph: bool = False
    ) -> Sequence[torch.Tensor | None]:
        in_graph = [tensor for tensor in wanted if tensor.requires_grad]  # not runs that read other inputs
        known = None if create_graph or not score.requires_grad else self._known.of(score, in_graph, self.outputs)
        found = iter(known or super().derivatives(score, in_graph, keep_graph, create_graph))
        return [next(found) if tensor.requires_grad else None for tensor in wanted]


def _versions(output: Any) -> list[int]:
    """How often each tensor was written; those made in inference mode do not know."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors_in(output)]

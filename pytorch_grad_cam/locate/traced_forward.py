"""One forward of which the search looks at every module's output, and which then is the call's own forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from pytorch_grad_cam.engine.capture import Capture
from pytorch_grad_cam.engine.inputs import Inputs, call, image_of, with_image
from pytorch_grad_cam.engine.trace import Call
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.watch import Arguments, Watch


class TracedForward(Watch):
    """One forward with its graph from the image on.

    calls: what each module returned, in the order of execution. Each tensor is handed on as a copy: what is in `calls`
    stays as it was returned, whatever the model does in place. outputs: the model's. Cost: one forward with its graph.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, spatial_from: int | str | None) -> None:
        self._model = model
        self._names = {module: name for name, module in model.named_modules() if name}
        super().__init__(self._names, before=partial(torch.set_grad_enabled, True))
        self.image = image_of(inputs, spatial_from).detach().clone().requires_grad_()
        self.calls: list[Call] = []
        self._trees: list[tuple[nn.Module, Any]] = []
        self._handed_on: dict[int, tuple[torch.Tensor, int, torch.Tensor]] = {}
        with self:
            self.outputs = call(model, with_image(inputs, self.image, spatial_from))

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
        read = self._as_returned(tensors[0]) if tensors else None
        tree = tree_map(self._as_returned, output)
        first, name, run = next(iter(floating_tensors(tree)), None), self._names[module], len(self._trees)
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                self.calls.append(Call(run, name, module, read, leaf, leaf is first, leaf is tree))
        self._trees.append((module, tree))
        return tree_map(self._copy, output)

    def capture(self, layers: Sequence[nn.Module]) -> Capture:
        """This forward as the run of these layers in a call."""
        return _Traced(self._model, layers, self.outputs, [run for run in self._trees if run[0] in layers])

    def _as_returned(self, leaf: Any) -> Any:
        """The tensor of which this is an unchanged copy, or itself."""
        if id(leaf) not in self._handed_on:
            return leaf
        copy, version, returned = self._handed_on[id(leaf)]
        return returned if _version(copy) == version else leaf

    def _copy(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or self._as_returned(leaf) is not leaf:
            return leaf
        copy = leaf.clone()
        self._handed_on[id(copy)] = copy, _version(copy), leaf
        return copy


def _version(tensor: torch.Tensor) -> int:
    """How often it was written; tensors made in inference mode do not know."""
    return 0 if tensor.is_inference() else tensor._version


class _Traced(Capture):
    """A capture of a forward that has been run."""

    def __init__(
        self, model: nn.Module, layers: Sequence[nn.Module], outputs: Any, trees: Sequence[tuple[nn.Module, Any]]
    ) -> None:
        super().__init__(model, layers, gradients=True)
        self._modules: Iterator[nn.Module] = iter(())
        self.outputs = outputs
        self.runs = [run for layer in self._layers for run in trees if run[0] is layer]

    def run(self, inputs: Inputs) -> Any:
        return self.outputs

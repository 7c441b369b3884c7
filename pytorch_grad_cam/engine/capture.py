"""What layers return in one forward of a model, and the gradients of scores with respect to it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, is_, itemgetter
from typing import Any, Protocol

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_map_only

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.detections.predictions import Detected
from pytorch_grad_cam.engine.inputs import Inputs, call
from pytorch_grad_cam.engine.targets import TargetLists, target_scores
from pytorch_grad_cam.engine.torch_quirks.second_derivatives import twice_differentiable
from pytorch_grad_cam.engine.torch_quirks.zero_rows import TOKENS_NDIM, gradients_without_zero_rows
from pytorch_grad_cam.engine.trees import copied, floating_tensors
from pytorch_grad_cam.engine.watch import Arguments, Watch

_cut_by_no_grad: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_in_graph = attrgetter("requires_grad")

Captured = Sequence[tuple[nn.Module, Any]]
"""Runs of layers, each with what it returned."""


class Capturing(Protocol):
    """What runs the model in a call of a CAM: `Capture`, or what takes its place."""

    @property
    def runs(self) -> Captured:
        """The target layers' runs, each with what it returned."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exception: object) -> None: ...

    def run(self, inputs: Inputs) -> Any:
        """The model's output. `runs` then are there."""

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[Sequence[Any], Sequence[torch.Tensor | None]]:
        """The gradients of a score with respect to what each of `runs` returned, and to the inputs."""


class Capture(Watch):
    """One call's hooks on layers: a context, in which the model is run once and scores of its output differentiated.

    model: run as it is. layers: modules of it. gradients: what the layers return requires a gradient, whether or
    not the parameters do: with frozen parameters the graph begins at the first layer. detach: False keeps the graph of
    the gradients.

    Runs of the model in other threads are not seen.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], gradients: bool, detach: bool = True) -> None:
        self.runs: list[tuple[nn.Module, Any]] = []
        self._model, self._gradients, self._detach = model, gradients, detach
        self._differentiable = nullcontext if detach else twice_differentiable
        self._layers, self._recording = dict.fromkeys(layers), False
        self._outputs: dict[nn.Module, list[Any]] = {}
        super().__init__(self._layers)

    def run(self, inputs: Inputs) -> Any:
        """The model's output. Cost: one forward. Raises ValueError when a layer did not run.

        The graph begins at the first layer, since autograd costs time in front of it. A block of the model's own under
        `no_grad` ends that: behind it, what was before the layer holds again. Such a model is run once more, and from
        then on with the whole graph; so are those whose inputs require a gradient.
        """
        whole = not self._detach or self._model in _cut_by_no_grad or any(map(_in_graph, floating_tensors(inputs)))
        self._recording = True
        try:
            with torch.set_grad_enabled(self._gradients and whole), self._differentiable():
                outputs = call(self._model, inputs)
                is_cut = self._gradients and not whole and not torch.is_grad_enabled()
        finally:
            self._recording = False
        if is_cut and self._outputs:
            return self._run_whole(inputs)
        for layer in self._layers:
            if layer not in self._outputs:
                raise ValueError(f"target layer {self._name(layer)} did not run when the model was called")
            self.runs += zip(repeat(layer), self._outputs[layer], strict=False)
        return outputs

    def _run_whole(self, inputs: Inputs) -> Any:
        _cut_by_no_grad.add(self._model)
        self._outputs.clear()
        return self.run(inputs)

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[list[Any], Sequence[torch.Tensor | None]]:
        """The gradients of the scalar `score` of the output with respect to what each run returned, and to `inputs`.

        keep_graph: another score of the same output will be differentiated. No `.grad` of the model is written.
        Cost: one backward of the model's part behind the layers.
        Raises ValueError when no gradient leads from the score to one of the layers.
        """
        wanted = [*chain.from_iterable(map(floating_tensors, map(itemgetter(1), self.runs)))]
        found = self.derivatives(score, [*wanted, *inputs], keep_graph)
        if any(map(partial(is_, None), found[: len(wanted)])):
            self._check_reached(score)
        remaining = iter(found)
        return [*map(partial(_gradients_like, remaining), map(itemgetter(1), self.runs))], list(remaining)

    def derivatives(
        self, score: torch.Tensor, wanted: list[torch.Tensor], keep_graph: bool, create_graph: bool = False
    ) -> Sequence[torch.Tensor | None]:
        """The gradients of the score with respect to tensors, None where it does not depend on one."""
        if not score.requires_grad:
            return [None] * len(wanted)
        create_graph = create_graph or not self._detach
        if create_graph or wanted[0].ndim != TOKENS_NDIM:
            return torch.autograd.grad(score, wanted, None, keep_graph or create_graph, create_graph, allow_unused=True)
        return gradients_without_zero_rows(score, wanted, keep_graph)

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        if not self._recording:
            return None
        # Where the layer runs inside a `no_grad` block of the model's own, the graph must begin all the same.
        torch.set_grad_enabled(self._gradients)
        kept = source(output) if self._gradients else output
        self._outputs.setdefault(module, []).append(kept)
        # The model goes on with a copy: an operation in place behind the layer must not change what was captured.
        return copied(kept)

    def _check_reached(self, score: torch.Tensor) -> None:
        # By the graph: a gradient of nothing but zeros may be None, too, see `ShortBackward`.
        behind = set(nodes_behind(score.grad_fn))
        reached = set()
        for layer, output in self.runs:
            in_graph = [each for each in floating_tensors(output) if each.requires_grad and not each.is_inference()]
            if any(get_gradient_edge(tensor).node in behind for tensor in in_graph):
                reached.add(layer)
        for layer in self._layers:
            if layer not in reached:
                raise ValueError(
                    f"no gradient leads from the score to layer {self._name(layer)}. Either the score does not depend "
                    "on it: choose an earlier layer. Or the output was computed under no_grad, detached, or made by an "
                    "operation without a derivative (argmax, non-maximum suppression): let the target read the "
                    "model's raw scores, or use a method without gradients (EigenCAM, ScoreCAM, AblationCAM)"
                )

    def _name(self, layer: nn.Module) -> str:
        names = [name for name, module in self._model.named_modules() if module is layer]
        return f"{names[0] if names else '(not a module of the model)'} ({type(layer).__name__})"


def gradients_of_list(
    capture: Capturing, scores: Any, lists: TargetLists, position: int, image: torch.Tensor | None = None
) -> Sequence[Any]:
    """The gradients of one target list's score with respect to what was captured.

    image: gets the gradient with respect to itself as its `.grad`.
    """
    score = target_scores(scores, lists[position]).sum()
    with scores.short_backward if isinstance(scores, Detected) else nullcontext():
        gradients, of_inputs = capture.differentiate(score, position < len(lists) - 1, [] if image is None else [image])
    if image is not None:
        image.grad = of_inputs[0]
    return gradients


def source(tree: Any) -> Any:
    """The tree with tensors that gradients can be taken of: leaves where the graph has not begun yet."""
    if not isinstance(tree, torch.Tensor):
        return tree_map_only(torch.Tensor, source, tree)
    return tree.detach().requires_grad_() if tree.is_floating_point() and not tree.requires_grad else tree


def _gradients_like(remaining: Iterator[torch.Tensor | None], output: Any) -> Any:
    """The output with gradients in the place of its floating tensors, zeros where nothing depends on one."""
    if not isinstance(output, torch.Tensor):
        return tree_map_only(torch.Tensor, partial(_gradients_like, remaining), output)
    if not output.is_floating_point():
        return output
    gradient = next(remaining)
    return torch.zeros_like(output) if gradient is None else gradient

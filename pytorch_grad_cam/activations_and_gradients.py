"""The hooks: what the target layers returned, and the gradient of a score with respect to it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from pytorch_grad_cam.engine.inputs import call
from pytorch_grad_cam.engine.thread_state import ThreadState
from pytorch_grad_cam.engine.torch_quirks.zero_rows import SkipZeroRows
from pytorch_grad_cam.engine.trees import copied, detached, floating_tensors

_TOKENS_NDIM = 3  # (N, T, C)


class ActivationsAndGradients:
    """Captures the target layers' activations in a forward pass and a score's gradients with respect to them.

    The hooks are registered from construction to `release()` (or until the object is dropped) and do nothing outside
    a call of this object in the same thread: other forwards of the model leave no trace here, and threads can share
    one object.

    BaseCAM calls `capture`, `differentiate`, `clear`. On its own, as in grad-cam 1.5, the object is called like the
    model; run backward on a score of the result, then read `activations` and `gradients`, on the host if detached.

    model: run as it is (training mode too), with inputs as `model_inputs` says. target_layers: modules of it.
    reshape_transform: makes what a layer returned, and the gradient with respect to it, (N, C, *spatial); without one
    the first tensor is taken.
    detach: False leaves activations and gradients in the autograd graph.
    """

    second_order = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable | None = None,
        detach: bool = True,
    ) -> None:
        for name in ("save_activation", "save_gradient"):
            if hasattr(self, name):
                raise TypeError(
                    f"{type(self).__name__} overrides {name}, which is not called here: change what is captured by a "
                    "reshape_transform, or bring hooks of your own with __call__, activations, gradients and release"
                )
        self.model = model
        self.target_layers = list(dict.fromkeys(target_layers))
        self.reshape_transform = reshape_transform
        self.detach = detach
        self._thread = ThreadState()
        self._differentiating = 0
        hook = _Hook(self)
        self.handles = [layer.register_forward_hook(hook) for layer in self.target_layers]
        self._finalizer = weakref.finalize(self, _remove, self.handles)

    def __reduce__(self) -> tuple:
        """A copy has hooks of its own."""
        return type(self), (self.model, self.target_layers, self.reshape_transform, self.detach)

    def capture(self, x: Any, gradients: bool) -> Any:
        """Run the model on `x` and keep what the target layers return. Cost: one forward.

        gradients: prepare for `differentiate`. What the layers return then requires a gradient, whether or not the
        model's parameters do: with frozen parameters the graph begins at the first target layer.

        Returns the model's output. Raises RuntimeError after `release()`, ValueError when a target layer did not run.
        """
        return self._record(x, _Recording(gradients))

    def differentiate(
        self, score: torch.Tensor, inputs: Sequence[torch.Tensor] = (), keep_graph: bool = False
    ) -> list[torch.Tensor | None]:
        """Compute `gradients` of the scalar `score` of the captured output. Cost: one backward of the model's tail.

        keep_graph: another score of the same output will be differentiated.
        No `.grad` of the model is written. Returns the gradients with respect to `inputs`.
        Raises ValueError when no gradient leads from the score to one of the target layers.
        """
        captured = self._thread.recording.items(self.target_layers)
        sources = [tensor for _, output in captured for tensor in tree_leaves(output) if _has_gradient(tensor)]
        self._differentiating += 1
        try:
            found = self._derivatives(score, [*sources, *inputs], keep_graph)
            gradient_of = {
                source: None if gradient is None else self.contribution(source, gradient)
                for source, gradient in zip(sources, found, strict=False)
            }
        finally:
            self._differentiating -= 1
        reached = {
            layer
            for layer, output in captured
            if any(gradient_of.get(tensor) is not None for tensor in floating_tensors(output))
        }
        for layer in self.target_layers:
            if layer not in reached:
                raise ValueError(
                    f"no gradient leads from the score to layer {self._name(layer)}. Either the score does not depend "
                    "on it: choose an earlier layer. Or the output was computed under no_grad, detached, or made by an "
                    "operation without a derivative (argmax, non-maximum suppression): let the target read the "
                    "model's raw scores, or use a method without gradients (EigenCAM, ScoreCAM, AblationCAM)"
                )
        self._thread.recording.gradients = [
            tree_map(lambda leaf: _gradient_or_leaf(gradient_of, leaf), output) for _, output in captured
        ]
        return list(found[len(sources) :])

    def contribution(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """What `gradients` holds: the gradient. A method of higher order corrects it, with `second_order` set."""
        return gradient

    @property
    def captured_layers(self) -> list[nn.Module]:
        """The layer of each entry of `activations`: a layer that ran several times occurs as often."""
        return [layer for layer, _ in self._captured()]

    @property
    def activations(self) -> list[torch.Tensor]:
        """The reshaped output (N, C, *spatial) of each call of each target layer, in the order of `target_layers`.

        Empty before the first call, and after a call of a CAM, which keeps nothing. Assigning [] begins a recording of
        what the model runs next, as the calls of subclasses written for 1.x do.
        """
        return [self._reshaped(output) for _, output in self._captured()]

    @activations.setter
    def activations(self, nothing: list) -> None:
        self._begin(nothing)

    @property
    def gradients(self) -> list[torch.Tensor | None]:
        """The score's gradients, one for each of `activations`; None before there was a backward pass."""
        recording = getattr(self._thread, "recording", None)
        gradients = [] if recording is None else recording.gradients_of(self.target_layers)
        return [None if output is None else self._reshaped(output) for output in gradients]

    @gradients.setter
    def gradients(self, nothing: list) -> None:
        self._begin(nothing)

    def __call__(self, x: Any) -> Any:
        """Run the model; a later backward from its output fills `gradients`. Cost: one forward with its graph."""
        return self._record(x, _Recording(torch.is_grad_enabled(), standalone=True, on_host=self.detach))

    def clear(self) -> None:
        """Forget what was captured in this thread."""
        self._thread.__dict__.clear()

    def release(self) -> None:
        """Remove the hooks from the model. The object cannot capture afterwards."""
        self._finalizer()

    def _record(self, x: Any, recording: _Recording) -> Any:
        if not self._finalizer.alive:
            raise RuntimeError("the hooks were released (at the end of `with`, or by release()): make a new object")
        self._thread.recording = recording
        recording.active = True
        try:
            with torch.set_grad_enabled(recording.with_gradients):
                outputs = call(self.model, x)
        finally:
            recording.active = False
        for layer in self.target_layers:
            if layer not in recording.calls:
                raise ValueError(f"target layer {self._name(layer)} did not run when the model was called")
        return outputs

    def _derivatives(
        self, score: torch.Tensor, wanted: list[torch.Tensor], keep_graph: bool
    ) -> Sequence[torch.Tensor | None]:
        if not score.requires_grad:
            return [None] * len(wanted)
        create_graph = self.second_order or not self.detach
        of_tokens = any(tensor.ndim == _TOKENS_NDIM and tensor.device.type == "cpu" for tensor in wanted)
        with SkipZeroRows() if of_tokens and not create_graph else nullcontext():
            return torch.autograd.grad(
                score, wanted, retain_graph=keep_graph or create_graph, allow_unused=True, create_graph=create_graph
            )

    def _begin(self, nothing: list) -> None:
        if nothing:
            raise AttributeError("activations and gradients can only be emptied, by assigning []")
        recording = _Recording(torch.is_grad_enabled(), standalone=True, on_host=self.detach)
        recording.active = recording.unbounded = True
        self._thread.recording = recording

    def _keep(self, module: nn.Module, output: Any) -> Any:
        recording = getattr(self._thread, "recording", None)
        if recording is not None and recording.active:
            return recording.keep(module, output)
        # A checkpointed block runs once more in the backward pass: it must make the graph that it made before.
        again = self._differentiating and torch.is_grad_enabled()
        return copied(tree_map(_source, output)) if again else None

    def _captured(self) -> list[tuple[nn.Module, Any]]:
        recording = getattr(self._thread, "recording", None)
        return [] if recording is None else recording.items(self.target_layers)

    def _reshaped(self, output: Any) -> torch.Tensor:
        if self.detach:
            output = detached(output)
        tensor = (self.reshape_transform or _first_tensor)(output)
        return tensor.cpu() if self._thread.recording.on_host else tensor

    def _name(self, layer: nn.Module) -> str:
        names = [name for name, module in self.model.named_modules() if module is layer]
        return f"{names[0] if names else '(not a module of the model)'} ({type(layer).__name__})"


class _Recording:
    """What one call captured: the outputs of each target layer, call by call.

    unbounded: it is not known when the call ends, so what the hooks change outside of it would stay.
    """

    def __init__(self, gradients: bool, standalone: bool = False, on_host: bool = False) -> None:
        self.active = self.unbounded = False
        self.standalone = standalone
        self.on_host = on_host
        self.with_gradients = gradients
        self.calls: dict[nn.Module, list[Any]] = {}
        self.gradients: list[Any] = []
        self.arrived: dict[tuple[nn.Module, int], torch.Tensor] = {}

    def keep(self, module: nn.Module, output: Any) -> Any:
        if not self.unbounded:
            # Where the layer runs inside a `no_grad` block of the model's own, the graph must begin all the same.
            torch.set_grad_enabled(self.with_gradients)
        kept = tree_map(_source, output) if self.with_gradients else output
        calls = self.calls.setdefault(module, [])
        if self.standalone:
            for tensor in filter(_has_gradient, floating_tensors(kept)[:1]):
                tensor.register_hook(partial(_arrive, weakref.ref(self), (module, len(calls))))
        calls.append(kept)
        # The model goes on with a copy: an in-place operation behind the layer must not change what was captured.
        return copied(kept)

    def items(self, layers: Sequence[nn.Module]) -> list[tuple[nn.Module, Any]]:
        return [(layer, output) for layer in layers for output in self.calls.get(layer, [])]

    def gradients_of(self, layers: Sequence[nn.Module]) -> list[Any]:
        if not self.standalone:
            return self.gradients
        return [self.arrived.get((layer, i)) for layer in layers for i in range(len(self.calls.get(layer, [])))]


def _arrive(recording: weakref.ref[_Recording], call: tuple[nn.Module, int], gradient: torch.Tensor) -> None:
    """Keep a gradient where its recording is still there: a graph that held it would hold what holds the graph."""
    if (alive := recording()) is not None:
        alive.arrived[call] = gradient
        alive.active = False  # what the model runs after this backward is another story


class _Hook:
    """A forward hook that neither keeps its owner alive nor keeps the model from being copied or pickled."""

    def __init__(self, owner: ActivationsAndGradients | None) -> None:
        self.owner = weakref.ref(owner) if owner is not None else lambda: None

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        owner = self.owner()
        return None if owner is None else owner._keep(module, output)

    def __reduce__(self) -> tuple:
        return _Hook, (None,)


def _remove(handles: list) -> None:
    for handle in handles:
        handle.remove()


def _source(leaf: Any) -> Any:
    """A tensor that gradients can be taken of: a leaf where the graph has not begun yet."""
    return leaf.detach().requires_grad_() if _is_floating(leaf) and not leaf.requires_grad else leaf


def _first_tensor(output: Any) -> torch.Tensor:
    tensors = floating_tensors(output)
    if not tensors:
        kinds = ", ".join(str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in tree_leaves(output))
        raise ValueError(
            f"a target layer returned no floating-point tensor but {type(output).__name__} ({kinds}): pass a "
            "reshape_transform from it to a map"
        )
    return tensors[0]


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _has_gradient(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad


def _gradient_or_leaf(gradient_of: dict, leaf: Any) -> Any:
    """A floating tensor's gradient, zeros where nothing depends on it; what has no gradient (sizes, indices) itself."""
    if not _is_floating(leaf):
        return leaf
    gradient = gradient_of.get(leaf)
    return torch.zeros_like(leaf) if gradient is None else gradient

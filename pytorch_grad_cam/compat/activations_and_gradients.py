"""The hooks of grad-cam 1.5, for code that runs forward and backward itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from pytorch_grad_cam.engine.capture import source
from pytorch_grad_cam.engine.inputs import call
from pytorch_grad_cam.engine.threads import ThreadState
from pytorch_grad_cam.engine.trees import copied, detached, first_tensor, floating_tensors


class ActivationsAndGradients:
    """What target layers return in a forward pass, and the gradients of a later backward pass with respect to it.

    Called like the model, it runs it; run backward on a score of the result, then read `activations` and `gradients`,
    on the host if detached. The hooks are registered from construction to `release()` (or until the object is dropped)
    and do nothing outside a call of this object in the same thread: other forwards of the model leave no trace here.

    The methods' own calls do not use it: they capture anew each time, see `engine.capture`.

    model: run as it is (training mode too), with inputs as `engine.inputs` says. target_layers: modules of it.
    reshape_transform: makes what a layer returned, and the gradient with respect to it, (N, C, *spatial); without one
    the first tensor is taken.
    detach: False leaves activations and gradients in the autograd graph.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
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
        hook = _Hook(self)
        self.handles = [layer.register_forward_hook(hook, prepend=True) for layer in self.target_layers]
        self._finalizer = weakref.finalize(self, _remove, self.handles)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has hooks of its own."""
        return type(self), (self.model, self.target_layers, self.reshape_transform, self.detach)

    def __call__(self, x: Any) -> Any:
        """Run the model; a later backward from its output fills `gradients`. Cost: one forward with its graph.

        Raises RuntimeError after `release()`, ValueError when a target layer did not run.
        """
        if not self._finalizer.alive:
            raise RuntimeError("the hooks were released (at the end of `with`, or by release()): make a new object")
        recording = self._begin(bounded=True)
        try:
            recording.inputs = x
            with torch.set_grad_enabled(recording.with_gradients):
                outputs = call(self.model, x)
        finally:
            recording.active = False
        for layer in self.target_layers:
            if layer not in recording.outputs:
                raise ValueError(f"target layer {type(layer).__name__} did not run when the model was called")
        return outputs

    @property
    def inputs(self) -> Any:
        """What the last call in this thread ran the model with; None before."""
        recording = getattr(self._thread, "recording", None)
        return None if recording is None else recording.inputs

    @property
    def captured_layers(self) -> list[nn.Module]:
        """The layer of each entry of `activations`: a layer that ran several times occurs as often."""
        return [layer for layer, _ in self._captured()]

    @property
    def activations(self) -> list[torch.Tensor]:
        """The reshaped output (N, C, *spatial) of each run of each target layer, in the order of `target_layers`.

        Empty before the first call. Assigning [] begins a recording of what the model runs next, as the calls of
        subclasses written for 1.x do.
        """
        return [self._reshaped(output) for _, output in self._captured()]

    @activations.setter
    def activations(self, nothing: list[Any]) -> None:
        self._empty(nothing)

    @property
    def gradients(self) -> list[torch.Tensor | None]:
        """The score's gradients, one for each of `activations`; None before there was a backward pass."""
        recording = getattr(self._thread, "recording", None)
        gradients = [] if recording is None else recording.gradients(self.target_layers)
        return [None if gradient is None else self._reshaped(gradient) for gradient in gradients]

    @gradients.setter
    def gradients(self, nothing: list[Any]) -> None:
        self._empty(nothing)

    def hold(self, inputs: Any, runs: Sequence[tuple[nn.Module, Any]], gradients: Sequence[Any] | None) -> None:
        """Take what a CAM captured, for override points that read it here; on its device."""
        recording = _Recording(with_gradients=False, bounded=True, on_host=False)
        recording.active, recording.inputs = False, inputs
        for place, (layer, output) in enumerate(runs):
            outputs = recording.outputs.setdefault(layer, [])
            if gradients is not None:
                recording.arrived[layer, len(outputs)] = gradients[place]
            outputs.append(output)
        self._thread.recording = recording

    def clear(self) -> None:
        """Forget what was captured in this thread."""
        self._thread.__dict__.clear()

    def release(self) -> None:
        """Remove the hooks from the model. The object cannot capture afterwards."""
        self._finalizer()
        self.handles.clear()

    def _empty(self, nothing: list[Any]) -> None:
        if nothing:
            raise AttributeError("activations and gradients can only be emptied, by assigning []")
        self._begin(bounded=False)

    def _begin(self, bounded: bool) -> _Recording:
        recording = self._thread.recording = _Recording(torch.is_grad_enabled(), bounded)
        return recording

    def _keep(self, layer: nn.Module, output: Any) -> Any:
        recording = getattr(self._thread, "recording", None)
        return recording.keep(layer, output) if recording is not None and recording.active else None

    def _captured(self) -> list[tuple[nn.Module, Any]]:
        recording = getattr(self._thread, "recording", None)
        return [] if recording is None else recording.runs(self.target_layers)

    def _reshaped(self, output: Any) -> torch.Tensor:
        if self.detach:
            output = detached(output)
        tensor = (self.reshape_transform or first_tensor)(output)
        return tensor.cpu() if self.detach and self._thread.recording.on_host else tensor


class _Recording:
    """What the target layers returned, run by run.

    bounded: it ends with the model's forward. Where that is not known, what the hooks change outside of it would stay.
    """

    def __init__(self, with_gradients: bool, bounded: bool, on_host: bool = True) -> None:
        self.active, self.on_host = True, on_host
        self.with_gradients, self.bounded = with_gradients, bounded
        self.inputs: Any = None
        self.outputs: dict[nn.Module, list[Any]] = {}
        self.arrived: dict[tuple[nn.Module, int], Any] = {}

    def keep(self, layer: nn.Module, output: Any) -> Any:
        if self.bounded:
            # Where the layer runs inside a `no_grad` block of the model's own, the graph must begin all the same.
            torch.set_grad_enabled(self.with_gradients)
        kept = source(output) if self.with_gradients else output
        outputs = self.outputs.setdefault(layer, [])
        for tensor in floating_tensors(kept)[:1]:
            if tensor.requires_grad:
                tensor.register_hook(partial(_arrive, weakref.ref(self), (layer, len(outputs))))
        outputs.append(kept)
        # The model goes on with a copy: an operation in place behind the layer must not change what was captured.
        return copied(kept)

    def runs(self, layers: Sequence[nn.Module]) -> list[tuple[nn.Module, Any]]:
        return [(layer, output) for layer in layers for output in self.outputs.get(layer, [])]

    def gradients(self, layers: Sequence[nn.Module]) -> list[torch.Tensor | None]:
        return [self.arrived.get((layer, i)) for layer in layers for i in range(len(self.outputs.get(layer, [])))]


def _arrive(recording: weakref.ref[_Recording], run: tuple[nn.Module, int], gradient: torch.Tensor) -> None:
    """Keep a gradient where its recording is still there: a graph that held it would hold what holds the graph."""
    if (alive := recording()) is not None:
        alive.arrived[run] = gradient
        alive.active = False  # what the model runs after this backward is another story


class _Hook:
    """A forward hook that neither keeps its owner alive nor keeps the model from being copied or pickled."""

    def __init__(self, owner: ActivationsAndGradients | None) -> None:
        self.owner = weakref.ref(owner) if owner is not None else lambda: None

    def __call__(self, layer: nn.Module, inputs: Any, output: Any) -> Any:
        owner = self.owner()
        return None if owner is None else owner._keep(layer, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None,)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()

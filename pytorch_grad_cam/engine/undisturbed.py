"""Run a user's model in evaluation mode and hand it back exactly as it was."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.known_model import KnownModel, WatchedBuffer
from pytorch_grad_cam.engine.torch_quirks.reentrant_checkpoints import reentrant_checkpoints_run_once

_lock = threading.Lock()
_in_use: weakref.WeakKeyDictionary[nn.Module, "_Flags"] = weakref.WeakKeyDictionary()


@contextmanager
def undisturbed(model: nn.Module, frozen: bool = True, known: KnownModel | None = None) -> Iterator[None]:
    """Within: gradients enabled, every submodule in evaluation mode and, if `frozen`, no parameter that requires one.

    Frozen, the autograd graph holds only what leads to the tensors that the caller makes require a gradient, and of
    that only what their gradient needs. Afterwards, whatever happened, the flags, the buffers that the model itself
    writes and the random state are as before.
    Several threads may be within at once; the last one out restores the flags. While one is within that is not frozen,
    nothing is. Random numbers that other threads draw meanwhile from the default generator are drawn again.

    known: of the model, as it is now; without it the model is walked.
    """
    known = known or KnownModel(model)
    generators = _generators_of(known.device)
    states = [generator.get_state() for generator in generators]
    # Out of inference mode gradients are enabled too.
    autograd = torch.inference_mode(False) if torch.is_inference_mode_enabled() else torch.enable_grad()
    try:
        with autograd, reentrant_checkpoints_run_once(), _flags_taken(known, frozen):
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def _flags_taken(known: KnownModel, frozen: bool) -> Iterator[None]:
    with _lock:
        flags = _in_use.setdefault(known.model, _Flags())
        flags.users += 1
        flags.unfrozen += not frozen
    try:
        with _lock:
            flags.take(known)
        yield
    finally:
        with _lock:
            flags.users -= 1
            flags.unfrozen -= not frozen
            if flags.users == 0:
                del _in_use[known.model]
                flags.restore()


class _Flags:
    """The flags of a model that are switched off while it is in use, and its tensors that autograd cannot use."""

    def __init__(self) -> None:
        self.users = self.unfrozen = 0
        self.training: list[nn.Module] = []
        self.requiring: list[nn.Parameter] = []
        self.exchanged: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        self.buffers: list[WatchedBuffer] = []
        self.usable: dict[torch.Tensor, torch.Tensor] = {}

    def take(self, known: KnownModel) -> None:
        for module in known.modules:
            if module.training:
                self.training.append(module)
                module.training = False
        for tensors, name, tensor in known.made_in_inference_mode:
            if tensors[name] is tensor:
                self._exchange(tensors, name, tensor)
        if self.users == 1:
            self.buffers = known.watched_buffers
            for buffer in self.buffers:
                buffer.keep()
        if self.unfrozen:
            self._thaw()
            return
        for parameter in known.parameters:
            if parameter.requires_grad:
                self.requiring.append(parameter)
                parameter.requires_grad = False

    def _thaw(self) -> None:
        for parameter in self.requiring:
            parameter.requires_grad = True
        self.requiring.clear()

    def _exchange(self, tensors: dict[str, Any], name: str, tensor: torch.Tensor) -> None:
        """A model that was made in inference mode runs with copies, tied ones with the same copy."""
        if tensor not in self.usable:
            copy = tensor.detach().clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            self.usable[tensor] = nn.Parameter(copy, requires_grad=self.unfrozen > 0) if is_parameter else copy
        self.exchanged.append((tensors, name, tensor))
        tensors[name] = self.usable[tensor]

    def restore(self) -> None:
        for module in self.training:
            module.training = True
        self._thaw()
        for buffer in self.buffers:
            buffer.restore()
        for tensors, name, tensor in self.exchanged:
            tensors[name] = tensor


def _generators_of(device: torch.device | None) -> list[torch.Generator]:
    """PyTorch's default generator and, on CUDA, that of the model's device."""
    if device is None or device.type != "cuda":
        return [torch.default_generator]
    return [torch.default_generator, torch.cuda.default_generators[device.index or 0]]

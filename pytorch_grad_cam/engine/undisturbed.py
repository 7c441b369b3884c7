"""Run a user's model in evaluation mode and hand it back exactly as it was."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from pytorch_grad_cam.engine.inputs import as_tree
from pytorch_grad_cam.engine.torch_quirks.reentrant_checkpoints import reentrant_checkpoints_run_once

# In evaluation mode: a copy of the statistics of every normalisation would be for nothing.
_WRITES_NO_BUFFERS = "torch.nn.modules."
_WRITES_UNCOUNTED = ("torch.ao.", "torchao.")
_lock = threading.Lock()
_in_use: weakref.WeakKeyDictionary[nn.Module, "_Flags"] = weakref.WeakKeyDictionary()


@contextmanager
def undisturbed(model: nn.Module, frozen: bool = True) -> Iterator[None]:
    """Within: every submodule in evaluation mode and, if `frozen`, no parameter that requires a gradient.

    Frozen, the autograd graph holds only what leads to the tensors that the caller makes require a gradient, and of
    that only what their gradient needs. Afterwards, whatever happened, the flags, the buffers that the model itself
    writes and the random state are as before.
    Several threads may be within at once; the last one out restores the flags. While one is within that is not frozen,
    nothing is. Random numbers that other threads draw meanwhile from the default generator are drawn again.
    """
    device = model_device(model)
    with _random_state_kept(device), torch.inference_mode(False), reentrant_checkpoints_run_once():
        with _lock:
            flags = _in_use.setdefault(model, _Flags())
            flags.users += 1
            flags.unfrozen += not frozen
        try:
            with _lock:
                flags.take(model)
            yield
        finally:
            with _lock:
                flags.users -= 1
                flags.unfrozen -= not frozen
                if flags.users == 0:
                    del _in_use[model]
                    flags.restore()


def model_device(model: nn.Module) -> torch.device | None:
    """Where the model's first parameter or buffer lives; None for a model that has neither."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return None if tensor is None else tensor.device


def on_device_of(model: nn.Module, inputs: Any) -> Any:
    """The tensors of the inputs where the model is; as they are for a model that is nowhere."""
    device = model_device(model)
    return tree_map(
        lambda leaf: leaf.to(device or leaf.device) if isinstance(leaf, torch.Tensor) else leaf, as_tree(inputs)
    )


class _Flags:
    """The flags of a model that are switched off while it is in use, and its tensors that autograd cannot use."""

    def __init__(self) -> None:
        self.users = self.unfrozen = 0
        self.training: list[nn.Module] = []
        self.requiring: list[nn.Parameter] = []
        self.exchanged: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        self.buffers: list[tuple[dict[str, Any], str, torch.Tensor, int | None, torch.Tensor]] = []
        self.usable: dict[torch.Tensor, torch.Tensor] = {}

    def take(self, model: nn.Module) -> None:
        for module in model.modules():
            if module.training:
                self.training.append(module)
                module.training = False
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and tensor.is_inference():
                        self._exchange(tensors, name, tensor)
            if self.users == 1 and not type(module).__module__.startswith(_WRITES_NO_BUFFERS):
                self.buffers += [
                    (module._buffers, name, buffer, _version(module, buffer), buffer.clone())
                    for name, buffer in module._buffers.items()
                    if buffer is not None
                ]
        if self.unfrozen:
            self._thaw()
            return
        for parameter in model.parameters():
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
            self.usable[tensor] = nn.Parameter(copy) if isinstance(tensor, nn.Parameter) else copy
        self.exchanged.append((tensors, name, tensor))
        tensors[name] = self.usable[tensor]

    def restore(self) -> None:
        for module in self.training:
            module.training = True
        self._thaw()
        for buffers, name, buffer, version, values in self.buffers:
            buffers[name] = buffer
            if buffer._version != version or buffer.shape != values.shape:
                with torch.no_grad():
                    buffer.resize_(values.shape).copy_(values)
        for tensors, name, tensor in self.exchanged:
            tensors[name] = tensor


def _version(module: nn.Module, buffer: torch.Tensor) -> int | None:
    """The number of writes into a buffer; None where they are not counted, as those of fused observers."""
    return None if type(module).__module__.startswith(_WRITES_UNCOUNTED) else buffer._version


def _random_state_kept(device: torch.device | None):
    """PyTorch's default generator and, on CUDA, that of the model's device."""
    return torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else [])

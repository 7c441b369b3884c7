"""Run a user's model in evaluation mode and hand it back exactly as it was."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_lock = threading.Lock()
_in_use: weakref.WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = weakref.WeakKeyDictionary()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within: every submodule in evaluation mode. After, whatever happened: training flags and RNG state as before.

    Several threads may be within at once; the last one out restores the flags.
    """
    device = model_device(model)
    with _random_state_kept(device), torch.inference_mode(False):
        _enter(model)
        try:
            yield
        finally:
            _leave(model)


def model_device(model: nn.Module) -> torch.device | None:
    """Where the model's first parameter or buffer lives; None for a model that has neither."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return None


def _random_state_kept(device: torch.device | None):
    if device is None or device.type in ("cpu", "meta"):
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def _enter(model: nn.Module) -> None:
    with _lock:
        users, training = _in_use.get(model, (0, []))
        if users == 0:
            training = [module for module in model.modules() if module.training]
            for module in training:
                module.training = False
        _in_use[model] = (users + 1, training)


def _leave(model: nn.Module) -> None:
    with _lock:
        users, training = _in_use.pop(model)
        if users > 1:
            _in_use[model] = (users - 1, training)
            return
        for module in training:
            module.training = True

"""Models inside wrappers that hooks do not reach through."""

from typing import Any

import torch
from torch import nn

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model: Any) -> nn.Module:
    """The model inside torch.compile, DataParallel and DistributedDataParallel: the same layers, parameters and device.

    Raises TypeError for what has no layers to hook: scripted and exported programs, and what is no module.
    """
    if isinstance(model, torch.jit.ScriptModule | torch.export.ExportedProgram):
        name = type(model).__name__
        raise TypeError(f"{name} has no layers that can be watched: pass the nn.Module that it was made of")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}, expected an nn.Module")
    if isinstance(model, _WRAPPERS):
        return unwrapped(model.module)
    compiled = model._modules.get("_orig_mod")  # of torch.compile
    return model if compiled is None else unwrapped(compiled)

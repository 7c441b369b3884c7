"""Models inside wrappers that hooks do not reach through."""

from typing import Any

import torch
from torch import nn

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model: Any) -> nn.Module:
    """The model inside torch.compile, DataParallel and DistributedDataParallel: the same layers, parameters and device;
    the network inside what reads files and draws boxes around it, as ultralytics' `YOLO(...)`.

    Raises TypeError for what has no layers to hook: scripted and exported programs, the module of an exported program,
    and what is no module.
    """
    if isinstance(model, torch.jit.ScriptModule | torch.export.ExportedProgram) or _is_exported(model):
        name = type(model).__name__
        raise TypeError(f"{name} has no layers that can be watched: pass the nn.Module that it was made of")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}, expected an nn.Module")
    if isinstance(model, _WRAPPERS):
        return unwrapped(model.module)
    network = model._modules.get("model")
    if network is not None and hasattr(model, "predictor"):
        return unwrapped(network)
    compiled = model._modules.get("_orig_mod")  # of torch.compile
    return model if compiled is None else unwrapped(compiled)


def _is_exported(model: Any) -> bool:
    """Whether it is the module of an exported program, which calls operations and no modules but a check of its inputs.

    The names of the layers are there, on modules that hold their parameters and never run.
    """
    return isinstance(model, torch.fx.GraphModule) and not any(
        node.op == "call_module" and node.target != "_guards_fn" for node in model.graph.nodes
    )

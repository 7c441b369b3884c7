"""Models inside wrappers that hooks do not reach through."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from pytorch_grad_cam.engine.torch_quirks.compiled_modules import options_of

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


class Opaque(nn.Module):
    """A callable as a module that has no layers to look at. Arrays that it returns are tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **named: Any) -> Any:
        return tree_map_only(np.ndarray, torch.as_tensor, self.function(*args, **named))


def as_module(model: Callable[..., Any]) -> nn.Module:
    """The model itself where its layers can be watched, else an `Opaque` around it. Raises TypeError for what cannot be
    called.
    """
    if not callable(model):
        raise TypeError(f"model is {type(model).__name__}, expected a module or another callable")
    has_layers = isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule)
    return model if has_layers and not _is_exported(model) else Opaque(model)  # type: ignore[return-value]


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
    inside = _inside(model)
    return model if inside is None else unwrapped(inside)


def compile_options(model: nn.Module) -> dict[str, Any] | None:
    """What `torch.compile` was told for the model or a wrapper of it: backend and mode, and dynamic; None where it is
    not, or by `model.compile()`, which does not say.
    """
    inside = _inside(model)
    return options_of(model) or (None if inside is None else compile_options(inside))


def _inside(model: Any) -> Any:
    """The model in a wrapper; None for what is none."""
    if isinstance(model, _WRAPPERS):
        return model.module
    network = model._modules.get("model")
    return network if network is not None and hasattr(model, "predictor") else model._modules.get("_orig_mod")


def _is_exported(model: Any) -> bool:
    """Whether it is the module of an exported program, which calls operations and no modules but a check of its inputs.

    The names of the layers are there, on modules that hold their parameters and never run.
    """
    return isinstance(model, torch.fx.GraphModule) and not any(
        node.op == "call_module" and node.target != "_guards_fn" for node in model.graph.nodes
    )

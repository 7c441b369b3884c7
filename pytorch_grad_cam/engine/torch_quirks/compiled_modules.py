"""Compiled parts of a model: in them hooks are compiled away, and graphs can neither be kept nor derived twice."""

from functools import partial
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.threads import SharedChange


def is_compiled(module: nn.Module) -> bool:
    """Whether a module was compiled, in its place, as a module around it, or in its `forward`."""
    in_place, around = module._compiled_call_impl is not None, "_orig_mod" in module._modules
    return in_place or around or hasattr(getattr(module, "forward", None), "_torchdynamo_orig_callable")


def options_of(module: nn.Module) -> dict[str, Any] | None:
    """What `torch.compile(module)`, which gave this one, was told; None for other modules.

    The backend has the mode and its options in it.
    """
    context = vars(module).get("dynamo_ctx")
    backend = getattr(context, "callback", None)
    if not callable(backend):
        return None
    inner = "_torchdynamo_orig_backend", "_torchdynamo_orig_callable"  # the second before torch 2.8
    while (name := next(filter(partial(hasattr, backend), inner), None)) is not None:
        backend = getattr(backend, name)
    return {"backend": backend, "dynamic": getattr(context, "_dynamic", None)}


_stances: list[Any] = []  # contexts of torch.compiler.set_stance


def _force_eager() -> None:
    if not hasattr(torch.compiler, "set_stance"):
        raise RuntimeError(
            f"a part of the model is compiled, which torch {torch.__version__} cannot run as it was written: pass the "
            "model as it was before, or install torch 2.6"
        )
    _stances.append(torch.compiler.set_stance("force_eager"))


def _as_before() -> None:
    _stances.pop().__exit__(None, None, None)


# Within: compiled modules run as they were written, in all threads; what was compiled before is kept for later.
compiled_modules_run_as_written = SharedChange(make=_force_eager, undo=_as_before)

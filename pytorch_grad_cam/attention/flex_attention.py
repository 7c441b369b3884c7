"""Models of transformers that run PyTorch's flex attention, which returns no weights and has no gradient on a CPU."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from typing import Any

from torch import nn

from pytorch_grad_cam.engine.threads import SharedChange

_FLEX, _PLAIN = "flex_attention", "sdpa"
_changes: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


def flex_as_plain_attention(model: nn.Module) -> Any:
    """A context: within, what the model would compute by flex attention it computes by `scaled_dot_product_attention`.

    Of a model that has none an empty one. The configurations that say so are put back; another thread that runs the
    model meanwhile gets the same numbers by the same operation.
    """
    if model not in _changes:
        configurations = {id(found): found for module in model.modules() if _is_flex(found := _configuration(module))}
        _changes[model] = _change_of(list(configurations.values())) if configurations else nullcontext()
    return _changes[model]


def _configuration(module: nn.Module) -> Any:
    return vars(module).get("config")


def _is_flex(configuration: Any) -> bool:
    return getattr(configuration, "_attn_implementation", None) == _FLEX


def _change_of(configurations: list[Any]) -> SharedChange:
    def switch(implementation: str) -> None:
        for configuration in configurations:
            configuration._attn_implementation = implementation

    return SharedChange(make=lambda: switch(_PLAIN), undo=lambda: switch(_FLEX))

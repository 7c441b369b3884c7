"""Target layers as users give them: modules or dotted names, one or several."""

import difflib
from collections.abc import Sequence

from torch import nn


def resolve_layers(model: nn.Module, layers: nn.Module | str | Sequence[nn.Module | str]) -> list[nn.Module]:
    """The modules that `layers` names. An nn.Sequential is one layer, an nn.ModuleList a list: it cannot run itself.

    Raises ValueError for a name that the model does not have, and suggests close ones; TypeError for other types.
    """
    if isinstance(layers, nn.Module | str) and not isinstance(layers, nn.ModuleList):
        layers = [layers]
    return [_resolve(model, layer) for layer in layers]


def names_of(model: nn.Module, layers: Sequence[nn.Module]) -> list[str]:
    """The dotted names of modules of the model, in the order of `layers`; a shared module goes by its first name,
    one that the model runs without having it by its class.
    """
    names = {module: name for name, module in model.named_modules()}
    return [names.get(layer, type(layer).__name__) for layer in layers]


def _resolve(model: nn.Module, layer: nn.Module | str) -> nn.Module:
    if isinstance(layer, nn.Module):
        return layer
    if not isinstance(layer, str):
        raise TypeError(f"a target layer is a module or its dotted name, not {layer!r}")
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if layer not in modules:
        close = difflib.get_close_matches(layer, modules, n=5) or [name for name, _ in model.named_children()]
        raise ValueError(f"{type(model).__name__} has no layer {layer!r}; did you mean {', '.join(close)}?")
    return modules[layer]

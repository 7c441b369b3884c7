"""Find and replace the layers of a model."""

from collections.abc import Callable, Collection

from torch import nn


def find_layer_predicate_recursive(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """The layers below `model` that fulfil the predicate, in the order of registration, shared ones repeatedly."""
    return [layer for name, layer in model.named_modules(remove_duplicate=False) if name and predicate(layer)]


def find_layer_types_recursive(model: nn.Module, layer_types: Collection[type]) -> list[nn.Module]:
    """The layers below `model` of exactly these types, subclasses not included."""
    return find_layer_predicate_recursive(model, lambda layer: type(layer) in layer_types)


def replace_layer_recursive(model: nn.Module, old_layer: nn.Module, new_layer: nn.Module) -> bool:
    """Put a layer in the first place where another one stands; return whether there was one."""
    for name, layer in model.named_modules(remove_duplicate=False):
        if layer is old_layer and name:
            parent, _, name_in_parent = name.rpartition(".")
            model.get_submodule(parent)._modules[name_in_parent] = new_layer
            return True
    return False


def replace_all_layer_type_recursive(model: nn.Module, old_layer_type: type, new_layer: nn.Module) -> None:
    """Put one layer in the place of all layers of a type, subclasses included."""
    for parent in list(model.modules()):
        for name, layer in parent._modules.items():
            if isinstance(layer, old_layer_type):
                parent._modules[name] = new_layer

"""A model's modules once more, with the same parameters."""

from torch import nn


def replicated(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """A shallow copy of each module, wired like the model: the parameters and hooks are shared, the modules are not."""
    replicas = {}
    for module in model.modules():
        replica = object.__new__(type(module))  # that of torch.fx makes a class of its own for each object
        replica.__dict__.update(module.__dict__)
        replica.__dict__.pop("_compiled_call_impl", None)  # of `module.compile()`: it calls the module itself
        replicas[module] = replica
    for module, replica in replicas.items():
        children = {name: None if child is None else replicas[child] for name, child in module._modules.items()}
        replica.__dict__["_modules"] = children
    return replicas

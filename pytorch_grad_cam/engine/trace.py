"""One traced forward: what each module read and returned."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.inputs import call
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.undisturbed import undisturbed


class Call(NamedTuple):
    """One module's run, by its number: its name, the module, the first tensor that it read, one that it returned, and
    whether that is the first one in its output, or all of it.
    """

    run: int

    name: str
    module: nn.Module
    read: torch.Tensor | None
    returned: torch.Tensor
    first: bool
    alone: bool


@contextmanager
def traced(model: nn.Module, only: Collection[nn.Module] | None = None) -> Iterator[list[Call]]:
    """Within: the list gets every tensor that a module of the model, or `only` these, returns in this thread, in
    order of execution. Modules that the model runs under `no_grad` run with gradients if the caller does.
    """
    calls: list[Call] = []
    thread, gradients = threading.get_ident(), torch.is_grad_enabled()

    def switch_gradients(*_: Any) -> None:
        if threading.get_ident() == thread:
            torch.set_grad_enabled(gradients)

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if threading.get_ident() != thread:
                return
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            read = tensors[0] if tensors else None
            returned = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
            first = next(iter(floating_tensors(output)), None)
            run = calls[-1].run + 1 if calls else 0
            calls.extend(
                Call(run, name, module, read, tensor, tensor is first, tensor is output) for tensor in returned
            )

        return hook

    modules = [(name, module) for name, module in model.named_modules() if name and (only is None or module in only)]
    handles = [module.register_forward_pre_hook(switch_gradients) for _, module in modules]
    handles += [module.register_forward_hook(keep(name), with_kwargs=True) for name, module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def module_outputs(model: nn.Module, x: Any) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """Name, module and shape of every tensor that a module returns, in the order of execution. Cost: one forward."""
    with undisturbed(model), torch.no_grad(), traced(model) as calls:
        call(model, x)
    return [(call.name, call.module, tuple(call.returned.shape)) for call in calls]

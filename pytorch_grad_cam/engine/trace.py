"""One traced forward: what each module read and returned."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import call
from pytorch_grad_cam.engine.trees import tensors_in
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Arguments, Watch


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


class Trace(Watch):
    """A context: `runs` gets every tensor that a module of the model, or `only` these, returns in this thread, in order
    of execution. Modules that the model runs under `no_grad` run with gradients if the caller does.

    Of modules that the model runs without having them as its own, as Keras does, the class serves as the name.
    """

    def __init__(self, model: nn.Module, only: Collection[nn.Module] | None = None) -> None:
        names = {module: name for name, module in model.named_modules() if name}
        watched = names if only is None else {module for module in only if module is not model}
        self._names = {module: names.get(module, type(module).__name__) for module in watched}
        self.runs: list[Call] = []
        super().__init__(self._names, before=partial(torch.set_grad_enabled, torch.is_grad_enabled()))

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        args, _ = inputs
        is_plain = bool(args) and isinstance(args[0], torch.Tensor)  # of most modules; the rest need not be searched
        read = args[0] if is_plain else next(iter(tensors_in(inputs)), None)
        returned = tensors_in(output)
        first = next((tensor for tensor in returned if tensor.is_floating_point()), None)
        run = self.runs[-1].run + 1 if self.runs else 0
        name = self._names[module]
        self.runs.extend(
            Call(run, name, module, read, tensor, tensor is first, tensor is output) for tensor in returned
        )


@contextmanager
def traced(model: nn.Module, only: Collection[nn.Module] | None = None) -> Iterator[list[Call]]:
    """Within: the list gets the runs of a `Trace`."""
    with Trace(model, only) as trace:
        yield trace.runs


def module_outputs(model: nn.Module, x: Any) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """Name, module and shape of every tensor that a module returns, in the order of execution. Cost: one forward."""
    with undisturbed(model), torch.no_grad(), traced(model) as calls:
        call(model, x)
    return [(call.name, call.module, tuple(call.returned.shape)) for call in calls]

"""A model's forward, compiled, with what layers return as further outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, filterfalse
from operator import is_
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import Inputs, apply
from pytorch_grad_cam.engine.replicas import replicated
from pytorch_grad_cam.engine.torch_quirks.compiled_functions import compiled_apart
from pytorch_grad_cam.engine.watch import Watch

_END = object()
_HOOKS = "_forward_hooks", "_forward_pre_hooks"


class CompiledForward:
    """A model compiled as one graph, from inputs and zeros to its output and what each run of the layers returned.

    To the output of each run a tensor of zeros is added, in the order of the runs: the gradient with respect to it is
    that with respect to the output. So all that autograd needs is behind the first layer, and what is in front of it is
    compiled without a backward.

    The compiled modules are replicas, which share the parameters: what the user compiled of the model stays as it is,
    and needs no hooks. options: those of `torch.compile`.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], options: dict[str, Any]) -> None:
        replicas = replicated(model)
        for replica in replicas.values():
            for name in _HOOKS:
                kept = {key: hook for key, hook in vars(replica)[name].items() if not _is_ours(hook)}
                replica.__dict__[name] = OrderedDict(kept)
        self._tables = [table for module in replicas for table in (vars(module), module._modules)]
        self._hooks = [vars(module)[name] for module in replicas for name in _HOOKS]
        self._contents = list(self._now())
        self._zeros: Sequence[torch.Tensor] = ()
        self._runs: list[tuple[int, torch.Tensor]] = []
        for number, layer in enumerate(layers):
            replica = replicas[layer]
            replica.__dict__["forward"] = self._recording(number, replica.forward)
        root = replicas[model]

        def forward(zeros: Sequence[torch.Tensor], inputs: Inputs) -> tuple[Any, list[tuple[int, torch.Tensor]]]:
            self._zeros, self._runs = zeros, []
            outputs = apply(root, inputs)
            runs, self._zeros, self._runs = self._runs, (), []
            return outputs, runs

        self._forward = compiled_apart(forward, **options)

    def __call__(self, zeros: Sequence[torch.Tensor], inputs: Inputs) -> tuple[Any, list[tuple[int, torch.Tensor]]]:
        """The output, and of each run the number of its layer and what it returned. Cost: one forward; in the first
        call with such inputs it is compiled.
        """
        if any(zero.is_cuda for zero in zeros):
            torch.compiler.cudagraph_mark_step_begin()  # what earlier calls returned is needed no longer
        return self._forward(zeros, inputs)  # type: ignore[no-any-return]

    def is_of_now(self) -> bool:
        """Whether the model's modules still have the attributes, children and hooks with which they were compiled."""
        return all(map(is_, self._now(), self._contents))

    def _now(self) -> Iterator[Any]:
        hooks = filterfalse(_is_ours, chain.from_iterable(map(dict.values, self._hooks)))
        return chain(chain.from_iterable(map(dict.values, self._tables)), hooks, (_END,))

    def _recording(self, number: int, forward: Callable[..., Any]) -> Callable[..., torch.Tensor]:
        def recording(*args: Any, **kwargs: Any) -> torch.Tensor:
            output: torch.Tensor = forward(*args, **kwargs) + self._zeros[len(self._runs)]
            self._runs.append((number, output))
            return output.clone()  # an operation in place behind the layer must not change what is returned

        return recording


def _is_ours(hook: Any) -> bool:
    """Whether it is of a call that goes on: such hooks come and go, and are none of the model's."""
    return isinstance(getattr(hook, "__self__", None), Watch)

"""Many forwards of a model without gradients, compiled."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

from torch import nn

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.compiled_capture import announce_compiling, of_form
from pytorch_grad_cam.engine.compiled_difference import difference
from pytorch_grad_cam.engine.compiled_forward import CompiledForward
from pytorch_grad_cam.engine.inputs import Inputs, apply
from pytorch_grad_cam.engine.torch_quirks.compiled_functions import as_compiled


class CompiledModel:
    """Called as a model is: it runs compiled, once a forward with inputs of that form has shown that it can be.

    The first forward of a form runs the model as it was written, too, and returns the output of that. options: those of
    `torch.compile`. at_once: whether the first work of a kind is compiled for, or the second.
    """

    def __init__(self, model: nn.Module, options: dict[str, Any], at_once: bool = True) -> None:
        self._model, self._options, self._at_once = model, options, at_once
        self._forward: CompiledForward | None = None
        self._runs_compiled = dict[Any, bool]()
        self._come = set[Hashable]()

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledModel, (self._model, self._options, self._at_once)

    def is_to_take(self, work: Hashable) -> bool:
        """Whether to take it for work of this kind: not for the first where nobody has said so."""
        again = self._at_once or work in self._come
        self._come.add(work)
        return again

    def __call__(self, *args: Any, **named: Any) -> Any:
        inputs = named or args
        if self._forward is None or not self._forward.is_of_now():
            self._runs_compiled.clear()
            self._forward = CompiledForward(self._model, (), self._options)
        form = of_form(inputs)
        if self._runs_compiled.get(form, False):
            return self._compiled(self._forward, inputs)
        outputs = apply(self._model, inputs)
        if form not in self._runs_compiled:
            why = self._differs(self._forward, inputs, outputs)
            self._runs_compiled[form] = why is None
            if why is not None:
                issue(CamWarning(f"masked inputs are scored by the model as it was written, not compiled: {why}"))
        return outputs

    def _compiled(self, forward: CompiledForward, inputs: Inputs) -> Any:
        with as_compiled():
            return forward((), inputs)[0]

    def _differs(self, forward: CompiledForward, inputs: Inputs, outputs: Any) -> str | None:
        """In what the compiled forward differs from the one that was run."""
        if not self._at_once and not self._runs_compiled:
            announce_compiling()
        return difference(partial(self._compiled, forward, inputs), outputs)

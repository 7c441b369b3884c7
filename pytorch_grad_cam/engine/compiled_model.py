"""Many forwards of a model without gradients, compiled."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.compiled_capture import announce_compiling, is_close, of_form
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
        try:
            found = tree_leaves(self._compiled(forward, inputs))
        except Exception as error:  # noqa: BLE001
            # Whatever cannot be compiled of it, the model ran as it was written.
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        expected = tree_leaves(outputs)
        pairs = zip(found, expected, strict=False)
        same = len(found) == len(expected) and all(
            is_close(*pair) for pair in pairs if isinstance(pair[1], torch.Tensor) and pair[1].is_floating_point()
        )
        return None if same else "what it gives when it is compiled is not the same"

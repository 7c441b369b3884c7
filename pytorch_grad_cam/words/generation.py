"""One generation of a language model, with what it computed for each token on the way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import on_device_of
from pytorch_grad_cam.engine.scores import scores_among
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Arguments, Watch

_ONE_BY_ONE = "generate with one beam, without an assistant, and with a cache"


class Generation(NamedTuple):
    """A prompt of T tokens and the K that the model said.

    ids: (T + K,). prompt: T. states: (T + K - 1, D), what the head was given at each token but the last.
    probabilities: (K,), those that the model gave to what was said.
    """

    ids: torch.Tensor
    prompt: int
    states: torch.Tensor
    probabilities: torch.Tensor

    @property
    def answer(self) -> torch.Tensor:
        """The tokens that the model said: (K,)."""
        return self.ids[self.prompt :]


def head_of(model: nn.Module) -> nn.Module:
    """What makes the logits of all tokens, with their `weight` (tokens, D).

    Raises ValueError where the model does not say, or holds the weights in another form.
    """
    get = getattr(model, "get_output_embeddings", None)
    head = None if get is None else get()
    if not isinstance(head, nn.Module):
        raise ValueError(
            f"{type(model).__name__} does not say what makes its logits (get_output_embeddings): its words are "
            "explained by TokenTarget and a method with gradients, such as LayerCAM"
        )
    weight = getattr(head, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point() or weight.ndim != 2:
        raise ValueError(f"the head of {type(model).__name__} holds no weights (tokens, D) of floats: is it quantised?")
    return head


def generated(model: nn.Module, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Generation:
    """What `model.generate(**inputs, **options)` says.

    Cost: that of the generation, whose first forward has a hook on each module, and whose others have two.
    Raises ValueError for beams and assistants, whose steps are not the tokens of the answer, and where what the head is
    given is no module's output.
    """
    head = head_of(model)
    inputs = on_device_of(model, dict(inputs))
    with undisturbed(model), torch.no_grad(), ExitStack() as resources:
        steps = _Steps(model, head, resources.enter_context(_Newest(model.modules())))
        resources.enter_context(steps)
        said = model.generate(**inputs, **options)  # type: ignore[operator]
    ids = getattr(said, "sequences", said)[0]
    answer = ids[inputs["input_ids"].shape[1] :]
    states = torch.cat(steps.states)
    prompt = len(states) - len(answer) + 1
    if len(steps.logits) != len(answer) or prompt != inputs["input_ids"].shape[1]:
        raise ValueError(
            f"{len(steps.logits)} steps gave {len(answer)} tokens behind a prompt of {inputs['input_ids'].shape[1]}: "
            f"{_ONE_BY_ONE}"
        )
    probabilities = torch.stack(steps.logits).float().softmax(-1).gather(1, answer[:, None])[:, 0]
    return Generation(ids, prompt, states, probabilities)


class _Newest(Watch):
    """The tokens (1, T, D) that a module returned last."""

    def __init__(self, modules: Any) -> None:
        super().__init__(modules)
        self.tokens: torch.Tensor | None = None

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        tokens = floating_tensors(output)
        if tokens and tokens[0].ndim == 3:
            self.tokens = tokens[0]


class _Steps(Watch):
    """What the head is given in each step, of the first that of all tokens of the prompt, and the logits behind it."""

    def __init__(self, model: nn.Module, head: nn.Module, newest: _Newest) -> None:
        super().__init__([model, head], before=object)
        self.states: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []
        self._head, self._newest = head, newest

    def starts(self, module: nn.Module, args: Any) -> None:
        if module is not self._head:
            return
        given = args[0]
        if len(given) != 1:
            raise ValueError(f"the model goes on with {len(given)} answers at once: {_ONE_BY_ONE}")
        if not self.states:
            tokens = self._newest.tokens
            self._newest.__exit__()
            # A head that is asked for the last token alone does not see the others.
            if tokens is None or tokens.shape[1] < given.shape[1] or not _ends_with(tokens, given):
                raise ValueError(
                    f"what the head of {type(self._head).__name__} is given is no module's output: the states of the "
                    "image's tokens cannot be read"
                )
            given = tokens
        self.states.append(given[0])

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        if module is not self._head:
            self.logits.append(scores_among(output)[0, -1])


def _ends_with(tokens: torch.Tensor, last: torch.Tensor) -> bool:
    found = tokens[:, tokens.shape[1] - last.shape[1] :]
    return found.shape == last.shape and torch.equal(found, last)

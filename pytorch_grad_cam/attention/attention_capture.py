"""The attentions of chosen blocks in one forward of a model, and gradients with respect to their weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.attention.attention_watch import AttentionWatch
from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.attention.towers import Tower
from pytorch_grad_cam.engine.capture import Captured, source
from pytorch_grad_cam.engine.inputs import Inputs, call
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.torch_quirks.second_derivatives import twice_differentiable
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.watch import Arguments, Watch

_HEADS_IN_BATCH_NDIM = 3  # (N * heads, T, S)


class OfBlock(NamedTuple):
    """An attention, the block that computed it, None behind the last one, and its number among those of the block."""

    block: nn.Module | None
    number: int
    attention: Attention


class AttentionCapture(Watch):
    """One call's capture of the attentions within a tower's blocks: a context, in which the model is run once.

    gradients: their weights require a gradient, whether or not parameters do; the graph begins at the first of them.
    detach: False keeps the graph in front of them, and that of the gradients.

    Used in a call in the place of `engine.capture.Capture`; `runs` are those of the last block. Runs of the model in
    other threads, and attentions outside of the blocks, are not touched.
    """

    def __init__(self, model: nn.Module, tower: Tower, gradients: bool, detach: bool = True) -> None:
        super().__init__(tower.blocks, before=object)
        self.tower = tower
        self.runs: Captured = ()
        self.attentions: list[OfBlock] = []
        self.outputs: dict[nn.Module, Any] = {}
        self._model, self._blocks, self._gradients, self._detach = model, tower.blocks, gradients, detach
        self._within: list[nn.Module] = []
        self._recording = False

    def run(self, inputs: Inputs) -> Any:
        """The model's output. Cost: one forward; its attentions within the blocks are not fused.

        Raises ValueError where a block did not run.
        """
        outputs = self._run(inputs)
        for block in self._blocks:
            if block not in self.outputs:
                raise ValueError(f"target layer {type(block).__name__} did not run when the model was called")
        self.runs = [(self._blocks[-1], self.outputs[self._blocks[-1]])]
        return outputs

    def _run(self, inputs: Inputs) -> Any:
        from_start = self._gradients and (
            not self._detach or any(tensor.requires_grad for tensor in floating_tensors(inputs))
        )
        self.attentions, self.outputs, self._within = [], {}, []
        self._recording = True
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.set_grad_enabled(from_start))
                stack.enter_context(nullcontext() if self._detach else twice_differentiable())
                stack.enter_context(AttentionWatch(self._kept, self._seen))
                return call(self._model, inputs)
        finally:
            self._recording = False

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[list[torch.Tensor], Sequence[torch.Tensor | None]]:
        """The gradients of the scalar `score` with respect to each attention's weights, and to `inputs`.

        Cost: one backward of the model behind the first attention.
        Raises ValueError when no gradient leads from the score to any of them.
        """
        weights = [of_block.attention.weights for of_block in self.attentions]
        found = self.derivatives(score, [*weights, *inputs], keep_graph)
        gradients = found[: len(weights)]
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                "no gradient leads from the score to the attention of any block: the score does not depend on it, or "
                "the output was computed under no_grad, detached, or made by an operation without a derivative; "
                "AttentionRollout needs no gradients"
            )
        filled = [
            torch.zeros_like(weight) if gradient is None else gradient
            for weight, gradient in zip(weights, gradients, strict=True)
        ]
        return filled, found[len(weights) :]

    def derivatives(
        self, score: torch.Tensor, wanted: Sequence[torch.Tensor], keep_graph: bool
    ) -> Sequence[torch.Tensor | None]:
        """The gradients of the score with respect to tensors, None where it does not depend on one."""
        if not score.requires_grad:
            return [None] * len(wanted)
        create_graph = not self._detach
        return torch.autograd.grad(score, wanted, None, keep_graph or create_graph, create_graph, allow_unused=True)

    def starts(self, module: nn.Module, args: Any) -> None:
        if self._recording:
            self._within.append(module)

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        if self._recording:
            self._within.remove(module)
            self.outputs[module] = output

    def _kept(self, weights: torch.Tensor) -> torch.Tensor | None:
        if not self._within:
            return None
        # Asked by a watch of functions, which sees this call no more.
        torch.set_grad_enabled(self._gradients)
        return source(weights) if self._gradients else weights

    def _seen(self, attention: Attention) -> None:
        block = self._within[-1]
        number = sum(other.block is block for other in self.attentions)
        self.attentions.append(OfBlock(block, number, attention))


class MeanCapture(AttentionCapture):
    """An attention capture that keeps the mean over the heads, as one head: memory N x T x T for each attention.

    Weights that come as (N * heads, T, S) are kept as they are.
    """

    def _seen(self, attention: Attention) -> None:
        weights = attention.weights
        if weights.ndim > _HEADS_IN_BATCH_NDIM:
            weights = full_precision(weights.flatten(1, -3)).mean(1, keepdim=True)
        super()._seen(Attention(weights))


class DecoderCapture(AttentionCapture):
    """An attention capture that keeps the attentions behind the last block, too, as those of a decoder's queries."""

    def _kept(self, weights: torch.Tensor) -> torch.Tensor | None:
        kept = super()._kept(weights)
        if kept is not None or self._blocks[-1] not in self.outputs:
            return kept
        return source(weights) if self._gradients else weights

    def _seen(self, attention: Attention) -> None:
        if self._within:
            super()._seen(attention)
        else:
            self.attentions.append(OfBlock(None, 0, attention))

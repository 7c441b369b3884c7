"""The score that a model gives to the mean token of each of its blocks."""

from __future__ import annotations

import weakref
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pytorch_grad_cam.attention.attention_capture import AttentionCapture
from pytorch_grad_cam.attention.tokens import BlockedTokens, mean_token
from pytorch_grad_cam.attention.towers import Tower
from pytorch_grad_cam.engine.inputs import Inputs, call
from pytorch_grad_cam.engine.trees import copied, detached, first_tensor, floating_tensors
from pytorch_grad_cam.engine.watch import Arguments, Watch

_one_by_one: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class BlockScores(AttentionCapture):
    """An attention capture that also asks what the model says of the mean token of each block.

    The model's part behind the last block gets a block's mean token in the place of all tokens: what reads the class
    token and what averages them see the same. `of_blocks` then has the output for each block, in their order.

    That part runs once, on the blocks' means as further images. Where it knows how many images there are, the model is
    run once more for each block, and from then on always.
    """

    def __init__(self, model: nn.Module, tower: Tower, gradients: bool, detach: bool = True) -> None:
        super().__init__(model, tower, gradients, detach)
        self.of_blocks: list[Any] = []
        self._means: dict[nn.Module, torch.Tensor] = {}
        self._rows: _Rows | None = None
        self._sizes: set[int] = set()
        self._stacks = False

    def run(self, inputs: Inputs) -> Any:
        """The model's output for the images. Cost: one forward, and that of the part behind the last block."""
        layout = self.tower.layout
        mixes_images = isinstance(layout, BlockedTokens) and layout.rows_of_image > 1
        if mixes_images or self._model in _one_by_one:
            return self._run_one_by_one(inputs)
        self._sizes = {size for tensor in floating_tensors(inputs) for size in tensor.shape}
        self._stacks = True
        try:
            stacked = super().run(inputs)
        except Exception:  # noqa: BLE001
            # A part behind the blocks that knows how many images there are, or the model's own mistake, made again.
            stacked = None
        finally:
            self._stacks = False
        if stacked is None or self._rows is None or not self._rows.are_in(stacked):
            outputs = self._run_one_by_one(inputs)
            _one_by_one.add(self._model)
            return outputs
        of_images, *self.of_blocks = (self._rows.of(stacked, place) for place in range(len(self._blocks) + 1))
        return of_images

    def _run_one_by_one(self, inputs: Inputs) -> Any:
        outputs = super().run(inputs)
        self.of_blocks = []
        for block in self._blocks:
            tokens = self._means[block].contiguous()  # what is behind may join their axes without a copy
            with torch.enable_grad(), Exchanged(self._blocks[-1], tokens):
                self.of_blocks.append(call(self._model, inputs))
        return outputs

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        super().seen(module, inputs, output)
        if not self._recording:
            return None
        # Here and of a copy: an operation in place behind the block must not change it.
        self._means[module] = mean_token(first_tensor(output), self.tower.layout)
        # A block's score is read of its own mean token: no gradient needs to pass from one block to another.
        handed_on = copied(detached(output) if self._detach else output)
        return self._stacked(handed_on) if self._stacks and module is self._blocks[-1] else handed_on

    def _stacked(self, output: Any) -> Any:
        """What the last block returns, with the mean token of each block as further images."""
        tokens, axis = first_tensor(output), self.tower.layout.axes.index("N")
        means = [self._means[block] for block in self._blocks]
        images = tokens.shape[axis]
        # No other axis of an output is as long as the stack.
        while images and images * (1 + len(means)) in self._sizes:
            means.append(means[-1])
        self._rows = _Rows(images, images * (1 + len(means)))
        return _with_first_tensor(output, torch.cat([tokens, *means], dim=axis))


class _Rows:
    """The parts of a stack in what a model made of it: of each tensor along its first axis of that length."""

    def __init__(self, images: int, total: int) -> None:
        self.images, self.total = images, total

    def are_in(self, outputs: Any) -> bool:
        return any(self._axis(tensor) is not None for tensor in floating_tensors(outputs))

    def of(self, outputs: Any, place: int) -> Any:
        """One part."""

        def part_of(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor):
                axis = self._axis(leaf)
                return leaf if axis is None else leaf.narrow(axis, place * self.images, self.images)
            if not is_dataclass(leaf) or isinstance(leaf, type):
                return leaf
            result = copy(leaf)
            for field in fields(leaf):
                object.__setattr__(result, field.name, tree_map(part_of, getattr(leaf, field.name)))
            return result

        return tree_map(part_of, outputs)

    def _axis(self, tensor: torch.Tensor) -> int | None:
        return tensor.shape.index(self.total) if self.total in tensor.shape else None


class Exchanged(Watch):
    """Other tokens in the place of those that a block returns."""

    def __init__(self, block: nn.Module, tokens: torch.Tensor) -> None:
        super().__init__([block])
        self._tokens = tokens

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        return _with_first_tensor(output, self._tokens)


def _with_first_tensor(output: Any, tokens: torch.Tensor) -> Any:
    leaves, structure = tree_flatten(output)
    first = first_tensor(output)
    return tree_unflatten([tokens if leaf is first else leaf for leaf in leaves], structure)

"""What a model makes of each cell's own value, as its last block gives it when no token sees another."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.attention.attention_capture import AttentionCapture
from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.attention.block_scores import Exchanged
from pytorch_grad_cam.attention.tokens import BlockedTokens
from pytorch_grad_cam.attention.towers import Tower
from pytorch_grad_cam.engine.inputs import Inputs, call
from pytorch_grad_cam.engine.layouts import Layout
from pytorch_grad_cam.engine.trees import copied, first_tensor
from pytorch_grad_cam.engine.watch import Arguments


class ValuePath(AttentionCapture):
    """A capture that also asks what the model says of each cell alone: `of_cells`, its output for N * cells images.

    The last block is run once more with the identity in the place of its attention weights, so that each token is what
    the block makes of its own value. The model is then run again, and its part behind that block gets one cell as an
    image, in the place of all tokens.
    """

    def __init__(self, model: nn.Module, tower: Tower, gradients: bool, detach: bool = True) -> None:
        super().__init__(model, tower, gradients, detach)
        if isinstance(tower.layout, BlockedTokens):
            raise ValueError("tokens that stand in windows are no images of one cell: take LeGrad")
        self.of_cells: Any = None
        self._arguments: Any = ()
        self._values = torch.empty(0)
        self._are_values = False

    def run(self, inputs: Inputs) -> Any:
        """The model's output for the images. Cost: two forwards, and the last block once more.

        Raises ValueError where the model's part behind the last block takes no single cell.
        """
        outputs = super().run(inputs)
        last, layout = self._blocks[-1], self.tower.layout
        cells = layout(self._values).flatten(2).mT.flatten(0, 1)
        with (
            torch.set_grad_enabled(not self._detach),
            Exchanged(last, _as_images(cells, layout, self._values).contiguous()),
        ):
            try:
                self.of_cells = call(self._model, inputs)
            except Exception as error:
                raise ValueError(
                    f"what is behind the last block of {type(self._model).__name__} takes no single cell of the image "
                    f"({type(error).__name__}: {error}): take LeGrad or GradECLIP"
                ) from error
        return outputs

    def starts(self, module: nn.Module, args: Any) -> Any:
        super().starts(module, args)
        if not self._recording or module is not self._blocks[-1]:
            return None
        self._arguments = args
        return copied(args)  # what the block writes into its input is not read again

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        super().seen(module, inputs, output)
        if self._recording and module is self._blocks[-1]:
            self._are_values = True
            try:
                self._values = first_tensor(module.forward(*copied(self._arguments), **inputs[1]))
            finally:
                self._are_values = False

    def _kept(self, weights: torch.Tensor) -> torch.Tensor | None:
        if not self._are_values:
            return None
        queries, keys = weights.shape[-2:]
        return torch.eye(queries, keys).to(weights).expand_as(weights)

    def _seen(self, attention: Attention) -> None:
        """The weights themselves are nothing that the method asks for."""


def _as_images(cells: torch.Tensor, layout: Layout, output: torch.Tensor) -> torch.Tensor:
    """Cells (M, C) as M images of one cell each, in the form of the output; where tokens stand in front of the cells,
    that many more of it.
    """
    if "T" in layout.axes:
        count = output.shape[layout.axes.index("T")] if layout.spans else layout.extra + 1
        tokens = cells[:, None].expand(-1, count, -1)
        return tokens.permute(*("NTC".index(axis) for axis in layout.axes))
    images = cells[(...,) + (None,) * len(layout.grid)]
    return images if layout.axes.startswith("NC") else images.movedim(1, -1)

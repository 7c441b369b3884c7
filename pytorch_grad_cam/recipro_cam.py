"""Recipro-CAM (Byun & Lee 2022, arXiv:2209.14074)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import Target
from pytorch_grad_cam.engine.trees import AsMap
from pytorch_grad_cam.perturbation.single_cells import scores_of_cells
from pytorch_grad_cam.perturbation.tail_cam import TailCAM

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ReciproCAM(TailCAM):
    r"""What the model says of each cell alone: $L_{ij} = softmax(T(A \odot \delta_{ij}))_c$, with the tail T behind the
    layer; no gradients, so that quantised and other tails without any can be explained.

    Of a target that is no class the score itself. Tokens that are no cells, as the class token, stay as they are.
    gaussian: a cell is shown with its neighbours, weighted by the paper's 3 x 3 Gaussian (on each axis 1/4, 1/2, 1/4).
    batch_size: how many cells the tail gets at a time; None is 32 on a CPU and 128 elsewhere. Further options are those
    of BaseCAM.
    Raises ValueError for a reshape_transform that mixes or scales what the layer returned.
    When to take it: without gradients, at a coarse layer. Not at a fine one: the tail runs once for each cell.
    Cost: one forward (three for the first call with a number of images) and, for each cell of each image, the model's
    tail behind the layer, whatever the number of targets. Where the tail begins with the mean over all positions it
    gets one position for each cell, where the score reads a class token behind attention that token, the cell and one
    token for all zeros; whether that gives the same is seen by two cells of the first call.
    Paper: Byun & Lee 2022, https://arxiv.org/abs/2209.14074.
    """

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        gaussian: bool = False,
        batch_size: int | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, batch_size, **options)
        self.gaussian = gaussian

    def of_tail(self, tail: PartialForward, target_lists: Sequence[Sequence[Target]], run: LayerRun) -> torch.Tensor:
        how = cast(AsMap, run.as_map), run.activations.shape[2:], self.gaussian, self.batch_size, run.call.learnt
        return scores_of_cells(tail, target_lists, *how)

    def evidence(self, run: LayerRun) -> torch.Tensor:
        return self.asked(run)

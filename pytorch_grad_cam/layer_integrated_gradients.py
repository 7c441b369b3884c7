"""Integrated gradients of a layer (Sundararajan et al. 2017, arXiv:1703.01365)."""

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
from pytorch_grad_cam.perturbation.path_gradients import path_gradients
from pytorch_grad_cam.perturbation.tail_cam import TailCAM

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LayerIntegratedGradients(TailCAM):
    r"""Each activation times its mean gradient on the way from zero: $L = \sum_k A^k \odot \int_0^1 \partial T(aA) /
    \partial A^k \, da$ (eq. 1, at a layer), with the tail T behind the layer.

    The sum over all cells and channels, and over tokens that are no cells, is T(A) - T(0): nothing of the score is lost
    where it is saturated. The baseline is the layer's output of zeros, not that of an image, as captum's
    LayerIntegratedGradients takes it.
    steps: at how many points of the way gradients are taken, in the middle of as many equal parts.
    batch_size: how many rows the tail gets at a time, steps times images; None is 32 on a CPU and 128 elsewhere.
    Further options are those of BaseCAM.
    Raises ValueError for less than one step.
    When to take it: for a saturated score, whose gradient at the image says little. Not where one backward pass is
    all that may be spent.
    Cost: one forward (three for the first call with a number of images) and, for each step and image, the model's tail
    behind the layer, with a backward through it for each target.
    Paper: Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365.
    """

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        steps: int = 16,
        batch_size: int | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        super().__init__(model, target_layers, reshape_transform, batch_size, **options)
        self.steps = steps

    def of_tail(self, tail: PartialForward, target_lists: Sequence[Sequence[Target]], run: LayerRun) -> torch.Tensor:
        return path_gradients(tail, target_lists, cast(AsMap, run.as_map), self.steps, self.batch_size)

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return self.asked(run)

"""Random weights: the baseline that a method must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.layer_run import LayerRun

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RandomCAM(BaseCAM):
    """Channels weighted by draws from [-1, 1), new ones for each image.

    seed: two objects with the same seed give the same sequence of maps; None takes one from PyTorch's global generator.
    Further options are those of BaseCAM.
    When to take it: as the baseline that a method has to beat. Not as an explanation.
    Cost: one forward.
    Paper: none defines it; a baseline of grad-cam 1.x, https://github.com/jacobgil/pytorch-grad-cam.
    """

    uses_targets = False

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        seed: int | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        drawn = int(torch.randint(2**62, ())) if seed is None else seed
        self.generator = torch.Generator().manual_seed(drawn)

    def weigh(self, run: LayerRun) -> torch.Tensor:
        draws = torch.rand(run.activations.shape[:2], generator=self.generator, device="cpu")
        return (2 * draws - 1).to(run.activations)

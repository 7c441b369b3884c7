"""KPCA-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.kernel_component import first_kernel_component
from pytorch_grad_cam.engine.layer_run import LayerRun

if TYPE_CHECKING:
    from typing_extensions import Unpack


class KPCA_CAM(BaseCAM):  # noqa: N801
    """The activations' first kernel principal component: Eigen-CAM with a curved axis; for no class in particular.

    kernel: linear, poly, rbf, sigmoid or cosine. gamma: of the kernel; None is 1 / C. Further options are those of
    BaseCAM. Its sign is a rule: see `kernel_component.first_kernel_component`.
    When to take it: where Eigen-CAM's one straight axis misses an object. Not for large maps: its memory grows with the
    square of the positions.
    Cost: one forward, and O(P^2) memory for P positions; of two samples one more forward in the first call, see
    `engine.rectifiers`.
    Paper: Karmani et al. 2024, https://arxiv.org/abs/2410.00267.
    """

    uses_targets = False
    takes_rectified = True

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        kernel: Literal["linear", "poly", "rbf", "sigmoid", "cosine"] = "sigmoid",
        gamma: float | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.kernel = kernel
        self.gamma = gamma

    def evidence(self, run: LayerRun) -> torch.Tensor:
        return first_kernel_component(run.activations, self.kernel, self.gamma)

"""Feature Explanation Method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import spatial_axes

if TYPE_CHECKING:
    from typing_extensions import Unpack


def feature_explanation(activations: torch.Tensor, k: float) -> torch.Tensor:
    r"""$\sum_c \mu_c B_c$ with the binary maps $B_c = [A^c > \mu_c + k \sigma_c]$ (the k-sigma rule).

    Mean and standard deviation of each channel are over its positions; (N, C, *spatial) to (N, *spatial).
    """
    axes = spatial_axes(activations)
    mean = activations.mean(axes, keepdim=True)
    deviation = activations.std(axes, correction=0, keepdim=True)
    return (mean * (activations > mean + k * deviation)).sum(1)


class FEM(BaseCAM):
    """Where channels are unusually strong, weighted by their means; for no class in particular.

    k: how many standard deviations above its mean a channel has to be. Further options are those of BaseCAM.
    Made for activations that are not negative (behind a ReLU).
    When to take it: for a quick map of what stands out, without a class. Not for signed activations, nor to tell
    one class from another.
    Cost: one forward; of two samples one more in the first call, see `engine.rectifiers`.
    Paper: Fuad et al. 2020, https://doi.org/10.1109/IPTA50016.2020.9286629.
    """

    uses_targets = False
    takes_rectified = True

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        k: float = 2,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.k = k

    def evidence(self, run: LayerRun) -> torch.Tensor:
        return feature_explanation(run.activations, self.k)

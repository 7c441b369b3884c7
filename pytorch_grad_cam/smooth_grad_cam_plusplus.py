"""Smooth Grad-CAM++."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import spatial_axes
from pytorch_grad_cam.engine.targets import TargetLists
from pytorch_grad_cam.perturbation.noisy_gradients import gradients_of, noisy

if TYPE_CHECKING:
    from typing_extensions import Unpack


def smooth_grad_cam_plusplus_weights(activations: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    r"""$w_k = \sum_{ij} \alpha^k_{ij} ReLU(D_1)^k_{ij}$ with $\alpha = D_2 / (2 D_2 + \sum_{ab} A_{ab} D_3)$.

    $D_p$ is the mean of $g^p$ over the noisy images.

    activations: (N, C, *spatial). grads: of the noisy images, (samples, N, C, *spatial). Returns (N, C). The gradients
    are divided by their largest value first, so that no power of them underflows. Zero where the denominator is.
    """
    largest = grads.abs().amax((0, *range(2, grads.ndim)))
    largest = largest.masked_fill(largest == 0, 1).reshape(-1, *[1] * (activations.ndim - 1))
    first, second, third = (((grads / largest) ** power).mean(0) for power in (1, 2, 3))
    total = activations.sum(spatial_axes(activations), keepdim=True)
    denominator = 2 * second + total * third * largest
    alpha = torch.where(denominator == 0, 0, second / denominator)
    return (alpha * first.relu() * largest).sum(spatial_axes(activations))


class SmoothGradCAMPlusPlus(BaseCAM):
    r"""Grad-CAM++ with the mean gradients of noisy copies of the image, and the activations of the clean one.

    samples: how many copies. std: of the Gaussian noise, in units of the preprocessed image. seed: of the noise, which
    is the same for all images and calls. Further options are those of BaseCAM.
    Departs from the paper in the numerator of alpha, which is $D_2$ as in Grad-CAM++; the paper has $D_1$ there.

    When to take it: for networks with noisy gradients. Not worth its cost by our own numbers: on the bundled digits all
    figures are those of GradCAMPlusPlus (hits .92, energy .40), which costs a fifth.

    Raises ValueError for less than one sample.
    Cost: 1 + samples forwards and, for each target, samples backwards from the score to the layer; with several layers
    the noisy ones for each of them.
    Paper: Omeiza et al. 2019, https://arxiv.org/abs/1908.01224.
    """

    uses_gradients = is_differentiable = False
    takes_rectified = averages_positions = True

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        samples: int = 4,
        std: float = 0.3,
        seed: int = 0,
        **options: Unpack[CamOptions],
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples is {samples}, expected at least 1")
        super().__init__(model, target_layers, reshape_transform, **options)
        self.samples, self.std, self.seed = samples, std, seed

    def weigh(self, run: LayerRun) -> torch.Tensor:
        def of_noisy(target_lists: TargetLists) -> torch.Tensor:
            images = noisy(run.image, self.std, self.samples, self.seed)
            grads = torch.stack([gradients_of(run, each, target_lists) for each in images], dim=1)
            return torch.stack([smooth_grad_cam_plusplus_weights(run.activations, of_list) for of_list in grads])

        return run.of_targets(of_noisy)

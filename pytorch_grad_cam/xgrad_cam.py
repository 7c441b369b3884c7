"""XGrad-CAM."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import spatial_axes


def xgrad_cam_weights(activations: torch.Tensor, grads: torch.Tensor, sums: torch.Tensor | None = None) -> torch.Tensor:
    r"""Eq. 8: $\alpha_k = \sum_{ij} \frac{A^k_{ij}}{\sum_{ab} A^k_{ab}} \partial y / \partial A^k_{ij}$.

    (N, C, *spatial) to (N, C); zero for a channel whose activations sum to zero. sums: those of the activations (N, C),
    where they are not these activations' own.
    """
    axes = spatial_axes(activations)
    total = activations.sum(axes) if sums is None else sums
    return (activations * grads).sum(axes) / total.masked_fill(total == 0, torch.inf)


class XGradCAM(BaseCAM):
    """Channels weighted by the mean of their gradients, each position counted by its activation.

    Made for activations that are not negative (behind a ReLU): a signed channel can sum to nearly zero.
    When to take it: where Grad-CAM is taken, behind a ReLU, and the channels' gradients should add up to the score.
    Not for signed activations.
    Cost: one forward, one backward from the score to the layer.
    Paper: Fu et al. 2020, https://arxiv.org/abs/2008.02312.
    """

    takes_rectified = averages_positions = sums_channels = True

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return xgrad_cam_weights(run.activations, run.grads, run.channel_sums)

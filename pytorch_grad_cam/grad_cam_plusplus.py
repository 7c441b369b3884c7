"""Grad-CAM++."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import over_positions, spatial_axes


def grad_cam_plusplus_weights(
    activations: torch.Tensor, grads: torch.Tensor, sums: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Eq. 5 and 19, for activations and gradients g (N, C, *spatial): weights (N, C).

    $w_k = \sum_{ij} \alpha^k_{ij} ReLU(g^k_{ij})$ with $\alpha = g^2 / (2 g^2 + \sum_{ab} A_{ab} g^3)$.

    Dividing numerator and denominator by $g^2$ gives $1 / (2 + g \sum_{ab} A_{ab})$: nothing underflows, whatever the
    score's scale, and no epsilon is needed. Zero where the denominator is. The paper's factor exp(y), the derivative
    of its exponential score, is the same for all channels and left out. sums: those of the activations (N, C), where
    they are not these activations' own.
    """
    sums = activations.flatten(2).sum(2) if sums is None else sums
    denominator = 2 + grads * over_positions(sums, grads)
    alpha = torch.where(denominator == 0, 0, 1 / denominator)
    return (alpha * grads.relu()).sum(spatial_axes(grads))


class GradCAMPlusPlus(BaseCAM):
    """Channels weighted by their positive gradients, each position by the share that it has in the score.

    Departs from Grad-CAM for classes that occur several times in an image. Made for activations that are not negative
    (behind a ReLU): with signed ones the denominator may come close to zero.
    When to take it: for several objects of one class. Not for layers with signed activations, such as a
    transformer's (LayerCAM).
    Cost: one forward, one backward from the score to the layer.
    Paper: Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063.
    """

    takes_rectified = averages_positions = sums_channels = True

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return grad_cam_plusplus_weights(run.activations, run.grads, run.channel_sums)

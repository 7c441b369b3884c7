"""Grad-CAM."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import spatial_axes


def grad_cam_weights(grads: torch.Tensor) -> torch.Tensor:
    r"""Eq. 1: $\alpha_k = \frac{1}{Z} \sum_{ij} \partial y / \partial A^k_{ij}$. (N, C, *spatial) to (N, C)."""
    return grads.mean(spatial_axes(grads))


class GradCAM(BaseCAM):
    r"""Channels weighted by their mean gradient: $L = ReLU(\sum_k \alpha_k A^k)$ (eq. 2).

    When to take it: first, and to compare with others' maps: it works wherever a gradient does. Not for one of
    several boxes that look alike, where its mean gradient marks them all (LayerCAM), nor at early layers.
    Cost: one forward, one backward from the score to the layer.
    Paper: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """

    averages_positions = True

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return grad_cam_weights(run.grads)

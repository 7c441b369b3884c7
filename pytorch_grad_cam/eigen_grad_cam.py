"""Eigen-Grad-CAM: Eigen-CAM of the activations times their gradients."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.principal_component import first_principal_component


class EigenGradCAM(BaseCAM):
    """The first principal component of gradient times activation, which makes Eigen-CAM aware of the class.

    No paper defines it; its sign is that of the sum over the channels, see `first_principal_component`.
    When to take it: for a smoother map than Grad-CAM's on a noisy layer. Not where the exact formula of a paper is
    asked for.
    Cost: one forward, one backward from the score to the layer.
    Paper: of Eigen-CAM, Muhammad & Yeasin 2020, https://arxiv.org/abs/2008.00299.
    """

    takes_rectified = True

    def evidence(self, run: LayerRun) -> torch.Tensor:
        return first_principal_component(run.grads * run.activations)

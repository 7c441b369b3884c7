"""Element-wise Grad-CAM: HiResCAM with the ReLU inside the sum."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.principal_component import first_principal_component


def positive_evidence(activations: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    r"""$ReLU(\partial y / \partial A^k \odot A^k)$ for activations and gradients (N, C, *spatial)."""
    return (grads * activations).relu()


class GradCAMElementWise(BaseCAM):
    r"""What speaks for the class, channel by channel: $L = \sum_k ReLU(\partial y / \partial A^k \odot A^k)$.

    No paper defines it; the formula is that of grad-cam 1.x. Evidence of one channel against the class does not cancel
    that of another for it, as it does in HiResCAM.
    When to take it: where HiResCAM's channels cancel each other out. Not as faithful evidence: what speaks against
    the class is left out channel by channel.
    Cost: one forward, one backward from the score to the layer.
    Paper: of HiResCAM, Draelos & Carin 2020, https://arxiv.org/abs/2011.08891.
    """

    takes_rectified = True

    def evidence(self, run: LayerRun) -> torch.Tensor:
        evidence = positive_evidence(run.activations, run.grads)
        return first_principal_component(evidence) if run.call.eigen_smooth else evidence.sum(1)

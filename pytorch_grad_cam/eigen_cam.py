"""Eigen-CAM."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.principal_component import first_principal_component


class EigenCAM(BaseCAM):
    """The activations' first principal component: what the layer responds to most, for no class in particular.

    Departs from the paper in that the channels are centred first, and in that its sign is a rule: see
    `principal_component.first_principal_component`.
    When to take it: to see what is there at all, without a class and without gradients. Not to tell one class from
    another.
    Cost: one forward; of two samples one more in the first call, see `engine.rectifiers`.
    Paper: Muhammad & Yeasin 2020, https://arxiv.org/abs/2008.00299.
    """

    uses_targets = False
    takes_rectified = True

    def evidence(self, run: LayerRun) -> torch.Tensor:
        return first_principal_component(run.activations)

"""Seg-Eigen-CAM."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.principal_component import first_principal_component, strongest_positive


class SegEigenCAM(BaseCAM):
    r"""The first principal component (eq. 11-12) of $|\partial y / \partial A| \odot A$ (eq. 10), made positive (13).

    Made for segmentation: `utils.model_targets.SemanticSegmentationTarget` says what is explained.
    When to take it: for a category of a segmentation. Not for classifiers with two objects of like classes: the
    sign of the gradient is lost.
    Cost: one forward, one backward from the score to the layer.
    Paper: Chung & Ying 2025, https://doi.org/10.3390/app15137562.
    """

    takes_rectified = True

    def evidence(self, run: LayerRun) -> torch.Tensor:
        return strongest_positive(first_principal_component(run.grads.abs() * run.activations))

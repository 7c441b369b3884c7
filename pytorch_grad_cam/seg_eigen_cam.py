"""Seg-Eigen-CAM (Chung & Ying 2025, doi:10.3390/app15137562)."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.principal_component import first_principal_component


def strongest_positive(maps: torch.Tensor) -> torch.Tensor:
    r"""Eq. 13: each map of (N, *spatial) negated where its $|\min|$ is above its $|\max|$."""
    axes = tuple(range(1, maps.ndim))
    lowest, highest = maps.amin(axes, keepdim=True), maps.amax(axes, keepdim=True)
    return torch.where(lowest.abs() > highest.abs(), -maps, maps)


class SegEigenCAM(BaseCAM):
    r"""The first principal component (eq. 11-12) of $|\partial y / \partial A| \odot A$ (eq. 10), made positive (13).

    Made for segmentation: `utils.model_targets.SemanticSegmentationTarget` says what is explained.
    Cost: one forward, one backward from the score to the layer.
    """

    def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False):
        return strongest_positive(first_principal_component(grads.abs() * activations))

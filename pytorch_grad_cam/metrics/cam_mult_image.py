"""The score of the image times its map: drop and increase in confidence (arXiv:1710.11063, section 5)."""

import numpy as np
import torch

from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric


def multiply_tensor_with_cam(input_tensor: torch.Tensor, cam: torch.Tensor) -> torch.Tensor:
    """The (normalised) image (C, H, W) times the map (H, W)."""
    return input_tensor * cam


class CamMultImageConfidenceChange(PerturbationConfidenceMetric):
    """The score of the image times its map, minus that of the image.

    Paper: Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063.
    """

    def __init__(self) -> None:
        super().__init__(multiply_tensor_with_cam)


class DropInConfidence(CamMultImageConfidenceChange):
    """How far the score falls: max(0, before - after). The paper's Average Drop divides this by `before`.

    Paper: Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063.
    """

    def of_change(self, change: np.ndarray) -> np.ndarray:
        drop: np.ndarray = np.maximum(-change, 0)
        return drop


class IncreaseInConfidence(CamMultImageConfidenceChange):
    """Whether the score rises: 1 or 0.

    Paper: Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063.
    """

    def of_change(self, change: np.ndarray) -> np.ndarray:
        return (change > 0).astype(np.float32)

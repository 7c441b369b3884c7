"""The score of the image seen through its map: drop and increase in confidence (arXiv:1710.11063, section 5)."""

from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric


def multiply_tensor_with_cam(input_tensor: torch.Tensor, cam: torch.Tensor) -> torch.Tensor:
    """The (normalised) image (C, H, W) times the map (H, W)."""
    return input_tensor * cam


class CamMultImageConfidenceChange(PerturbationConfidenceMetric):
    """The score of the image times its map, less that of the image."""

    def __init__(self) -> None:
        super().__init__(multiply_tensor_with_cam)

    def perturbed(self, input_tensor: torch.Tensor, cams: np.ndarray | torch.Tensor) -> torch.Tensor:
        """All images at once, where they are."""
        return multiply_tensor_with_cam(input_tensor, torch.as_tensor(cams).to(input_tensor)[:, None])


class DropInConfidence(CamMultImageConfidenceChange):
    """How far the score falls: max(0, before - after). The paper's Average Drop divides this by `before`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `PerturbationConfidenceMetric.__call__`."""
        return _of_scores(lambda change: np.maximum(-change, 0), super().__call__(*args, **kwargs))


class IncreaseInConfidence(CamMultImageConfidenceChange):
    """Whether the score rises: 1 or 0."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `PerturbationConfidenceMetric.__call__`."""
        return _of_scores(lambda change: np.float32(change > 0), super().__call__(*args, **kwargs))


def _of_scores(function: Any, result: Any) -> Any:
    if isinstance(result, tuple):
        return function(result[0]), result[1]
    return function(result)

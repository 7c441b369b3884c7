"""ARCC (arXiv:2605.14641): ADCC (Poppi et al. 2021, arXiv:2104.10252) with ROAD instead of Average Drop."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.metrics.ground_truth import finite_maps
from pytorch_grad_cam.metrics.perturbation_confidence import clean_scores, maps_of
from pytorch_grad_cam.metrics.road import ROADCombined

_SMALLEST = 1e-8  # a choice: the harmonic mean with a share of zero is at most three times this


def batch_pearson_coherency(A: np.ndarray, B: np.ndarray) -> np.ndarray:  # noqa: N803
    """Pearson's correlations of the maps A with the maps B (N, *spatial): (N,) in [-1, 1], 0 for a constant map."""
    a, b = (maps.reshape(len(maps), -1) - maps.reshape(len(maps), -1).mean(1, keepdims=True) for maps in (A, B))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlations: np.ndarray = (a * b).sum(1) / np.where(norms > 0, norms, 1)
    return correlations


class Complexity:
    """How much of the image a map covers: its mean absolute value (ADCC, eq. 4). Lower is better.

    Paper: Poppi et al. 2021, https://arxiv.org/abs/2104.10252.
    """

    def __call__(self, grayscale_cams: np.ndarray | torch.Tensor) -> np.ndarray:
        """The complexities (N,) in [0, 1] of maps (N, *spatial) in [0, 1].

        Raises ValueError for maps that are not finite.
        """
        means: np.ndarray = finite_maps(grayscale_cams).abs().flatten(1).mean(1).cpu().numpy()
        return means


class Coherency:
    """How alike a map is to the map of the image times it: their correlation, scaled to [0, 1] (ADCC, eq. 3).

    Paper: Poppi et al. 2021, https://arxiv.org/abs/2104.10252.
    """

    def __call__(
        self,
        input_tensor: torch.Tensor,
        grayscale_cams: np.ndarray | torch.Tensor,
        targets: Targets,
        model: nn.Module,
        base_method: Callable[..., Any],
    ) -> np.ndarray:
        """The coherencies (N,) in [0, 1] of maps (N, *spatial) or (N, 1, *spatial).

        base_method: the object that made the maps. Classes that are not given are those of the unmasked images. Raises
        ValueError for maps that are not finite, or of another number or size than the images. Cost: one forward and one
        call of base_method.
        """
        _, resolved = clean_scores(model, input_tensor, targets)
        maps = maps_of(input_tensor, grayscale_cams)
        again = base_method(input_tensor=input_tensor * maps[:, None].to(input_tensor), targets=resolved)
        return (batch_pearson_coherency(again, maps.cpu().numpy()) + 1) / 2


class ARCC:
    """The harmonic mean of coherency, 1 - complexity and ROAD, the last doubled and clipped to [0, 1].

    base_method: the object that made the maps.
    Paper: https://arxiv.org/abs/2605.14641.
    """

    def __init__(self, base_method: Callable[..., Any], road_percentiles: Sequence[Any] = (20, 40, 60, 80)) -> None:
        self.complexity = Complexity()
        self.coherency = Coherency()
        self.road = ROADCombined(percentiles=road_percentiles)
        self.base_method = base_method

    def __call__(
        self, input_tensor: torch.Tensor, grayscale_cams: np.ndarray | torch.Tensor, targets: Targets, model: nn.Module
    ) -> np.ndarray:
        """The scores (N,) in [0, 1] of the maps. Cost: that of Coherency and of ROADCombined."""
        shares = [
            self.coherency(input_tensor, grayscale_cams, targets, model, self.base_method),
            1 - self.complexity(grayscale_cams),
            (2 * self.road(input_tensor, grayscale_cams, targets, model)).clip(0, 1),
        ]
        harmonic: np.ndarray = 1 / np.mean([1 / np.maximum(share, _SMALLEST) for share in shares], axis=0)
        return harmonic

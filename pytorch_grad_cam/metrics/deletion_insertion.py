"""Deletion and insertion: the score while pixels are taken away, or put back, in the order of the map.

Petsiuk et al. 2018, RISE, arXiv:1806.07421, algorithm 1.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.metrics.baselines import Baseline, baseline_of
from pytorch_grad_cam.metrics.perturbation_confidence import Versions, scores_of_versions
from pytorch_grad_cam.metrics.shared_scores import ScoreMetric, scored_unchanged


class _AreaUnderCurve(ScoreMetric):
    """Raises ValueError for fewer than one step, and what `baseline_of` raises."""

    def __init__(self, steps: int, baseline: Baseline) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        self.steps = steps
        self.baseline = baseline

    def of_scores(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The area (R,) under the curves of the scores (R,) of the images and (steps, R) of their versions."""
        return torch.trapezoid(self._joined(before, after), self._shares(after), dim=0)

    def curve(
        self, input_tensor: torch.Tensor, cams: np.ndarray | torch.Tensor, targets: Targets, model: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The share of the pixels that is changed, (steps + 1,), and the scores then, float32 (N, steps + 1).

        Arguments, errors and cost are those of a call; of K targets an image the scores are (N * K, steps + 1), all
        images of the first target of each first.
        """
        unchanged = scored_unchanged(input_tensor, cams, targets, model)
        versions = self.versions(input_tensor, unchanged.maps)
        after = scores_of_versions(model, [versions], input_tensor.device, unchanged.targets)
        return self._shares(after), self._joined(unchanged.scores, after).T

    def _shares(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.arange(self.steps + 1, device=scores.device, dtype=scores.dtype) / self.steps

    def _ranked(self, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """How many pixels come before each, (R, 1, *spatial): of equal ones the first comes first."""
        order = maps.to(images.device).flatten(1).argsort(dim=1, descending=True, stable=True)
        return order.argsort(1).reshape(len(maps), 1, *maps.shape[1:])

    def _changed(self, images: torch.Tensor, maps: torch.Tensor, first: int, inserts: bool) -> Versions:
        """The versions in which the first, and one more, and so on of the steps are done."""
        ranks, others = self._ranked(maps, images), baseline_of(self.baseline, images)
        pixels = maps[0].numel()

        def make(which: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            image = rows % len(images)
            changed = -(-(which + first) * pixels // self.steps)
            is_first = ranks[rows] < changed.reshape(-1, *[1] * (images.ndim - 1))
            shown, hidden = (images[image], others[image])
            return torch.where(is_first, shown, hidden) if inserts else torch.where(is_first, hidden, shown)

        return Versions(self.steps, make)

    @abstractmethod
    def _joined(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The scores (steps + 1, R) of a curve, of those of the images and of their versions."""


class Deletion(_AreaUnderCurve):
    """The area under the score while the most relevant pixels are taken away first. Lower is better.

    steps: how many, each of an equal share of the pixels (rounded up). baseline: what a pixel becomes, see
    `baselines.Baseline`; RISE's is the mean of the data set, 'zero' of normalised images. The mean of the score over
    the shares (by trapezoids), so in the range of the scores: from 0 to 1 for probabilities as in the paper, which
    ClassifierOutputSoftmaxTarget gives; of classes by number it is the logit's. Nothing changes with the map's scale or
    the order of the images; among equal pixels, as those of a blank map, the first one, row by row, comes first.
    Cost: 1 + steps forwards of each image, in shared batches; see `shared_scores.scored_in_common`.
    Paper: Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421.
    """

    def __init__(self, steps: int = 50, baseline: Baseline = "zero") -> None:
        super().__init__(steps, baseline)

    def versions(self, images: torch.Tensor, maps: torch.Tensor) -> Versions:
        return self._changed(images, maps, first=1, inserts=False)

    def _joined(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return torch.cat([before[None], after])


class Insertion(_AreaUnderCurve):
    """The area under the score while the most relevant pixels are put back first. Higher is better.

    baseline: what the pixels are put into, see `baselines.Baseline`; RISE's is the blurred image. All else is as in
    `Deletion`.
    Paper: Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421.
    """

    def __init__(self, steps: int = 50, baseline: Baseline = "blur") -> None:
        super().__init__(steps, baseline)

    def versions(self, images: torch.Tensor, maps: torch.Tensor) -> Versions:
        return self._changed(images, maps, first=0, inserts=True)

    def _joined(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return torch.cat([after, before[None]])

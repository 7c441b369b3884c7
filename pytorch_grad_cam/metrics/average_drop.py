"""Average drop in per cent and average gain: the score of the image that is seen through its map alone."""

from __future__ import annotations

import torch

from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.metrics.perturbation_confidence import Versions
from pytorch_grad_cam.metrics.shared_scores import ScoreMetric


class _SeenThroughMap(ScoreMetric):
    def versions(self, images: torch.Tensor, maps: torch.Tensor) -> Versions:
        scaled = min_max(maps).to(images)
        return Versions(1, lambda _, rows: images[rows % len(images)] * scaled[rows][:, None])


class AverageDrop(_SeenThroughMap):
    r"""By how many per cent the score falls when the image is multiplied by its map. Lower is better.

    $100 \max(0, Y - O) / Y$ (Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063, section 5.1.1), from 0 to 100;
    the paper's average is the mean over images, its increase in confidence `cam_mult_image.IncreaseInConfidence`. The
    map is scaled from 0 to 1 before; a constant one leaves nothing of the image.
    Raises ValueError for scores that are not above 0: pass targets that give probabilities, as
    ClassifierOutputSoftmaxTarget.
    Cost: two forwards of each image.
    Paper: Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063.
    """

    def of_scores(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        if not (before > 0).all():
            raise ValueError(_no_probability("above 0", before))
        return 100 * (before - after[0]).relu() / before


class AverageGain(_SeenThroughMap):
    r"""By how many per cent of what is missing the probability rises when the image is multiplied by its map.

    $100 \max(0, O - Y) / (1 - Y)$ (Zhang et al. 2023, Opti-CAM, arXiv:2301.07002), from 0 to 100, the higher the
    better; 0 where nothing is missing. The map is scaled from 0 to 1 before.
    Raises ValueError for scores outside [0, 1]. Cost: two forwards of each image.
    Paper: Zhang et al. 2023, https://arxiv.org/abs/2301.07002.
    """

    def of_scores(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        if not ((before >= 0) & (before <= 1)).all():
            raise ValueError(_no_probability("in [0, 1]", before))
        missing = 1 - before
        return 100 * (after[0] - before).relu() / missing.masked_fill(missing == 0, 1)


def _no_probability(expected: str, scores: torch.Tensor) -> str:
    low, high = scores.aminmax()
    return (
        f"the images' scores lie from {low:.3g} to {high:.3g}, expected probabilities {expected}: pass targets such as "
        "ClassifierOutputSoftmaxTarget(category)"
    )

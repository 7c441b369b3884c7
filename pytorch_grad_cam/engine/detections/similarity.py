"""How much of a detection is left in a changed copy of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pytorch_grad_cam.engine.detections.box_targets import BoxTarget, PredictionTarget
from pytorch_grad_cam.engine.detections.predictions import Predictions


@dataclass(frozen=True)
class Similarity(PredictionTarget):
    r"""$\max_j IoU(b, b_j) p_j$ over all predictions of box $b_j$ and probability $p_j$ of the class, of None the best.

    What D-RISE compares masked images by (Petsiuk et al. 2021, arXiv:2006.03204, eq. 5 to 8), for a target whose vector
    of class probabilities is one class. There the vectors' cosine takes the place of $p_j$, times an objectness; most
    detectors have scores of classes that do not depend on each other, or one score a box, so that a cosine would not
    see a detection fade.
    """

    box: tuple[float, float, float, float]
    label: int | None

    def __call__(self, predictions: Predictions) -> torch.Tensor:
        if not len(predictions.boxes):
            return predictions.scores.new_zeros(())
        agreement = predictions.iou(self.box)[:, None] * predictions.scores.masked_fill(~predictions.of(self.label), 0)
        return agreement.max()


def similarity_to(target: Any) -> Any:
    """The `Similarity` to a box whose score is asked for; other targets as they are."""
    is_score_of_box = isinstance(target, BoxTarget) and target.of == "score"
    return Similarity(target.box, target.label) if is_score_of_box else target

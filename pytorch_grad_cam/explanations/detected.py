"""What a detector says of an image: boxes, as targets and as panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pytorch_grad_cam.engine.detections.box_targets import BestOfClass, BoxTarget, DetectionTarget, PredictionTarget
from pytorch_grad_cam.engine.detections.predictions import Detected, Predictions
from pytorch_grad_cam.explanations.panel import Panel, TargetBox, check_no_point, name_of_target
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.zoo.class_names import category_called

if TYPE_CHECKING:
    from pytorch_grad_cam.zoo.placement import Original


class DetectedBoxes:
    """The boxes that a detector finds, see `Places`."""

    said = "the scores of the detector's boxes"
    nothing = (
        "nothing was detected: pass a class, whose best raw prediction is explained, or BoxTarget(box, label) for a "
        "place"
    )

    def __init__(self, model: Any, categories: Sequence[str] | None, outputs: Detected) -> None:
        self.names: Sequence[str]
        self.names, self.of_names = names_of_detected(model, categories, outputs.predictions[0])

    def read(self, outputs: Detected, rank: int) -> Predictions:
        return outputs.predictions[0]

    def as_target(self, asked: Any, original: Original | None = None) -> Any:
        check_no_point(asked)
        if isinstance(asked, str):
            return category_called(asked, self.names)
        if type(asked) is ClassifierOutputTarget:
            return int(asked.category)
        if not callable(asked):
            return int(asked)
        if original is None or not isinstance(asked, BoxTarget):
            return asked
        asked.check_within(original.size[::-1])
        if original.placement is None:
            raise ValueError(
                f"nobody knows where the box {asked.box} is in the model's input, for its preprocessing does more than "
                "resize and cut: pass the input itself, and the box in its pixels"
            )
        return replace(asked, box=original.placement.seen(asked.box))

    def first(self, read: Predictions, most: int) -> list[DetectionTarget]:
        """Those with the highest scores."""
        return [DetectionTarget(number) for number in range(min(most, len(read.detections())))]

    def shown(self, panel: Panel, target: Any, read: Predictions, size: Sequence[int]) -> Panel:
        meant = box_of(target, read, self.names)
        if meant is None:
            return panel._replace(name=name_of_target(target))
        label, box = meant
        return panel._replace(name=box.name, category=label, probability=box.score, boxes=(box,))

    def of_classes(self, read: Predictions) -> tuple[np.ndarray, np.ndarray]:
        logits, scores = (best_of_classes(each, read, len(self.names)) for each in (read.logits, read.scores))
        return logits, np.maximum(scores, 0)


def names_of_detected(model: Any, categories: Sequence[str] | None, predictions: Predictions) -> tuple[list[str], str]:
    """The names of a detector's classes, and whose they are.

    categories: those that are known; None takes the model's own (`names`, as ultralytics has them, or those of a
    transformers configuration), else numbers.
    """
    if categories is not None:
        return list(categories), "the given ones"
    own = getattr(model, "names", None) or getattr(getattr(model, "config", None), "id2label", None)
    if isinstance(own, Mapping) and own:
        return [str(own.get(number, f"class {number}")) for number in range(max(own) + 1)], "the model's own"
    if isinstance(own, list | tuple) and own:
        return [str(name) for name in own], "the model's own"
    return [f"class {number}" for number in range(_classes(predictions))], "numbers"


def box_of(target: Any, predictions: Predictions, names: Sequence[str]) -> tuple[int, TargetBox] | None:
    """The class and the box that a target means, in pixels of the model's input; None where it is no prediction."""
    if isinstance(target, int):
        target = BestOfClass(target)
    if not isinstance(target, PredictionTarget):
        return None
    which = target.which(predictions)
    label = int(predictions.labels.expand_as(predictions.scores).flatten()[which])
    left, top, right, bottom = predictions.boxes.detach()[predictions.row_of(which)][0].tolist()
    score = float(predictions.scores.detach().flatten()[which])
    return label, TargetBox(name_of(label, names), score, (left, top, right, bottom))


def name_of(label: int, names: Sequence[str]) -> str:
    """The class's name."""
    return names[label] if 0 <= label < len(names) else f"class {label}"


def best_of_classes(values: torch.Tensor, predictions: Predictions, classes: int) -> np.ndarray:
    """The highest of the values (P, C) for each class, float32 (classes,); -inf for those that nothing is of."""
    labels = predictions.labels.expand_as(values).flatten().clamp(0, classes - 1)
    lowest = torch.full((classes,), -torch.inf, device=values.device)
    found: np.ndarray = lowest.scatter_reduce(0, labels, values.detach().float().flatten(), "amax").cpu().numpy()
    return found


def _classes(predictions: Predictions) -> int:
    return int(predictions.labels.max()) + 1 if predictions.labels.numel() else 1

"""What a detector found in an image, as targets, and which box each of them means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pytorch_grad_cam.engine.detections.box_targets import BestOfClass, BoxTarget, DetectionTarget, PredictionTarget
from pytorch_grad_cam.engine.detections.predictions import Predictions
from pytorch_grad_cam.explanations.panel import TargetBox
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.zoo.class_names import category_called

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.explanation import Original


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


def as_detection(target: Any, names: Sequence[str]) -> Any:
    """A target of a detector: a class as its number, what is callable as it is."""
    if isinstance(target, str):
        return category_called(target, names)
    if type(target) is ClassifierOutputTarget:
        return int(target.category)
    return target if callable(target) else int(target)


def box_in_input(target: Any, original: Original | None) -> Any:
    """A target with its box, which is in pixels of the original picture, in those of the model's input.

    original: None where the input is what was given. Raises ValueError for a box outside of the picture, and where
    nobody knows what of it the model is shown.
    """
    if original is None or not isinstance(target, BoxTarget):
        return target
    target.check_within(original.size[::-1])
    if original.placement is None:
        raise ValueError(
            f"nobody knows where the box {target.box} is in the model's input, for its preprocessing does more than "
            "resize and cut: pass the input itself, and the box in its pixels"
        )
    return replace(target, box=original.placement.seen(target.box))


def first_detections(predictions: Predictions, most: int) -> list[DetectionTarget]:
    """The detections with the highest scores. Cost: a wait for the device."""
    return [DetectionTarget(number) for number in range(min(most, len(predictions.detections())))]


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

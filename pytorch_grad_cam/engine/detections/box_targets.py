"""Targets of detectors: which prediction is meant, and which of its numbers is explained."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.detections.predictions import Predictions
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.of_place import OfPlace

_OF = re.compile(r"score|box|mask|angle|keypoint:(\d+)")
_Target = TypeVar("_Target", bound="PredictionTarget")
# As for what counts as found in Pascal VOC. Below it another object may be meant.
_LEAST_IOU = 0.5
# What the score of a prediction counts that is not there, in a changed copy of the image. A choice.
_NOTHING = 1e-6


class PredictionTarget(OfPlace):
    """A target that reads an image's `Predictions`. A subclass says which one it means."""

    of: str = "score"
    is_of_place = True
    _found: tuple[Predictions | None, torch.Tensor | None] = None, None

    def which(self, predictions: Predictions) -> torch.Tensor:
        """The one of the P * C that is meant, a number (1,)."""
        raise NotImplementedError

    def check(self, predictions: Predictions, sample: int) -> torch.Tensor:
        """`which`. Raises ValueError where the prediction is not there. Cost: a wait for the device."""
        raise NotImplementedError

    def found(self: _Target, predictions: Predictions, sample: int) -> _Target:
        """The same target, which knows where it is in these predictions. Raises and costs what `check` does."""
        known = copy(self)
        object.__setattr__(known, "_found", (predictions, self.check(predictions, sample)))  # dataclasses are frozen
        return known

    def __call__(self, predictions: Predictions) -> torch.Tensor:
        """The scalar that is explained. Raises ValueError for masks, keypoints or angles that are not there."""
        if not len(predictions.boxes):
            return predictions.logits.new_full((), math.log(_NOTHING))
        there, which = self._found
        which = self.which(predictions) if which is None or there is not predictions else which
        row = predictions.row_of(which)
        if self.of == "box":
            box = predictions.boxes.index_select(0, row)
            return predictions._replace(boxes=box).iou(self._own_box(box))[0]
        if self.of == "mask":
            return _of_mask(predictions, row)
        if self.of == "angle":
            return full_precision(_present(predictions.angles, "angles", self.of).index_select(0, row)[0])
        if self.of.startswith("keypoint"):
            return _of_keypoint(predictions, row, self.of)
        return full_precision(predictions.logits.flatten().gather(0, which)[0])

    def _own_box(self, box: torch.Tensor) -> Any:
        return box[0].detach()


def _of_mask(predictions: Predictions, row: torch.Tensor) -> torch.Tensor:
    """The mean logit of the mask where it is predicted, within its box; of all of the box where it is nowhere."""
    masks = _present(predictions.masks, "masks", "mask")
    logits = full_precision(masks.of(row))
    height, width = logits.shape
    x0, y0, x1, y1 = predictions.boxes.detach().index_select(0, row)[0].unbind()
    rows, columns = (torch.arange(length, device=logits.device) + 0.5 for length in (height, width))
    scale = height / predictions.size[0], width / predictions.size[1]
    inside = ((rows >= y0 * scale[0]) & (rows <= y1 * scale[0]))[:, None] & (
        (columns >= x0 * scale[1]) & (columns <= x1 * scale[1])
    )
    inside = torch.ones_like(inside) if masks.of_box else inside
    predicted = inside & (logits.detach() > 0)
    region = torch.where(predicted.any(), predicted, inside)
    return torch.where(region, logits, 0).sum() / region.sum().clamp(min=1)


def _of_keypoint(predictions: Predictions, row: torch.Tensor, of: str) -> torch.Tensor:
    logits = _present(predictions.keypoints, "keypoints with a score", of).of(row)
    number = int(of.partition(":")[2])
    if number >= len(logits):
        raise ValueError(f"of={of!r}, but a prediction has {len(logits)} keypoints, from 0")
    return full_precision(logits[number])


def _present(value: Any, name: str, of: str) -> Any:
    if value is None:
        raise ValueError(f"of={of!r}, but this detector's predictions have no {name}")
    return value


@dataclass(frozen=True)
class BoxTarget(PredictionTarget):
    """The raw prediction of a class that overlaps a box most: also for an object that the detector missed.

    box: (x0, y0, x1, y1) in pixels of the image as it is given. label: its class; None is any. of: "score", the logit
    of that class, of any the highest; "box", how much the predicted box overlaps the given one (the gradient says what
    holds its sides); "mask", the mean logit within the predicted mask; "keypoint:5", how sure the detector is of that
    keypoint of the object, numbered from 0; "angle", how far an oriented box is turned, in radians.
    Raises ValueError for a box without an area, one that lies outside of the image, a label that no prediction has and
    where no prediction overlaps the box. One that overlaps it little gives a CamWarning.
    Paper: of the score for changed images, D-RISE, Petsiuk et al. 2021, https://arxiv.org/abs/2006.03204.
    """

    box: Any
    label: int | None = None
    of: str = "score"

    def __post_init__(self) -> None:
        numbers = self.box.tolist() if hasattr(self.box, "tolist") else list(self.box)
        if len(numbers) != 4 or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"a box is (x0, y0, x1, y1) in pixels, not {self.box!r}")
        object.__setattr__(self, "box", tuple(numbers))
        object.__setattr__(self, "label", None if self.label is None else int(self.label))
        _check_of(self.of)
        x0, y0, x1, y1 = numbers
        if not (x0 < x1 and y0 < y1):  # NaN, too
            raise ValueError(f"the box {self.box} has no area: (x0, y0, x1, y1) needs x0 < x1 and y0 < y1")

    def which(self, predictions: Predictions) -> torch.Tensor:
        return predictions.nearest(self.box, self.label)

    def check(self, predictions: Predictions, sample: int) -> torch.Tensor:
        self.check_within(predictions.size)
        _check_label(self.label, predictions, sample)
        which = self.which(predictions)
        nearest = predictions.boxes.detach().index_select(0, predictions.row_of(which))
        iou = predictions._replace(boxes=nearest).iou(self.box).item()
        of_class = "" if self.label is None else f" of class {self.label}"
        if iou == 0:
            raise ValueError(f"no raw prediction{of_class} overlaps the box {_said(self.box)} in sample {sample}")
        if iou == 1 and self.of == "box":
            issue(CamWarning(f"the predicted box is the given one, {self.box}: how much they overlap has no gradient"))
        if iou < _LEAST_IOU:
            issue(
                CamWarning(
                    f"the raw prediction{of_class} nearest to the box {_said(self.box)} overlaps it by {iou:.2f} only: "
                    f"in sample {sample} another object may be explained"
                )
            )
        return which

    def check_within(self, size: tuple[int, int]) -> None:
        """Raise ValueError for a box outside of an image of this (height, width)."""
        height, width = size
        x0, y0, x1, y1 = self.box
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise ValueError(f"the box {self.box} lies outside of the image, {width} wide and {height} high")

    def _own_box(self, box: torch.Tensor) -> Any:
        return self.box


@dataclass(frozen=True)
class DetectionTarget(PredictionTarget):
    """The k-th of the detections that are left after suppression, the one with the highest score first.

    In changed copies of the image it is the raw prediction of its class that overlaps its box most. of: all
    but "box", see `BoxTarget`. Raises ValueError where there are fewer detections.
    Paper: of the score for changed images, D-RISE, Petsiuk et al. 2021, https://arxiv.org/abs/2006.03204.
    """

    number: int = 0
    of: str = "score"

    def __post_init__(self) -> None:
        _check_of(self.of)
        if self.of == "box":
            raise ValueError("of='box' compares with a box of yours: BoxTarget(box, label, of='box')")
        if self.number < 0:
            raise ValueError(f"detections are numbered from 0, not {self.number}")

    def which(self, predictions: Predictions) -> torch.Tensor:
        return predictions.detections()[self.number][None]

    def as_box(self, predictions: Predictions) -> PredictionTarget:
        """The same prediction by its box and class; itself where the box has no area."""
        which = self.which(predictions)
        x0, y0, x1, y1 = predictions.boxes.detach()[predictions.row_of(which)][0].tolist()
        label = predictions.labels.expand_as(predictions.scores).flatten()[which]
        return BoxTarget((x0, y0, x1, y1), int(label), self.of) if x0 < x1 and y0 < y1 else self

    def check(self, predictions: Predictions, sample: int) -> torch.Tensor:
        detections = predictions.detections()
        found = len(detections)
        if self.number >= found:
            above = f" with a score above {predictions.suppression.min_score:g}"
            raise ValueError(
                f"detection {self.number} was asked for, but {found or 'nothing'} {'were' if found > 1 else 'was'} "
                f"found in sample {sample}{above}: pass a class, for its best raw prediction, or BoxTarget(box, label)"
            )
        return detections[self.number][None]


@dataclass(frozen=True)
class BestOfClass(PredictionTarget):
    """The raw prediction of a class with the highest score. What a class means where the output is a detector's."""

    label: int
    is_of_place = False

    def which(self, predictions: Predictions) -> torch.Tensor:
        return predictions.best(self.label)

    def check(self, predictions: Predictions, sample: int) -> torch.Tensor:
        _check_label(self.label, predictions, sample)
        return self.which(predictions)


def of_one_prediction(targets: Any) -> bool:
    """Whether any of the targets, in lists or not, is that of one prediction."""
    if isinstance(targets, list | tuple):
        return any(map(of_one_prediction, targets))
    return isinstance(targets, PredictionTarget)


def _said(box: Sequence[float]) -> str:
    """Boxes of a picture that was resized have long fractions in the input."""
    return f"({', '.join(f'{edge:.6g}' for edge in box)})"


def _check_of(of: Any) -> None:
    if not isinstance(of, str) or not _OF.fullmatch(of):
        raise ValueError(f"of is {of!r}, expected 'score', 'box', 'mask', 'angle' or, with its number, 'keypoint:0'")


def _check_label(label: int | None, predictions: Predictions, sample: int) -> None:
    if label is not None and not predictions.has(label):
        labels = sorted(set(predictions.labels.flatten().tolist()))
        known = f"from {labels[0]} to {labels[-1]}" if labels else "none at all"
        raise ValueError(f"no prediction of sample {sample} is of class {label}: there are classes {known}")


def resolved(targets: Sequence[Any], predictions: Sequence[Predictions]) -> list[Any]:
    """Targets, one an image, that mean the same in changed copies of it: a class becomes its best prediction, None the
    best detection, and that a box. Raises what their `check` raises.
    """
    return [_resolved(*each, sample) for sample, each in enumerate(zip(targets, predictions, strict=True))]


def _resolved(target: Any, predictions: Predictions, sample: int) -> Any:
    if target is None:
        target = DetectionTarget(0)
    elif isinstance(target, int):
        target = BestOfClass(target)
    if isinstance(target, PredictionTarget):
        target = target.found(predictions, sample)
    return target.as_box(predictions) if isinstance(target, DetectionTarget) else target

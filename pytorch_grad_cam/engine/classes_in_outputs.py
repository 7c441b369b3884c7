"""What a class means in an output that is not (N, classes): in segmentations, raw predictions and detections."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.layouts import covers_finely
from pytorch_grad_cam.engine.of_place import check_same_image
from pytorch_grad_cam.engine.segmentation.segmentation_target import InRegion
from pytorch_grad_cam.engine.segmentation.segments import Dense, Segments

_CALLABLE = "a callable from one sample's output to a scalar"
_MASK = "SegmentationTarget(category, mask)"
_PREDICTIONS_NDIM = 3  # (N, T, classes)
_BOX_NUMBERS = 4
# So many numbers are hardly all between 0 and 1 by chance. Detectors of boxes have thousands, or keep 300.
_FEWEST_BOXES = 50
_FEWEST_ROWS = 5  # the same of rows with a score alone
_ROUNDING = 1e-2  # of a sum of probabilities, in half precision
AS_PREDICTIONS = (
    "give the CAM an output_transform that returns a list of engine.detections.predictions.Predictions, one for each "
    "image"
)
"""The way out for detections in a form that is not known."""


@dataclass(frozen=True)
class BestPrediction:
    """The highest score of one class among the raw predictions (T, classes) of an image."""

    category: int

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """A scalar from the scores (T, classes) of one sample."""
        return output[:, self.category].amax()


@dataclass(frozen=True)
class BestDetection:
    """The highest score among an image's detections with a label, of all for None; 0 where there is none."""

    label: int | None

    def __call__(self, output: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """A scalar from the 'scores' (D,) and 'labels' (D,) of one sample."""
        scores = output["scores"] if self.label is None else output["scores"][output["labels"] == self.label]
        return scores.amax() if len(scores) else scores.sum()


def for_other_images(targets: Sequence[Any]) -> Sequence[Any]:
    """Targets for flipped or cut-out images, where what is predicted lies elsewhere. Raises ValueError for boxes and
    regions.
    """
    check_same_image(targets)
    if not isinstance(targets, list):
        return targets
    return [target.where_predicted() if isinstance(target, InRegion) else target for target in targets]


def targets_of_classes(
    outputs: Any, classes: Mapping[int, int], image_shape: Sequence[int]
) -> Mapping[int, Callable[[Any], torch.Tensor]]:
    """What classes mean, each given and found by its sample.

    image_shape: of the images (N, C, *spatial), empty where nobody knows; then three axes are raw predictions.
    Raises IndexError for a class that the output does not have, ValueError where nobody can tell what it means.
    """
    if not isinstance(outputs, torch.Tensor):
        return _in_detections(outputs, classes)
    _check_axes(outputs, image_shape)
    if outputs.ndim == len(image_shape) or outputs.ndim > _PREDICTIONS_NDIM:
        return in_predicted_masks({sample: Dense(outputs[sample]) for sample in classes}, classes)
    _check_numbers(classes.values(), outputs.shape[2])
    check_no_detections(outputs)
    _check_no_boxes(outputs)
    return {sample: BestPrediction(category) for sample, category in classes.items()}


def highest_of_all(outputs: Any, described: str) -> Sequence[Callable[[Any], torch.Tensor]]:
    """What None means: each image's highest detection. Raises ValueError for other outputs, and where there is none."""
    if _are_detections(outputs):
        for sample, output in enumerate(outputs):
            if not len(output["scores"]):
                raise ValueError(f"targets=None is the highest detection, but {_found(sample, [])}")
        return [BestDetection(None)] * len(outputs)
    way_out = f"pass FasterRCNNBoxScoreTarget(labels, boxes) or {_CALLABLE}"
    if isinstance(outputs, torch.Tensor):
        of_class = f"for the pixels where it is predicted, {_MASK} for others"
        if outputs.ndim == _PREDICTIONS_NDIM:
            of_class = "for its best raw prediction"
        way_out = f"pass a class, {of_class}, or {_CALLABLE}"
    raise ValueError(f"targets=None needs class scores (N, classes), the model returned {described}: {way_out}")


def _check_axes(outputs: torch.Tensor, image_shape: Sequence[int]) -> None:
    shape, size = tuple(outputs.shape), tuple(image_shape[2:])
    if not image_shape:
        return
    if shape[0] != image_shape[0]:
        raise ValueError(
            f"the output has shape {shape} for {image_shape[0]} images: pass {_CALLABLE}; an output "
            "(time, N, classes), as for CTC, needs output_transform=lambda output: output.transpose(0, 1)"
        )
    if len(shape) == _PREDICTIONS_NDIM == len(image_shape):
        raise ValueError(
            f"an output {shape} for signals can be (N, classes, length) or (N, steps, classes): pass {_MASK} for the "
            f"former, or {_CALLABLE}, such as lambda output: output[:, 3].amax() for the latter"
        )
    are_alike = all(cells * size[0] == length * shape[1] for cells, length in zip(shape[1:], size, strict=False))
    if len(shape) == len(image_shape) - 1 and are_alike and covers_finely(shape[1:], size):
        raise ValueError(
            f"an output {shape} has the proportions of the images, as (N, h, w) with one mask for each: pass "
            f"SegmentationTarget(), or {_CALLABLE}, such as lambda output: output[:, 3].amax() for raw predictions"
        )
    if len(shape) not in (_PREDICTIONS_NDIM, len(image_shape)):
        raise ValueError(
            f"an output of shape {shape} has no classes that are known to lie on one axis: pass {_CALLABLE}, or an "
            "output_transform to (N, classes), (N, predictions, classes) or (N, classes, *spatial)"
        )
    check_classes_second(shape, image_shape)


def check_classes_second(shape: tuple[int, ...], image_shape: Sequence[int]) -> None:
    """Raise ValueError for an output whose axes without another one than the second are those of the images."""
    size = tuple(image_shape[2:])
    if not size or shape[2:] == size:
        return
    for axis in range(2, len(shape)):
        of_image = (size, tuple(image_shape[1:-1])) if axis == len(shape) - 1 else (size,)
        if shape[1:axis] + shape[axis + 1 :] in of_image:
            where, moved = ("last", -1) if axis == len(shape) - 1 else (f"on axis {axis}", axis)
            raise ValueError(
                f"an output of shape {shape} seems to have its classes {where}: pass "
                f"output_transform=lambda output: output.movedim({moved}, 1), or {_CALLABLE}"
            )


def _check_numbers(classes: Iterable[int], highest: int) -> None:
    for number in classes:
        if not -highest <= number < highest:
            raise IndexError(f"class {number}: the model's output has {highest} classes, from 0")


def _check_no_boxes(predictions: torch.Tensor) -> None:
    """Raise ValueError where scores (between 0 and 1) stand behind four numbers of boxes, on either axis."""
    values = predictions.detach()
    for axis, others in ((1, 2), (2, 1)):
        if values.shape[axis] > _BOX_NUMBERS and values.shape[others] >= _FEWEST_BOXES and len(values):
            boxes, score = values.narrow(axis, 0, _BOX_NUMBERS), values.select(axis, _BOX_NUMBERS)
            are_scores = (score.amin() >= 0) & (score.amax() <= 1)
            # Coordinates in pixels; or in shares of the image: neither logits nor probabilities.
            in_unit = (values.amin() >= 0) & (values.amax() <= 1)
            if are_scores & ((boxes.amax() > 1) | (in_unit & ~_add_up_to_one(values))):
                raise ValueError(
                    f"axis {axis} of the output {tuple(values.shape)} seems to have boxes in front of scores, so that "
                    "a class is not at its number: pass an output_transform to the class scores (N, predictions, "
                    f"classes), such as lambda output: output[:, 4:].transpose(1, 2), or {_CALLABLE}"
                )


def _add_up_to_one(predictions: torch.Tensor) -> torch.Tensor:
    """Whether the numbers (N, T, classes) or (N, classes, T) do so along one of the axes, as probabilities."""
    apart = [(predictions.sum(axis) - 1).abs().amax() for axis in (1, 2)]
    return torch.minimum(*apart) <= _ROUNDING


def check_no_detections(rows: torch.Tensor) -> None:
    """Raise ValueError where each of the rows (..., D, 5) or (..., D, 6) is a box, its score and its class, as
    detectors that choose within return them. Cost: one wait for the device for tensors of so many columns.
    """
    numbers = rows.shape[-1] - _BOX_NUMBERS
    if numbers not in (1, 2) or rows.numel() < (_FEWEST_ROWS if numbers == 1 else 1) * rows.shape[-1]:
        return
    x0, y0, x1, y1, score, *label = rows.detach().unbind(-1)
    are_boxes = (x0 <= x1) & (y0 <= y1) & (score >= 0) & (score <= 1)
    for number in label:
        are_boxes &= (number >= 0) & (number == number.round())
    if are_boxes.all() & (rows.detach()[..., :_BOX_NUMBERS].amax() > 1):
        raise ValueError(
            f"each row of the output {tuple(rows.shape)} seems to be a box and its score, in a form that is not known: "
            f"{AS_PREDICTIONS}, or pass {_CALLABLE}"
        )


def in_predicted_masks(segments: Mapping[int, Segments], classes: Mapping[int, int]) -> dict[int, InRegion]:
    """Each class where it is predicted; where it is so nowhere at all pixels, with a CamWarning.

    segments, classes: by sample. Cost: one wait for the device.
    """
    which = {sample: segments[sample].of_class(category, None) for sample, category in classes.items()}
    masks = {sample: segments[sample].predicted(of_sample) for sample, of_sample in which.items()}
    somewhere = torch.stack([mask.any() for mask in masks.values()]).tolist()
    for (sample, mask), is_somewhere in zip(masks.items(), somewhere, strict=True):
        if not is_somewhere:
            mask.fill_(True)
            what = f"class {classes[sample]} of sample {sample}: predicted nowhere, so its scores at all pixels are"
            issue(CamWarning(f"{what} explained; {_MASK} says where to look"))
    return {sample: InRegion(which[sample], masks[sample], is_of_place=False) for sample in classes}


def _are_detections(outputs: Any) -> bool:
    if not isinstance(outputs, list | tuple):
        return False
    return all(isinstance(output, Mapping) and "scores" in output and "labels" in output for output in outputs)


def _in_detections(outputs: Sequence[Any], classes: Mapping[int, int]) -> dict[int, BestDetection]:
    if not _are_detections(outputs):
        named = f"{type(outputs[0]).__name__} with {', '.join(map(str, outputs[0]))}"
        raise ValueError(
            f"a class means nothing in a {named} for each sample: pass {_CALLABLE}, or an output_transform"
        )
    for sample, label in classes.items():
        found = sorted(set(outputs[sample]["labels"].tolist()))
        if label not in found:
            raise ValueError(
                f"no detection with label {label} in {_found(sample, found)}: pass one that was found, let the model "
                f"keep lower scores, or pass FasterRCNNBoxScoreTarget(labels, boxes) or {_CALLABLE}"
            )
    return {sample: BestDetection(label) for sample, label in classes.items()}


def _found(sample: int, labels: Sequence[int]) -> str:
    found = f"the labels {', '.join(map(str, labels))} were" if labels else "nothing was"
    return f"sample {sample}, where {found} found"

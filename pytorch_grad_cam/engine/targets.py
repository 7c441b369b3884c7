"""From a model's output, and targets in the many forms in which they may be given, to one score a sample."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.classes_in_outputs import (
    AS_PREDICTIONS,
    check_classes_second,
    check_no_detections,
    highest_of_all,
    in_predicted_masks,
    targets_of_classes,
)
from pytorch_grad_cam.engine.detections.box_targets import PredictionTarget, resolved
from pytorch_grad_cam.engine.detections.forms import detected, has_boxes_of_other_rows
from pytorch_grad_cam.engine.detections.predictions import Detected, DetectedSample, Predictions
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.of_place import OfPlace
from pytorch_grad_cam.engine.probabilities import MAY_HAND_ON
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.saturation import explain_logits_where_lost
from pytorch_grad_cam.engine.scores import Undecided, scores_among
from pytorch_grad_cam.engine.segmentation.segmentation_target import SegmentationTarget
from pytorch_grad_cam.engine.segmentation.segments import Segmented, SegmentedSample, segments_of
from pytorch_grad_cam.engine.trees import detached

Target = Callable[[Any], torch.Tensor]
TargetLists = Sequence[Sequence[Target]]
_Resolved = tuple[list[Sequence[Target]], bool]

_IMAGES_NDIM = _EDGES = 4
_NO_DETECTOR = (
    f"{{!r}} needs a detector's output, a sample of this one is {{}}: for a form that is not known {AS_PREDICTIONS}"
)
_BOXES_OF_NO_FORM = (
    f"the output seems to have boxes (D, 4) beside their scores (D,), in a form that is not known: {AS_PREDICTIONS}"
)
_BATCH_SECOND = (
    "; an output (time, N, classes), as for CTC, needs output_transform=lambda output: output.transpose(0, 1)"
)


def scores_in(outputs: Any) -> Any:
    """The scores in a model's output: a tensor itself, of anything else what `engine.scores.scores_among` finds.

    >>> scores_in({"out": torch.zeros(2, 5), "aux": torch.ones(2, 5)}).shape
    torch.Size([2, 5])
    """
    return outputs if isinstance(outputs, torch.Tensor) else scores_among(outputs)


def scores_of_model(
    model: nn.Module, output_transform: Callable[[Any], Any], image_shape: Sequence[int], outputs: Any
) -> Any:
    """What targets read of a model's output: by the transform, and of a detector the predictions, too.

    They are those that the output's form shows (see `engine.detections.forms`), or what a transform of the user's own
    returns: a list of `Predictions`. image_shape: (N, C, *spatial).
    """
    is_known = output_transform is scores_in and not isinstance(outputs, torch.Tensor)
    if is_known and len(image_shape) == _IMAGES_NDIM:
        found = detected(model, outputs, (image_shape[-2], image_shape[-1]))
        if found is not None:
            return found
        if has_boxes_of_other_rows(outputs, image_shape[0]):
            return Undecided(outputs, _BOXES_OF_NO_FORM)
    scores = output_transform(outputs)
    are_predictions = isinstance(scores, list) and scores and all(isinstance(each, Predictions) for each in scores)
    return Detected(scores, scores) if are_predictions else scores


class ClassifierOutputTarget:
    """The score of one class. category: its index; negative ones count from the end.

    >>> ClassifierOutputTarget(2)(torch.tensor([0.1, 0.7, 0.2]))
    tensor(0.2000)

    Paper: of the score that is explained, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The category's entry along the last axis of (classes,), or the column of (N, classes)."""
        return model_output[..., self.category]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.category})"


@dataclass(frozen=True)
class TargetRule:
    """Targets that are chosen once the model's output is known.

    choose: from the outputs and `targets` to one target, or a list of them, a sample. targets: what the choice begins
    with, in every form that targets have.
    """

    choose: Callable[[Any, Any], Sequence[Target | Sequence[Target]]]
    targets: Any = None


_Class = int | np.integer[Any]
Targets = (
    _Class
    | Target
    | Sequence[_Class | Target | Sequence[_Class | Target]]
    | torch.Tensor
    | np.ndarray
    | TargetRule
    | None
)


def chosen(targets: Targets, outputs: Any) -> Targets:
    """What a TargetRule chooses for the model's output; other targets as they are."""
    if not isinstance(targets, TargetRule):
        return targets
    plain = outputs.plain if isinstance(outputs, Detected | Segmented) else outputs
    return targets.choose(detached(plain), targets.targets)


def several_an_image(targets: Targets) -> list[list[Any]] | None:
    """Targets that are as many for each image, (N, K) as lists, a tensor or an array, the other way round: K of (N,).

    None for targets that are one an image. Raises ValueError where images have different numbers of them.
    """
    if isinstance(targets, torch.Tensor | np.ndarray):
        targets = targets.tolist()
    if not isinstance(targets, list | tuple) or not any(isinstance(row, list | tuple) for row in targets):
        return None
    counts = {len(row) if isinstance(row, list | tuple) else None for row in targets}
    if len(counts) > 1 or counts == {0}:
        raise ValueError(f"targets of several classes an image are as many for each, not {targets!r}")
    return [list(target_list) for target_list in zip(*targets, strict=True)]


@dataclass(eq=False, repr=False)
class ClassTargets(Sequence[Target]):
    """A target list of plain classes, one a sample: scored in one step, without waiting for the device.

    classes: numbers on the host, or a tensor (N,) where the output is.
    """

    classes: Sequence[int] | torch.Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, sample: Any) -> Any:
        classes = self.classes[sample]
        return ClassTargets(classes) if isinstance(sample, slice) else ClassifierOutputTarget(int(classes))

    def __iter__(self) -> Iterator[Target]:
        classes = self.classes.tolist() if isinstance(self.classes, torch.Tensor) else self.classes
        return map(ClassifierOutputTarget, classes)


def target_lists(targets: Targets, outputs: Any, used: bool = True, image_shape: Sequence[int] = ()) -> _Resolved:
    """The target lists, each with one target a sample, and whether several for each sample were asked for.

    used: False leaves the lists empty, for methods that know no class. image_shape: see `resolve_targets`.
    Raises what `several_an_image` and `resolve_targets` raise.
    """
    are_numbers = isinstance(targets, list) and set(map(type, targets)) == {int}
    if used and are_numbers and isinstance(outputs, torch.Tensor) and outputs.ndim == 2:
        numbers, (samples, classes) = cast(list[int], targets), outputs.shape
        if len(numbers) == samples and -classes <= min(numbers) and max(numbers) < classes:
            return [ClassTargets(numbers)], False  # nothing is left to resolve, or to refuse
    return _resolved_lists(targets, outputs, used, image_shape)


def _resolved_lists(targets: Targets, outputs: Any, used: bool, image_shape: Sequence[int]) -> _Resolved:
    targets = chosen(targets, outputs)
    lists = several_an_image(targets)
    if not used:
        return [[]] * (1 if lists is None else len(lists)), lists is not None
    if lists is None:
        return [resolve_targets(targets, outputs, image_shape)], False
    return _plain_lists(lists, outputs) or [resolve_targets(each, outputs, image_shape) for each in lists], True


def _plain_lists(lists: list[list[Any]], outputs: Any) -> list[Sequence[Target]] | None:
    """Lists of nothing but classes that the output (N, classes) has; None where something is left to resolve."""
    numbers = [number for target_list in lists for number in target_list]
    are_class_scores = isinstance(outputs, torch.Tensor) and outputs.ndim == 2
    if not are_class_scores or set(map(type, numbers)) != {int} or len(lists[0]) != len(outputs):
        return None
    is_there = -outputs.shape[1] <= min(numbers) and max(numbers) < outputs.shape[1]
    return [ClassTargets(target_list) for target_list in lists] if is_there else None


def resolve_targets(targets: Targets, outputs: Any, image_shape: Sequence[int] = ()) -> Sequence[Target]:
    """One callable for each sample of the model's output.

    targets: None (each sample's highest class), a class index for all samples, one index a sample (list, tensor or
    array), a callable for all samples, a list of indices and callables, one a sample, or a TargetRule. Callables are
    those of this package that name a prediction of a detector, too.

    A class, from 0 or counted from the end, and None mean, by the output:

    - (N, classes): its score; the sample's highest class.
    - (N, classes, *spatial), as many axes as the image: the sum of its scores over the pixels where it is the highest
      class, at all pixels, with a CamWarning, where it is so nowhere. With one class, 0 is where the logit is above 0
      (of probabilities, above 0.5). None is refused. Changed copies of the image are asked about the same pixels.
    - (N, T, classes), raw predictions of detectors of the DETR family among others: its highest score over T. None is
      refused, as are boxes in the same tensor and outputs for signals, which can be dense too.
    - A detector's, in a form of `engine.detections.forms`: its raw prediction with the highest score, reported or not
      (no negative ones); the best of what is reported. `BoxTarget` and `DetectionTarget` say which one else.
    - Another list of dicts with 'scores' and 'labels': the highest score with that label; the highest of all.

    The cost of all but the first: one wait for the device for each target list, for what is refused or warned of.
    image_shape: of the images, where it is known: what is dense is seen by it. Without it four axes are.

    Raises ValueError for a number of targets other than that of the samples, for outputs that are Undecided, and for
    what is refused; TypeError for other kinds; IndexError for a class that the output does not have.
    """
    if isinstance(outputs, Undecided):
        raise ValueError(outputs.why)
    if isinstance(outputs, Detected):
        return _resolved_in_detections(targets, outputs)
    if isinstance(outputs, Segmented):
        return _resolved_in_segments(targets, outputs, image_shape)
    are_class_scores = isinstance(outputs, torch.Tensor) and outputs.ndim == 2
    if are_class_scores and image_shape and len(outputs) != image_shape[0] and not callable(targets):
        check_no_detections(outputs)
    if targets is None:
        return ClassTargets(outputs.argmax(1)) if are_class_scores else highest_of_all(outputs, _described(outputs))
    samples = outputs.shape[0] if are_class_scores else len(outputs)
    listed = one_a_sample(chosen(targets, outputs), samples, outputs)
    if isinstance(listed, ClassTargets) and are_class_scores:
        return listed  # as they came from here
    classes = [class_of(target) for target in listed]
    _check_classes(classes, outputs)
    if are_class_scores and None not in classes:
        return ClassTargets(cast(list[int], classes))
    numbers = {sample: number for sample, number in enumerate(classes) if number is not None}
    if numbers and _has_classes_elsewhere(outputs):
        known = targets_of_classes(outputs, numbers, image_shape)
    else:
        known = {sample: ClassifierOutputTarget(number) for sample, number in numbers.items()}
    if any(isinstance(target, SegmentationTarget) for target in listed):
        listed = _in_regions(listed, outputs, image_shape)
    return [known[sample] if sample in known else _resolve(target) for sample, target in enumerate(listed)]


def _in_regions(targets: Sequence[Any], outputs: Any, image_shape: Sequence[int]) -> list[Any]:
    """The same with the regions that are meant in the outputs, one a sample. Without the image's size it is theirs."""
    found = list(targets)
    if isinstance(outputs, torch.Tensor):
        check_classes_second(tuple(outputs.shape), image_shape)
    for sample, target in enumerate(targets):
        if isinstance(target, SegmentationTarget):
            output = outputs[sample]
            segments = segments_of(output, len(image_shape) - 2 if image_shape else output.ndim - 1)
            found[sample] = target.within(segments, image_shape[2:] or segments.grid)
    return found


def _resolved_in_segments(targets: Targets, outputs: Segmented, image_shape: Sequence[int]) -> Sequence[Target]:
    listed = [None] * len(outputs) if targets is None else one_a_sample(targets, len(outputs), outputs)
    classes = {sample: number for sample, target in enumerate(listed) if (number := class_of(target)) is not None}
    reads_plain = any(not isinstance(target, OfPlace) for target in listed)
    if reads_plain and isinstance(outputs.plain, Undecided):
        raise ValueError(f"{outputs.plain.why}, or pass SegmentationTarget(instance=0)")
    if targets is None:
        return highest_of_all(outputs.plain, _described(outputs.plain))
    known = in_predicted_masks(dict(enumerate(outputs.segments)), classes) if classes else {}
    resolved = _in_regions(listed, outputs, image_shape)
    return [known[sample] if sample in known else _resolve(target) for sample, target in enumerate(resolved)]


def _resolved_in_detections(targets: Targets, outputs: Detected) -> Sequence[Target]:
    samples = len(outputs)
    listed = [None] * samples if targets is None else one_a_sample(chosen(targets, outputs), samples, outputs)
    numbers = [class_of(target) for target in listed]
    asked = [target if number is None else number for target, number in zip(listed, numbers, strict=True)]
    return [_resolve(target) for target in resolved(asked, outputs.predictions)]


def _has_classes_elsewhere(outputs: Any) -> bool:
    """Whether a class is not simply a number of each sample's output."""
    if isinstance(outputs, torch.Tensor):
        return outputs.ndim > 2
    return isinstance(outputs, list | tuple) and isinstance(outputs[0], Mapping)


def check_own_scores(scores: Any, images: int) -> None:
    """Raise ValueError where the images have not a score each, for methods that change one image at a time."""
    if len(scores) != images:
        raise ValueError(
            f"the model gives {len(scores)} outputs for {images} images (a bag of them?), but a method that changes "
            "them one by one needs an output for each: use a method with gradients, such as GradCAM"
        )


def target_scores(outputs: Any, targets: Sequence[Target]) -> torch.Tensor:
    """The targets' scores (N,), one a sample, in float32 or better. Plain class targets are gathered in one step.

    Where a score is a probability whose gradient rounding loses, the gradient is that of the logit in front of it, with
    a CamWarning: see `engine.saturation`, for the cost too.
    Raises TypeError when a target returns no tensor, ValueError when it returns more than one value.
    """
    if not isinstance(targets, ClassTargets) or outputs.grad_fn.__class__.__name__ in MAY_HAND_ON:
        return _scores_of_each(outputs, targets)
    classes = targets.classes
    if not isinstance(classes, torch.Tensor) and len(set(classes)) == 1:
        return full_precision(outputs[:, classes[0]])
    return full_precision(outputs.gather(1, _columns(classes, outputs)[:, None])[:, 0])


def _columns(classes: Sequence[int] | torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    if isinstance(classes, torch.Tensor):
        return classes
    return _moved(torch.tensor(classes, dtype=torch.long).remainder(outputs.shape[1]), outputs.device)


def _scores_of_each(outputs: Any, targets: Sequence[Target]) -> torch.Tensor:
    classes = targets.classes if isinstance(targets, ClassTargets) else _plain_classes(outputs, targets)
    if classes is None:
        scores = torch.stack([_scalar(target, output) for target, output in zip(targets, outputs, strict=True)])
    else:
        scores = full_precision(outputs.gather(1, _columns(classes, outputs)[:, None])[:, 0])
    explain_logits_where_lost(scores)
    return scores


def _plain_classes(outputs: Any, targets: Sequence[Target]) -> list[int] | None:
    classes = [class_of(target) for target in targets]
    are_class_scores = isinstance(outputs, torch.Tensor) and outputs.ndim == 2
    return cast(list[int], classes) if are_class_scores and None not in classes else None


def scores_of_lists(outputs: Any, target_lists: Sequence[Sequence[Target]]) -> torch.Tensor:
    """The scores (K, N) of K target lists, each with one target a sample, see `target_scores`."""
    return torch.stack([target_scores(outputs, target_list) for target_list in target_lists])


class RowScores:
    """Scores rows of N samples by K lists of N targets: each row by the targets of its sample.

    Plain classes go to the device here, once for all rows.
    """

    def __init__(self, target_lists: Sequence[Sequence[Target]], device: torch.device) -> None:
        self._of_lists: list[tuple[Sequence[Target], torch.Tensor | None]] = []
        for targets in target_lists:
            classes = [class_of(target) for target in targets]
            plain = None if None in classes else _moved(torch.tensor(classes, dtype=torch.long), device)
            self._of_lists.append((targets, plain))

    def __call__(self, outputs: Any, rows: Rows) -> torch.Tensor:
        """The scores (K, rows) of the model's output for the rows, in float32 or better. Raises as `target_scores`."""
        return torch.stack([self._by_one_list(outputs, rows, *of_list) for of_list in self._of_lists])

    @staticmethod
    def _by_one_list(outputs: Any, rows: Rows, targets: Sequence[Target], classes: torch.Tensor | None) -> torch.Tensor:
        if classes is not None and isinstance(outputs, torch.Tensor) and outputs.ndim == 2:
            of_rows = classes[rows.index].to(outputs.device).remainder(outputs.shape[1])
            return target_scores(outputs, ClassTargets(of_rows))
        pairs = zip(rows.samples, outputs, strict=True)
        return torch.stack([_scalar(targets[sample], output) for sample, output in pairs])


def one_a_sample(targets: Any, samples: int, outputs: Any = None) -> Sequence[Any]:
    """Targets for all samples alike, or one for each, as one for each.

    outputs: what they will be asked of, for the message. Raises TypeError for other kinds, ValueError for another
    number than that of the samples.
    """
    if isinstance(targets, torch.Tensor | np.ndarray):
        targets = targets.tolist()
    if callable(targets) or isinstance(targets, int | np.integer):
        targets = [targets] * samples
    if not isinstance(targets, list | tuple | Sequence) or isinstance(targets, str):
        raise TypeError(f"targets are class indices, callables, a list of them or None, not {targets!r}")
    if len(targets) != samples:
        way_out = "give one for each, or a single one for all"
        if len(targets) == 1:
            way_out = f"give one for each, or {targets[0]!r} without the list for all (1.5.7 explained the first alone)"
        elif _ndim(outputs) == 3:
            way_out += _BATCH_SECOND
        elif isinstance(outputs, Detected) and len(targets) == _EDGES:
            way_out += "; a box is BoxTarget((x0, y0, x1, y1))"
        raise ValueError(f"{len(targets)} targets for {samples} samples: {way_out}")
    return targets


def _ndim(tree: Any) -> int | None:
    return getattr(tree, "ndim", None)


def class_of(target: Any) -> int | None:
    """The class of a target that is nothing but one; a subclass of the class's target may compute something else."""
    if type(target) is ClassifierOutputTarget:
        return int(target.category)
    is_array = isinstance(target, torch.Tensor | np.ndarray) and target.ndim == 0
    is_number = isinstance(target, int | np.integer) and not isinstance(target, bool)
    return operator.index(target) if is_number or is_array else None


def _check_classes(classes: Sequence[int | None], outputs: Any) -> None:
    if not isinstance(outputs, torch.Tensor) or outputs.ndim > 2:
        return
    highest = outputs.shape[1] if outputs.ndim == 2 else 0
    for number in classes:
        if number is not None and not -highest <= number < highest:
            raise IndexError(_no_such_class(number, outputs))


def _no_such_class(number: int, outputs: torch.Tensor) -> str:
    if outputs.ndim == 2:
        return f"class {number}: the model's output has {outputs.shape[1]} classes, from 0"
    return (
        "the model gives one value a sample, not scores of classes: RawScoresOutputTarget() explains it, "
        "BinaryClassifierOutputTarget(0) its negative"
    )


def _resolve(target: Target) -> Target:
    if callable(target):
        return target
    raise TypeError(f"a target is a class index or a callable from one sample's output to a scalar, not {target!r}")


def _scalar(target: Target, output: Any) -> torch.Tensor:
    if isinstance(target, PredictionTarget):
        if not isinstance(output, DetectedSample):
            raise ValueError(_NO_DETECTOR.format(target, _described(output)))
        output = output.predictions
    elif isinstance(output, DetectedSample) or (
        isinstance(output, SegmentedSample) and not isinstance(target, OfPlace)
    ):
        output = output.plain
    score = target(output)
    if not isinstance(score, torch.Tensor):
        raise TypeError(f"target {target!r} returned {score!r}, expected a scalar tensor computed from the output")
    if score.numel() != 1:
        raise ValueError(
            f"target {target!r} returned shape {tuple(score.shape)}, expected one value: sum or select what it explains"
            f"{_BATCH_SECOND if _ndim(output) == 2 else ''}"
        )
    return full_precision(score.reshape(()))


def _moved(classes: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device; a copy from ordinary memory of the host would wait for all that the device has to do."""
    return classes.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else classes.to(device)


def _described(outputs: Any) -> str:
    return f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__

"""What a segmenter says of an image, as targets, and the region that each of them means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from pytorch_grad_cam.engine.inputs import image_of
from pytorch_grad_cam.engine.layouts import covers_finely
from pytorch_grad_cam.engine.segmentation.segmentation_target import SegmentationTarget
from pytorch_grad_cam.engine.segmentation.segments import Dense, Prompted, Queries, Segmented, Segments, segments_of
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.zoo.class_names import category_called, names_of

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.explanation import Original

SAID = "the share of the positions where a class is predicted"
_BACKGROUND = "background"
_UNPLACED = (
    "the point {} is in pixels of the picture, but nobody knows where in the input that is, for its preprocessing does "
    "more than resize and cut: pass SegmentationTarget(point=(y, x)) with pixels of the input"
)


def is_segmentation(outputs: Any, image_shape: Sequence[int]) -> bool:
    """Whether what targets read of an output is that of a segmenter: (N, classes, *spatial), (N, *spatial) with one
    value for nearly each pixel, or queries or prompts with masks. image_shape: (N, C, *spatial).
    """
    if not isinstance(outputs, torch.Tensor):
        return isinstance(outputs, Segmented)
    if outputs.ndim == len(image_shape) - 1:
        return outputs.ndim > 2 and covers_finely(tuple(outputs.shape[1:]), image_shape[2:])
    return outputs.ndim == len(image_shape)


def segments_in(outputs: Any, inputs: Any, spatial_from: Any) -> Segments:
    """The segments of the one image in a batch of one."""
    return segments_of(outputs[0], image_of(inputs, spatial_from).ndim - 2)


def names_of_segmented(model: Any, categories: Sequence[str] | None, segments: Segments) -> tuple[Sequence[str], str]:
    """The names of a segmenter's classes, and whose they are, see `names_of`; of prompts, which have none, no names."""
    if isinstance(segments, Prompted):
        return [], "none, for these are masks of prompts"
    return names_of(_classes(segments), categories, model)


def as_region(target: Any, names: Sequence[str]) -> Any:
    """A target of a segmenter: a class by number or name where it is predicted, a pair (y, x) the object there; what is
    callable as it is.
    """
    if isinstance(target, str):
        return SegmentationTarget(category_called(target, names))
    if type(target) is ClassifierOutputTarget:
        return SegmentationTarget(target.category)
    if isinstance(target, list | tuple):
        return SegmentationTarget(point=target, mask="predicted")
    return target if callable(target) else SegmentationTarget(int(target))


def point_in_input(target: Any, asked: Any, original: Original | None) -> Any:
    """A target whose point is one of the picture with that of the input. asked: as the user gave it. Of inputs that
    were given (None) all points are. Raises ValueError where nobody knows where it is.
    """
    if original is None or not isinstance(asked, list | tuple):
        return target
    placement = original.placement
    if placement is None:
        raise ValueError(_UNPLACED.format(tuple(asked)))
    y, x = asked
    left, top, *_ = placement.seen((x + 0.5, y + 0.5) * 2)  # the middle of that pixel
    return replace(target, point=(top, left))


def first_regions(segments: Segments, names: Sequence[str], most: int) -> list[SegmentationTarget]:
    """The classes that most positions have, without those whose names say that they are the background; of prompts
    these, in their order.
    """
    if isinstance(segments, Prompted):
        return [SegmentationTarget(instance=number) for number in range(min(most, len(segments.masks)))]
    shares = shares_of_classes(segments)
    found = [number for number in np.argsort(-shares, kind="stable").tolist() if shares[number] > 0]
    things = [number for number in found if _BACKGROUND not in names[number].lower()]
    return [SegmentationTarget(number) for number in things[:most]]


def shares_of_classes(segments: Segments) -> np.ndarray:
    """The share of the positions where each class is predicted, float32 (classes,); of prompts nothing."""
    if isinstance(segments, Prompted):
        return np.empty(0, np.float32)
    if _classes(segments) == 1:
        predicted = segments.predicted(0).long()
        counts = predicted.sum()[None]
    else:
        scores = segments.class_scores if isinstance(segments, Queries) else segments.logits  # type: ignore[attr-defined]
        predicted = scores.argmax(0)
        counts = torch.bincount(predicted.flatten(), minlength=_classes(segments))
    shares: np.ndarray = (counts / predicted.numel()).float().cpu().numpy()
    return shares


def region_of(target: Any, segments: Segments, size: Sequence[int]) -> tuple[int | None, np.ndarray | None]:
    """The class that a target means, and where, bool of a size (*spatial); None where it is no region."""
    if not isinstance(target, SegmentationTarget):
        return None, None
    meant = target.within(segments, size)
    region: np.ndarray = (interpolate(meant.region.float()[None, None], tuple(size))[0, 0] > 0).cpu().numpy()
    which = meant.which[1] if isinstance(meant.which, tuple) else meant.which
    return None if isinstance(segments, Prompted) else which % _classes(segments), region


def _classes(segments: Segments) -> int:
    if isinstance(segments, Queries):
        return segments.classes.shape[1] - 1
    assert isinstance(segments, Dense)
    return len(segments.logits)

"""What a segmenter says of an image: regions, as targets and as panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from pytorch_grad_cam.engine.layouts import covers_finely
from pytorch_grad_cam.engine.segmentation.segmentation_target import SegmentationTarget
from pytorch_grad_cam.engine.segmentation.segments import Dense, Prompted, Queries, Segmented, Segments, segments_of
from pytorch_grad_cam.explanations.panel import Panel, name_of_target
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.zoo.class_names import category_called, names_of

if TYPE_CHECKING:
    from pytorch_grad_cam.zoo.placement import Original

_BACKGROUND = "background"
_UNPLACED = (
    "the point {} is in pixels of the picture, but nobody knows where in the input that is, for its preprocessing does "
    "more than resize and cut: pass SegmentationTarget(point=(y, x)) with pixels of the input"
)


class SegmentedRegions:
    """The regions that a segmenter finds, see `Places`."""

    said = "the share of the positions where a class is predicted"
    nothing = "nothing but background was found: pass a class that is predicted, or a SegmentationTarget"

    def __init__(self, model: Any, categories: Sequence[str] | None, outputs: Any, rank: int) -> None:
        segments = self.read(outputs, rank)
        self.names: Sequence[str] = []
        self.of_names = "none, for these are masks of prompts"
        if not isinstance(segments, Prompted):
            self.names, self.of_names = names_of(_classes(segments), categories, model)

    def read(self, outputs: Any, rank: int) -> Segments:
        return segments_of(outputs[0], rank)

    def as_target(self, asked: Any, original: Original | None = None) -> Any:
        """A class is meant where it is predicted, with a pair (y, x) the object there."""
        if isinstance(asked, str):
            return SegmentationTarget(category_called(asked, self.names))
        if type(asked) is ClassifierOutputTarget:
            return SegmentationTarget(asked.category)
        if not isinstance(asked, list | tuple):
            return asked if callable(asked) else SegmentationTarget(int(asked))
        y, x = asked
        if original is not None:
            if original.placement is None:
                raise ValueError(_UNPLACED.format((y, x)))
            x, y, *_ = original.placement.seen((x + 0.5, y + 0.5) * 2)  # the middle of that pixel
        return SegmentationTarget(point=(y, x), mask="predicted")

    def first(self, read: Segments, most: int) -> list[SegmentationTarget]:
        """The classes that most positions have, without those whose names say that they are the background; of prompts
        these, in their order.
        """
        if isinstance(read, Prompted):
            return [SegmentationTarget(instance=number) for number in range(min(most, len(read.masks)))]
        shares = shares_of_classes(read)
        found = [number for number in np.argsort(-shares, kind="stable").tolist() if shares[number] > 0]
        things = [number for number in found if _BACKGROUND not in self.names[number].lower()]
        return [SegmentationTarget(number) for number in things[:most]]

    def shown(self, panel: Panel, target: Any, read: Segments, size: Sequence[int]) -> Panel:
        if not isinstance(target, SegmentationTarget):
            return panel._replace(name=name_of_target(target))
        category, region = region_of(target, read, size)
        name = "mask" if category is None else self.names[category]
        name += "" if target.instance is None else f" {target.instance}"
        return panel._replace(name=name, category=category, region=region)

    def of_classes(self, read: Segments) -> tuple[np.ndarray, np.ndarray]:
        shares = shares_of_classes(read)
        return shares, shares


def is_segmentation(outputs: Any, image_shape: Sequence[int]) -> bool:
    """Whether what targets read of an output is that of a segmenter: (N, classes, *spatial), (N, *spatial) with one
    value for nearly each pixel, or queries or prompts with masks. image_shape: (N, C, *spatial).
    """
    if not isinstance(outputs, torch.Tensor):
        return isinstance(outputs, Segmented)
    if outputs.ndim == len(image_shape) - 1:
        return outputs.ndim > 2 and covers_finely(tuple(outputs.shape[1:]), image_shape[2:])
    return outputs.ndim == len(image_shape)


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


def region_of(target: SegmentationTarget, segments: Segments, size: Sequence[int]) -> tuple[int | None, np.ndarray]:
    """The class that a target means, None of prompts, and where, bool of a size (*spatial)."""
    meant = target.within(segments, size)
    region: np.ndarray = (interpolate(meant.region.float()[None, None], tuple(size))[0, 0] > 0).cpu().numpy()
    which = meant.which[1] if isinstance(meant.which, tuple) else meant.which
    return None if isinstance(segments, Prompted) else which % _classes(segments), region


def _classes(segments: Segments) -> int:
    if isinstance(segments, Queries):
        return segments.classes.shape[1] - 1
    assert isinstance(segments, Dense)
    return len(segments.logits)

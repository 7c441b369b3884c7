"""Targets of an image as they are asked about its windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch

from pytorch_grad_cam.engine.of_place import OfPlace
from pytorch_grad_cam.engine.segmentation.regions import at_grid
from pytorch_grad_cam.engine.segmentation.segmentation_target import InRegion, SegmentationTarget, WherePredicted
from pytorch_grad_cam.engine.segmentation.segments import segments_of
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from pytorch_grad_cam.volumes.windowed_inputs import WindowedInputs
from pytorch_grad_cam.volumes.windows import Slices


@dataclass(frozen=True)
class MaskOfImage(OfPlace):
    """The sum of a class's scores over a mask: of the whole image, or the part (*size) that is cut for a window."""

    category: int
    mask: torch.Tensor = field(repr=False)
    is_of_place = True

    def __call__(self, output: Any) -> torch.Tensor:
        """A scalar from what is read of one window."""
        segments = segments_of(output, self.mask.ndim)
        region = at_grid(self.mask.to(segments.device, torch.float32), segments.grid)
        return InRegion(segments.of_class(self.category, None), region)(output)


OF_REGION = WherePredicted, MaskOfImage, SemanticSegmentationTarget
"""Those whose score is a sum over positions, and 0 in windows that have none of them."""


def needs_whole_prediction(target: Any) -> bool:
    """Whether only the prediction for the whole image says which region is meant."""
    return isinstance(target, SegmentationTarget) and (
        target.category is None
        or target.point is not None
        or target.instance is not None
        or isinstance(target.mask, str)
    )


def of_whole_prediction(target: SegmentationTarget, scores: torch.Tensor) -> MaskOfImage:
    """The region that is meant by the scores (classes, *spatial) of the whole image. Raises what
    `SegmentationTarget.within` raises.
    """
    size = scores.shape[1:]
    in_region = target.within(segments_of(scores, len(size)), size)
    return MaskOfImage(cast(int, in_region.which), in_region.region)  # scores of classes have no queries


def of_windows(target: Any, rank: int) -> Any:
    """A region of an image as its windows are asked about it: by its mask, or by where a window predicts the class."""
    if not isinstance(target, SegmentationTarget) or target.category is None:
        return target
    if isinstance(target.mask, torch.Tensor):
        return MaskOfImage(target.category, target.mask)
    return WherePredicted(target.category, rank)


def cut(target: Any, where: Slices, inputs: WindowedInputs) -> Any:
    """A target as it is asked about a window: a mask of the whole image is cut and, where the window is padded, too.

    Raises ValueError for a mask of another size than the image's.
    """
    if not isinstance(target, MaskOfImage | SemanticSegmentationTarget):
        return target
    if tuple(target.mask.shape) != inputs.image_size:
        raise ValueError(
            f"the mask has shape {tuple(target.mask.shape)}, expected that of the image, {inputs.image_size}"
        )
    mask = torch.zeros(inputs.windows.sizes(inputs.image_size))
    part = target.mask[where]
    inputs.windows.unpadded(mask, part.shape).copy_(part)
    return type(target)(target.category, mask)

"""The target of a segmenter: whose scores, and in which region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.engine.of_place import OfPlace
from pytorch_grad_cam.engine.segmentation.regions import at_grid, cell_of, connected_parts
from pytorch_grad_cam.engine.segmentation.segments import Segments, Which, segments_of


@dataclass(frozen=True)
class InRegion(OfPlace):
    """The sum of somebody's scores over a region of the image that is explained, so that its changed copies are asked
    about the same pixels.

    region: (*grid), bool or weights. is_of_place: False where it is all that is predicted of the class.
    """

    which: Which
    region: torch.Tensor = field(repr=False)
    is_of_place: bool = True

    def __call__(self, output: Any) -> torch.Tensor:
        """A scalar from what is read of one sample, see `segments_of`."""
        scores = segments_of(output, self.region.ndim).scores(self.which)
        if self.region.dtype == torch.bool:
            return torch.where(self.region, scores, 0).sum()
        return (scores * self.region.to(scores)).sum()

    def where_predicted(self) -> WherePredicted:
        """The same of other images, each where it is predicted there."""
        return WherePredicted(self.which, self.region.ndim)


@dataclass(frozen=True)
class WherePredicted(OfPlace):
    """The same where the output itself predicts the class; 0 where it is nowhere. rank: of the image."""

    which: Which
    rank: int
    is_of_place = False

    def __call__(self, output: Any) -> torch.Tensor:
        """A scalar from what is read of one sample, see `segments_of`."""
        segments = segments_of(output, self.rank)
        return InRegion(self.which, segments.predicted(self.which))(output)


@dataclass(frozen=True, eq=False)
class SegmentationTarget(OfPlace):
    r"""The sum of one class's logits over a region, $\sum_{p \in M} y^c_p$.

    category: the class; None is the one that is predicted at the point, that of the instance, or the only one.
    mask: the region, (H, W), in the image's size or the output's, array or tensor, bool or weights (of integers one
    value besides 0); None and "predicted" are where the class is predicted. point: (y, x) in pixels of the image: this
    pixel alone, with mask="predicted" the connected part of the predicted mask around it. instance: one object, from 0:
    of dense outputs the connected parts of the predicted mask, the largest first; of queries (Mask2Former, MaskFormer)
    those that are no 'no object', the surest first; of SAM the prompts, with their best masks.

    Where the output has another size than the image, a cell of it counts by its share inside the mask. The region is
    that of the image as it is given: its changed copies are asked about the same pixels. Called by itself it takes the
    image to be as large as the output.

    Raises ValueError for a mask that is empty, a map of labels, has another size or whose class is predicted nowhere, a
    point outside of the image, an instance that is not there, and where nobody knows which class is meant; IndexError
    for a class that does not exist. Cost: a wait for the device; for connected parts some more.
    Paper: Vinogradova et al. 2020, https://arxiv.org/abs/2002.11434.

    >>> logits = torch.tensor([[[1.0, 5.0]], [[2.0, 3.0]]])  # of two classes, for an image of 1 x 2 pixels
    >>> SegmentationTarget(0)(logits), SegmentationTarget(0, mask=[[True, True]])(logits)
    (tensor(5.), tensor(6.))
    """

    category: int | None = None
    mask: Any = None
    point: Sequence[float] | None = None
    instance: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mask, str):
            if self.mask != "predicted":
                raise ValueError(f"mask is {self.mask!r}, expected an array, 'predicted' or None")
        elif self.mask is not None:
            if self.point is not None:
                raise ValueError("a mask and a point both say where to look: pass one of them")
            mask = torch.as_tensor(np.asarray(self.mask) if isinstance(self.mask, list) else self.mask)
            if not mask.any():
                raise ValueError("the mask is empty: no pixel of it is inside")
            if not mask.is_floating_point() and len(labels := mask.unique().tolist()) > _VALUES_OF_A_MASK:
                raise ValueError(
                    f"the mask has the values {labels}, as a map of labels: pass labels == {self.category}"
                )
            object.__setattr__(self, "mask", mask)
        if self.point is not None and self.instance is not None:
            raise ValueError("a point and an instance both say which object is meant: pass one of them")
        if self.instance is not None and self.instance < 0:
            raise ValueError(f"instances are numbered from 0, not {self.instance}")
        if self.point is not None:
            object.__setattr__(self, "point", tuple(map(float, self.point)))

    @property
    def is_of_place(self) -> bool:  # type: ignore[override]
        """Whether it means more than all that is predicted of a class."""
        return self.point is not None or self.instance is not None or isinstance(self.mask, torch.Tensor)

    def __repr__(self) -> str:
        shown = [] if self.category is None else [str(self.category)]
        if self.mask is not None:
            is_name = isinstance(self.mask, str)
            shown.append(f"mask={self.mask!r}" if is_name else f"mask=<{' x '.join(map(str, self.mask.shape))}>")
        if self.point is not None:
            shown.append(f"point=({', '.join(f'{at:g}' for at in self.point)})")
        if self.instance is not None:
            shown.append(f"instance={self.instance}")
        return f"SegmentationTarget({', '.join(shown)})"

    def __call__(self, output: Any) -> torch.Tensor:
        """The scalar, from the scores (classes, *spatial) of one sample."""
        segments = segments_of(output, getattr(output, "ndim", 0) - 1)
        return self.within(segments, segments.grid)(output)

    def within(self, segments: Segments, size: Sequence[int]) -> InRegion:
        """The region that is meant in an image of a size (*spatial), and whose scores."""
        cell = None if self.point is None else cell_of(self.point, size, segments.grid)
        if self.instance is not None:
            which, predicted = segments.instance(self.instance, self.category)
        else:
            which = segments.of_class(self.category, cell)
            predicted = segments.predicted(which)
        if isinstance(self.mask, torch.Tensor):
            return InRegion(which, _at_grid(self.mask.to(segments.device), segments.grid, size))
        if cell is not None and self.mask is None:
            region = torch.zeros_like(predicted)
            region[cell] = True
            return InRegion(which, region)
        if cell is not None:
            parts, _ = connected_parts(predicted)
            predicted = (parts == parts[cell]) & (parts[cell] > 0)
        if not predicted.any():
            what = f"class {which} is" if isinstance(which, int) else "the mask is"
            where = "nowhere" if self.point is None else f"not at the point {self.point}"
            raise ValueError(f"{what} predicted {where}: mask= or point= alone says where to look all the same")
        return InRegion(which, predicted, self.is_of_place)


_VALUES_OF_A_MASK = 2


def _at_grid(mask: torch.Tensor, grid: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    if tuple(mask.shape) not in (tuple(size), tuple(grid)):
        of_image, of_output = (" x ".join(map(str, sides)) for sides in (size, grid))
        raise ValueError(
            f"the mask has shape {tuple(mask.shape)}, expected the image's, {of_image}, or the output's, {of_output}"
        )
    return at_grid(mask.float(), grid)

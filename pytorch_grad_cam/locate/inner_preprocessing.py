"""Models that pad or crop their images themselves: where the image lies in what their first layers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import ImagePlace, SpatialFrom
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.watch import Arguments, Watch
from pytorch_grad_cam.locate.answers import contrast_of, signs_like

# How many learned modules count as the first ones: the first of all may read another input. A choice.
_EARLIEST = 8
# The part of the image along an axis that is changed at either end. A choice: both are seen in a crop of more than the
# middle third.
_PART = 3
# By how much, in the image's standard deviations: so little hardly changes a mean and a standard deviation by which the
# model may normalise, and thereby its padding. A choice.
_STRENGTH = 0.1
# A row that changes less than the strongest one by this factor does not show the part. Where pixels are resized, noise
# on them is weaker by half at most. A choice.
_FAINT = 0.25
# The correlation of a channel with that of the image where the model has only scaled and shifted it: bfloat16 rounds.
_THE_SAME = 0.9999


class FirstReads(Watch):
    """What the first learned modules read of the last sample that has the rank of the image: `reads`, (1, C, *spatial).

    image: (1, C, *spatial), the last of the samples. spatial_from: where the inputs have it. has_image: whether one of
    the modules reads it as it is, or with each channel scaled and shifted, alone or as one of more pictures that the
    model is shown, such as tiles; what follows is not looked at.
    """

    def __init__(self, model: nn.Module, image: torch.Tensor, samples: int, spatial_from: SpatialFrom) -> None:
        super().__init__([module for module in model.modules() if module._parameters])
        self._image, self._samples = image, samples
        self._place = spatial_from if isinstance(spatial_from, ImagePlace) else None
        self.reads: list[torch.Tensor] = []
        self.has_image = False

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        if self.has_image or len(self.reads) == _EARLIEST:
            return
        for read in floating_tensors(inputs)[:1]:
            if read.ndim and len(read) == self._samples:
                orders = self._as_images(read[-1:].detach())
                self.reads += [order.clone() for order in orders[:1]]
                self.has_image = any(_is_same(order, self._image) for order in orders)
            elif read.ndim == self._image.ndim and len(read) > self._samples:
                self.has_image = any(_is_same(picture, self._image) for picture in read.detach().split(1))

    def _as_images(self, read: torch.Tensor) -> list[torch.Tensor]:
        """What has the image's axes, in its order; of images whose channels are not the second axis also what has them
        in the input's order: the orders that have as many channels.
        """
        like_image = [read] if read.ndim == self._image.ndim else []
        if self._place is None:
            return like_image
        like_input = [self._place.as_image(read)] if read.ndim == self._place.ndim_of(self._image) else []
        return [order for order in like_image + like_input if order.shape[1] == self._image.shape[1]]


def ends_of_read(
    image: torch.Tensor, reads_with: Callable[[torch.Tensor], Sequence[torch.Tensor]]
) -> list[tuple[float, float]] | None:
    """Where what the model's first layers read begins and ends, for each axis of the image in its pixels.

    (0, length) where the image fills it, resized or not. It begins below 0 and ends beyond the length where the image
    is padded, the other way round where it is cropped; (inf, -inf) where one end of the image is not seen at all. None
    where nothing of the image's rank depends on it.

    A third of the image at either end is changed, and the inner edges of what changes with it are looked for: images
    are resized evenly, so the rest follows, whatever the padding holds.
    image: (1, C, *spatial). reads_with: `FirstReads.reads` for another image. Cost: `reads_with`, three times.
    """
    size = image.shape[2:]
    parts = [-(-length // _PART) for length in size]
    before = reads_with(image)
    rows = [
        [_changed_rows(*pair) for pair in zip(before, reads_with(_with_noise_in(image, part)), strict=False)]
        for part in ([slice(part) for part in parts], [slice(-part, None) for part in parts])
    ]
    for at_first, at_last in zip(*rows, strict=False):
        if at_first or at_last:
            if not at_first or not at_last:
                return [(torch.inf, -torch.inf)] * len(size)
            of_axes = zip(size, parts, at_first, at_last, strict=True)
            return [_ends(length, part, *changed) for length, part, *changed in of_axes]
    return None


def _with_noise_in(image: torch.Tensor, part: Sequence[slice]) -> torch.Tensor:
    changed, region = image.clone(), (slice(None), slice(None), *part)
    changed[region] += (_STRENGTH * contrast_of(image) * signs_like(image))[region]
    return changed


def _changed_rows(before: torch.Tensor, after: torch.Tensor) -> list[torch.Tensor]:
    """For each axis which rows, columns, ... have changed; empty where nothing has."""
    change = (after - before).float().abs().sum((0, 1))
    if not change.any():
        return []
    profiles = [change.movedim(axis, 0).reshape(length, -1).sum(1) for axis, length in enumerate(change.shape)]
    return [profile > _FAINT * profile.amax() for profile in profiles]


def _ends(length: int, part: int, at_first: torch.Tensor, at_last: torch.Tensor) -> tuple[float, float]:
    """The ends along an axis, from which rows changed with the first `part` pixels and which with the last."""
    behind_first = int(at_first.nonzero().amax()) + 1
    before_last = int(at_last.nonzero().amin())
    if before_last <= behind_first:
        return torch.inf, -torch.inf
    step = (length - 2 * part) / (before_last - behind_first)
    return part - step * behind_first, part + step * (len(at_first) - behind_first)


def _is_same(read: torch.Tensor, image: torch.Tensor) -> bool:
    """Whether each channel is the image's, scaled and shifted."""
    if read.shape != image.shape:
        return False
    both = torch.stack([read, image.to(read)]).float().flatten(3)[:, 0]
    both = both - both.mean(-1, keepdim=True)
    read_norm, image_norm = torch.linalg.vector_norm(both, dim=-1)
    return bool(((both[0] * both[1]).sum(-1) >= _THE_SAME * read_norm * image_norm).all())

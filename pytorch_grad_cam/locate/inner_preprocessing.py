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
    model is shown, such as tiles. has_other: whether any learned module reads something else of as many channels, which
    may be a part of the image. A module with learned ones in it is none of them: it reads what the model is given, not
    what its layers see.
    """

    def __init__(self, model: nn.Module, image: torch.Tensor, samples: int, spatial_from: SpatialFrom) -> None:
        super().__init__([module for module in model.modules() if is_learned_alone(module)])
        self._image, self._samples = image, samples
        self._place = spatial_from if isinstance(spatial_from, ImagePlace) else None
        self.reads: list[torch.Tensor] = []
        self.has_image = self.has_other = False

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        read = next(iter(floating_tensors(inputs)), None)
        if read is None or not read.ndim:
            return
        self.has_other = self.has_other or self._is_another(read)
        if self.has_image or len(self.reads) == _EARLIEST:
            return
        if len(read) == self._samples:
            orders = self._as_images(module, read[-1:].detach())
            self.reads += [order.clone() for order in orders[:1]]
            self.has_image = any(_is_same(order, self._image) for order in orders)
        elif read.ndim == self._image.ndim and len(read) > self._samples:
            self.has_image = any(_is_same(picture, self._image) for picture in read.detach().split(1))

    def _is_another(self, read: torch.Tensor) -> bool:
        """Whether it has the image's axes and as many channels, but is not the image. Cost: for the image a wait."""
        is_like = self._place is None and read.ndim == self._image.ndim and read.shape[1] == self._image.shape[1]
        return is_like and not (len(read) == self._samples and _is_same(read[-1:].detach(), self._image))

    def _as_images(self, module: nn.Module, read: torch.Tensor) -> list[torch.Tensor]:
        """What has the image's axes, in its order; of images whose channels are not the second axis also what has them
        in the input's order: the orders that have as many channels. What a linear layer reads has its channels last.
        """
        like_image = [read] if read.ndim == self._image.ndim else []
        if self._place is None:
            reads_channels_last = isinstance(module, nn.Linear) or type(module) is nn.LayerNorm
            return [read.movedim(-1, 1) for read in like_image] if reads_channels_last else like_image
        like_input = [self._place.as_image(read)] if read.ndim == self._place.ndim_of(self._image) else []
        return [order for order in like_image + like_input if order.shape[1] == self._image.shape[1]]


def ends_of_reads(
    image: torch.Tensor, reads_with: Callable[[torch.Tensor], Sequence[torch.Tensor]]
) -> list[list[tuple[float, float]]]:
    """Where what layers read begins and ends, for each axis of the image in its pixels, for each of the reads that the
    image changes.

    (0, length) where the image fills it, resized or not. It begins below 0 and ends beyond the length where the image
    is padded, the other way round where it is cropped, and begins behind its end where it is mirrored or turned;
    (inf, -inf) where one end of the image is not seen at all.

    A third of the image at either end is changed, and the inner edges of what changes with it are looked for: images
    are resized evenly, so the rest follows, whatever the padding holds.
    image: (1, C, *spatial). reads_with: what is read of another image, (N, C, *spatial). Cost: `reads_with`, three
    times.
    """
    size = image.shape[2:]
    parts = [-(-length // _PART) for length in size]
    before = reads_with(image)
    rows = [
        [_changed_rows(*pair) for pair in zip(before, reads_with(_with_noise_in(image, part)), strict=False)]
        for part in ([slice(part) for part in parts], [slice(-part, None) for part in parts])
    ]
    found = []
    for read, at_first, at_last in zip(before, *rows, strict=False):
        if at_first and at_last:
            of_axes = zip(size, parts, at_first, at_last, strict=True)
            found.append([_ends(length, part, *changed) for length, part, *changed in of_axes])
        # Of few rows, as of every third frame, none may lie in the part.
        elif (at_first or at_last) and min(read.shape[2:]) > _PART:
            found.append([(torch.inf, -torch.inf)] * len(size))
    return found


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
    first, last = at_first.nonzero(), at_last.nonzero()
    if first.amin() > last.amax():
        end, begin = _ends(length, part, at_first.flip(0), at_last.flip(0))
        return begin, end
    behind_first, before_last, rows = int(first.amax()) + 1, int(last.amin()), len(at_first)
    of_part = part * rows / length
    beyond = behind_first - of_part, rows - before_last - of_part
    # A blurred image spreads by as much from both ends; one that is shrunk and padded does not begin at the first row.
    is_blurred = rows == length and first.amin() == 0 and last.amax() == rows - 1 and beyond[0] > 0
    if (is_blurred and abs(beyond[0] - beyond[1]) <= 1) or max(map(abs, beyond)) <= 1:  # as exactly as rows tell
        return 0.0, float(length)
    if before_last <= behind_first:
        return torch.inf, -torch.inf
    step = (length - 2 * part) / (before_last - behind_first)
    return part - step * behind_first, part + step * (rows - behind_first)


def is_learned_alone(module: nn.Module) -> bool:
    """Whether a module has parameters of its own, and none in its parts."""
    return bool(module._parameters) and not any(part._parameters for part in module.modules() if part is not module)


def _is_same(read: torch.Tensor, image: torch.Tensor) -> bool:
    """Whether each channel is the image's, scaled and shifted."""
    if read.shape != image.shape:
        return False
    both = torch.stack([read, image.to(read)]).float().flatten(3)[:, 0]
    both = both - both.mean(-1, keepdim=True)
    read_norm, image_norm = torch.linalg.vector_norm(both, dim=-1)
    return bool(((both[0] * both[1]).sum(-1) >= _THE_SAME * read_norm * image_norm).all())

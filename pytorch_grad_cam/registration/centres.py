"""The pixels that the entries of a tensor are centred on: an algebra of strided positions."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

# In cells. A ResNet-D's shortcut, a 2 x 2 mean, lies exactly a quarter beside its 3 x 3 convolution of stride 2: with
# 0.2 ecaresnext26t and CoAtNeXt have no geometry. Up to 0.45 no other of 38 networks of timm and transformers changes.
_SAME_PLACE = 0.25


class Stretch(NamedTuple):
    """`size` entries, `step` pixels apart along an axis of the image; None is no axis of it, as for channels."""

    image_axis: int | None
    size: int
    step: float = 0.0

    def split(self, slow: int) -> "tuple[Stretch, Stretch]":
        """The same entries as `slow` groups of equal size."""
        fast = self.size // slow
        return Stretch(self.image_axis, slow, fast * self.step), Stretch(self.image_axis, fast, self.step)


class Axis(NamedTuple):
    """An axis of a tensor: stretches, the last one running fastest, behind `extra` entries without a place."""

    stretches: tuple[Stretch, ...]
    extra: int = 0

    @property
    def size(self) -> int:
        return self.extra + math.prod(stretch.size for stretch in self.stretches)

    @property
    def of_image(self) -> bool:
        return any(stretch.image_axis is not None for stretch in self.stretches)


def along_image(image_axis: int, size: int, step: float) -> Axis:
    """An axis whose entries lie `step` pixels apart along an axis of the image."""
    return Axis((Stretch(image_axis, size, step),) if size > 1 else ())


def along_nothing(size: int) -> Axis:
    """An axis whose entries all lie at the same place, such as channels."""
    return Axis((Stretch(None, size),) if size > 1 else ())


class Centres(NamedTuple):
    """The pixels that a tensor's entries are centred on.

    first: that of the first entry, one number for each axis of the image. axes: of the tensor, with their steps.
    """

    axes: tuple[Axis, ...]
    first: tuple[float, ...]

    def moved(self, image_axis: int, pixels: float) -> "Centres":
        return self._replace(first=tuple(at + pixels * (axis == image_axis) for axis, at in enumerate(self.first)))

    def with_axes(self, axes: Sequence[Axis]) -> "Centres":
        return self._replace(axes=tuple(axes))

    def with_axis(self, position: int, *axes: Axis) -> "Centres":
        """The centres with other axes, or none, in the place of one."""
        return self.with_axes([*self.axes[:position], *axes, *self.axes[position + 1 :]])

    def along(self, position: int) -> Stretch | None:
        """The stretch of the image that an axis consists of; None where it is none, or more than one."""
        stretches, extra = self.axes[position]
        return stretches[0] if self.axes[position].of_image and len(stretches) == 1 and not extra else None

    def joined(self, position: int, axis: Axis) -> "Centres | None":
        """The centres behind an operation that reads all entries of an axis together, as a linear layer does.

        Their places are averaged. None where no axis is left that runs along the same axis of the image.
        """
        centres = self
        for stretch in self.axes[position].stretches:
            if stretch.image_axis is not None:
                centres = centres.moved(stretch.image_axis, stretch.step * (stretch.size - 1) / 2)
        behind = centres.with_axis(position, axis)
        return behind if behind.image_axes == self.image_axes else None

    @property
    def image_axes(self) -> set[int | None]:
        """The axes of the image along which the entries' places differ."""
        return {stretch.image_axis for axis in self.axes for stretch in axis.stretches} - {None}

    def reshaped(self, sizes: Sequence[int]) -> "Centres | None":
        """The centres of the same entries, in the same order, under axes of other sizes.

        None where the stretches cannot be divided like that.
        """
        axes: list[Axis] = []
        waiting: list[Stretch | Axis] = []
        for axis in self.axes:
            waiting += [axis] if axis.extra else axis.stretches
        for size in sizes:
            taken: list[Any] = []
            need = size
            while need > 1:
                part = waiting.pop(0)
                if need % part.size == 0:
                    taken.append(part)
                    need //= part.size
                elif part.size % need == 0 and isinstance(part, Stretch):
                    slow, fast = part.split(need)
                    taken.append(slow)
                    waiting.insert(0, fast)
                    need = 1
                else:
                    return None
            if any(isinstance(part, Axis) for part in taken[1:]) or (len(taken) > 1 and isinstance(taken[0], Axis)):
                return None
            axes.append(taken[0] if taken and isinstance(taken[0], Axis) else Axis(_merged(taken)))
        return self.with_axes(axes)

    @classmethod
    def agreed(cls, branches: Sequence["Centres | None"], apart: float = _SAME_PLACE) -> "Centres | None":
        """The mean centres of branches that lie at most `apart` of a cell beside each other, else None.

        Branches without centres (None) do not count.
        """
        known = [branch for branch in branches if branch is not None]
        if not known or any(branch.axes != known[0].axes for branch in known):
            return None
        firsts = list(zip(*(branch.first for branch in known), strict=True))
        steps = [stretch.step for axis in known[0].axes for stretch in axis.stretches if stretch.step]
        if any(max(first) - min(first) > apart * min(steps, default=math.inf) for first in firsts):
            return None
        return known[0]._replace(first=tuple(sum(first) / len(first) for first in firsts))


def _merged(stretches: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """The stretches, with neighbours that continue each other along the same axis of the image made one."""
    merged: list[Stretch] = []
    for stretch in stretches:
        before = merged[-1] if merged else None
        same_axis = before and before.image_axis == stretch.image_axis
        if before and same_axis and math.isclose(before.step, stretch.size * stretch.step):
            merged[-1] = stretch._replace(size=before.size * stretch.size)
        else:
            merged.append(stretch)
    return tuple(merged)

"""One map of an explanation, and the boxes that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pytorch_grad_cam.zoo.placement import Placement


class TargetBox(NamedTuple):
    """A box that a map explains, such as a detection: (left, top, right, bottom) in pixels of the original picture.

    name: what is in it. score: how sure the model is, in [0, 1]; None where it does not say.
    """

    name: str
    score: float | None
    box: tuple[float, float, float, float]


class Panel(NamedTuple):
    """One map, float32 (H, W) in [0, 1], a signed one in [-1, 1], with its method, layer and target.

    layer: its dotted name; several are joined by ' + '; '' for methods without layers. category, probability: None
    where the target is no class. name: that of the class or the target. warnings: what was said of this map, such as
    why it is blank. boxes: what the map explains, where that is no whole image. region: the same of a segmentation,
    bool (H, W) in pixels of the shown picture.
    """

    method: str
    layer: str
    category: int | None
    name: str
    probability: float | None
    map: np.ndarray
    warnings: tuple[str, ...] = ()
    boxes: tuple[TargetBox, ...] = ()
    region: np.ndarray | None = None

    def __str__(self) -> str:
        probability = "" if self.probability is None else f" {self.probability:.1%}"
        return f"{self.name}{probability}, {self.where}"

    def in_original(self, placement: Placement | None) -> Panel:
        """The same with its boxes, which are in pixels of the model's input, in those of the picture before it."""
        if placement is None or not self.boxes:
            return self
        return self._replace(boxes=tuple(each._replace(box=placement.in_picture(each.box)) for each in self.boxes))

    @property
    def where(self) -> str:
        """The method and its layer."""
        return f"{self.method} at {self.layer}" if self.layer else self.method

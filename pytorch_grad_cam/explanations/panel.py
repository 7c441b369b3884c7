"""One map of an explanation, and the place that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from pytorch_grad_cam.zoo.placement import Original, Placement


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


class Places(Protocol):
    """What a model says of places of an image, boxes or regions, one image at a time.

    names: of its classes. of_names: whose they are. said: what stands for probabilities. nothing: what is warned of
    where nothing was found.
    """

    names: Sequence[str]
    of_names: str
    said: str
    nothing: str

    def read(self, outputs: Any, rank: int) -> Any:
        """What is said of the one image of a batch of one. rank: how many axes of space the image has."""

    def as_target(self, asked: Any, original: Original | None = None) -> Any:
        """What a CAM is asked for a class by number or name, a place, or what is callable.

        original: the picture whose pixels places are in; None where that is the input. Raises ValueError for what is
        outside of it, and where nobody knows what of it the model is shown.
        """

    def first(self, read: Any, most: int) -> Sequence[Any]:
        """The targets that are explained where none were asked for. Cost: a wait for the device."""

    def shown(self, panel: Panel, target: Any, read: Any, size: Sequence[int]) -> Panel:
        """A panel with the name, class, score and place that its target means. size: (*spatial) of the input."""

    def of_classes(self, read: Any) -> tuple[np.ndarray, np.ndarray]:
        """What classes are ranked by, and what stands for their probabilities: each (classes,)."""


def check_no_point(asked: Any) -> None:
    """Raise ValueError for a pair (y, x), which only a segmenter has a region at."""
    if isinstance(asked, list | tuple):
        raise ValueError(
            f"the point {tuple(asked)} means the region there of a segmenter, which this model is none of: pass "
            "classes by number or name, or of a detector BoxTarget((x0, y0, x1, y1))"
        )


def name_of_target(target: Any) -> str:
    """The name of a callable: a function's, of an object what it says of itself, else its class's."""
    says_nothing: bool = getattr(type(target), "__repr__", None) is object.__repr__
    return str(getattr(target, "__name__", type(target).__name__ if says_nothing else repr(target)))

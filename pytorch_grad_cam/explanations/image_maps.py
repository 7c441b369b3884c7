"""The maps of an image, with the picture that they are of and what the model says of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from pytorch_grad_cam.explanations.colours import DIVERGING, blended, colour_table
from pytorch_grad_cam.explanations.panel import Panel
from pytorch_grad_cam.utils.overlays import contoured, flattened, outlined
from pytorch_grad_cam.utils.regions import Box, boxes_of, otsu_mask, outlines_of
from pytorch_grad_cam.zoo.placement import Original, Placement

if TYPE_CHECKING:
    from typing_extensions import Self

_SHOWN = 4  # names in a repr


@dataclass(eq=False, repr=False)  # == of arrays is no single answer
class ImageMaps:
    """The maps of an image: what figures, pages and files are made from. Its fields are those of `Explanation`."""

    title: str
    picture: np.ndarray
    panels: list[Panel]
    logits: np.ndarray
    probabilities: np.ndarray
    names: Sequence[str]
    warnings: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)
    original: Original | None = None
    about: dict[str, str] = field(default_factory=dict)
    truth: str | None = None
    sentence: tuple[str, ...] = ()

    @property
    def is_signed(self) -> bool:
        """Whether maps are differences, in [-1, 1]."""
        return any(panel.map.min(initial=0) < 0 for panel in self.panels)

    @property
    def default_cmap(self) -> str:
        """The colours of overlays where none are named."""
        return DIVERGING if self.is_signed else "jet"

    @property
    def maps(self) -> np.ndarray:
        """The panels' maps, float32 (P, H, W) in [0, 1], signed ones in [-1, 1]."""
        maps = [panel.map for panel in self.panels]
        return np.stack(maps) if maps else np.empty((0, *self._size), np.float32)

    def maps_in_original(self) -> np.ndarray:
        """The panels' maps at the pixels of the original picture, float32 (P, H, W); 0 outside what the model was shown
        of it. Raises ValueError where nobody knows where that is.
        """
        return self._placement.resampled(self.maps)

    def top(self, count: int = 5) -> list[tuple[int, str, float]]:
        """The classes of the highest logits: number, name, probability."""
        highest = np.argsort(-self.logits, kind="stable")[:count].tolist()
        return [(index, self.names[index], float(self.probabilities[index])) for index in highest]

    @property
    def said(self) -> str:
        """The model's answer; of a classifier the name of its highest class."""
        return "".join(self.sentence).strip() if self.sentence else self.top(1)[0][1]

    def __repr__(self) -> str:
        named = {
            "methods": dict.fromkeys(panel.method for panel in self.panels),
            "layers": dict.fromkeys(panel.layer for panel in self.panels if panel.layer),
            "classes": dict.fromkeys(_of_class(panel) for panel in self.panels),
        }
        parts = ", ".join(f"{what} {_some(list(names))}" for what, names in named.items() if names)
        maps = f"{len(self.panels)} maps {' x '.join(map(str, self._size))}"
        return f"{type(self).__name__}({self.title!r}, {maps}: {parts})"

    def __len__(self) -> int:
        return len(self.panels)

    def __iter__(self) -> Iterator[Panel]:
        return iter(self.panels)

    @overload
    def __getitem__(self, which: int) -> Panel: ...
    @overload
    def __getitem__(self, which: slice | str) -> Self: ...
    def __getitem__(self, which: int | slice | str) -> Panel | Self:
        """A panel by its number; by a slice, or a method's, layer's or class's name, the explanation of some panels.

        Raises IndexError for a number and KeyError for a name that no panel has.
        """
        if isinstance(which, int):
            return self.panels[which]
        if isinstance(which, slice):
            return replace(self, panels=self.panels[which])
        found = [panel for panel in self.panels if which in (panel.method, panel.layer, panel.name)]
        if not found:
            raise KeyError(f"no panel has the method, layer or class {which!r}: {self!r}")
        return replace(self, panels=found)

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures and maps, in what JSON knows: of each panel also its boxes."""
        boxes = [[] for _ in self.panels] if len(self._size) != 2 or self.is_signed else self.boxes()
        return {
            "title": self.title,
            "size": list(self._size),
            "original_size": self.original_size and list(self.original_size),
            "top_classes": [{"class": number, "name": name, "probability": p} for number, name, p in self.top()],
            "panels": [
                {
                    **_row(panel),
                    "explained_region": self.outlines(panel),
                    "boxes": of_panel,
                    "boxes_in_original": self.in_original(of_panel),
                }
                for panel, of_panel in zip(self.panels, boxes, strict=True)
            ],
            "warnings": list(self.warnings),
            "assumptions": list(self.assumptions),
            "versions": dict(self.versions),
        }

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each panel: title, method, layer, class, name, probability, boxes.

        Raises ImportError where pandas is not installed.
        """
        from pandas import DataFrame

        return DataFrame([{"title": self.title, **row} for row in self.to_dict()["panels"]])

    def overlay(self, panel: int = 0, image_weight: float = 0.5, *, cmap: str | None = None) -> np.ndarray:
        """The picture with one panel's map over it, uint8 RGB (H, W, 3): of a volume its slices side by side,
        with their numbers, of a signal a strip. A box or a region that the map explains is outlined.

        image_weight: the picture's share, in [0, 1]. cmap: see `colours.colour_table`; None is jet, of signed maps a
        diverging one, from blue (-1) over white (0) to red (1). Raises ValueError for others.
        """
        if not 0 <= image_weight <= 1:
            raise ValueError(f"image_weight is {image_weight}, expected a number in [0, 1]")
        heat = self.panels[panel].map
        shown = (heat + 1) / 2 if self.is_signed else heat
        drawn = blended(self.picture, shown, colour_table(cmap or self.default_cmap), image_weight)
        colours = flattened(drawn, numbered=True)
        region = self.panels[panel].region
        if region is not None:
            colours = contoured(colours, flattened(region[..., None])[..., 0])
        return outlined(colours, [self.seen(each.box) for each in self.panels[panel].boxes])

    def shown(self) -> np.ndarray:
        """The picture in two dimensions, uint8 RGB (H, W, 3), as overlays are."""
        return flattened(self.picture)

    @property
    def _size(self) -> tuple[int, ...]:
        return self.picture.shape[:-1]

    @property
    def original_size(self) -> tuple[int, int] | None:
        """The height and width of the picture before it was preprocessed, upright; None for inputs that were given."""
        return None if self.original is None else self.original.size[::-1]

    def masks(self, method: Literal["otsu"] | float = "otsu", *, in_original: bool = False) -> np.ndarray:
        """The pixels where each map is high, bool (P, H, W): above Otsu's threshold, or not below a given number.

        in_original: in the pixels of the original picture; False outside what the model was shown of it. Raises
        ValueError where nobody knows where that is.
        """
        if method != "otsu" and isinstance(method, str):
            raise ValueError(f"method is {method!r}: pass 'otsu' or a threshold in [0, 1]")
        masks = [otsu_mask(cam_map) if method == "otsu" else cam_map >= method for cam_map in self.maps]
        drawn = [self._placement.drawn(mask) for mask in masks] if in_original else masks
        return np.stack(drawn) if drawn else np.empty((0, *self._size), bool)

    def boxes(self, method: Literal["otsu"] | float = "otsu", *, in_original: bool = False) -> list[list[Box]]:
        """For each panel the boxes (left, top, right, bottom) around the connected regions of its mask.

        in_original: see `masks`.
        """
        boxes = [boxes_of(mask) for mask in self.masks(method)]
        return [[self._placement.box(box) for box in of_panel] for of_panel in boxes] if in_original else boxes

    def in_original(self, boxes: Sequence[Box]) -> list[Box] | None:
        """Boxes of the shown picture in the pixels of the original one; None where nobody knows where they are."""
        placement = None if self.original is None else self.original.placement
        return None if placement is None else [placement.box(box) for box in boxes]

    def outlines(self, panel: Panel) -> list[list[tuple[float, float]]]:
        """The polygons (x, y) around the region that a panel explains, see `regions.outlines_of`, in pixels of the
        original picture; of the shown one where nobody knows where that is. None of what is no region of a picture.
        """
        if panel.region is None or panel.region.ndim != 2:
            return []
        placement = None if self.original is None else self.original.placement
        (factor_x, left), (factor_y, top) = ((1, 0), (1, 0)) if placement is None else (placement.x, placement.y)
        return [[(x * factor_x + left, y * factor_y + top) for x, y in line] for line in outlines_of(panel.region)]

    def seen(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """A box of the original picture in the pixels of the shown one; the same where nobody knows where that is."""
        placement = None if self.original is None else self.original.placement
        left, top, right, bottom = box if placement is None else placement.seen(box)
        return left, top, right, bottom

    @property
    def _placement(self) -> Placement:
        placement = None if self.original is None else self.original.placement
        if placement is None:
            why = (
                "the inputs were given" if self.original is None else "its preprocessing does more than resize and cut"
            )
            raise ValueError(f"nobody knows where in the original picture the model looked: {why}")
        return placement


def _row(panel: Panel) -> dict[str, Any]:
    named = {"method": panel.method, "layer": panel.layer, "class": panel.category, "name": panel.name}
    return {**named, "probability": panel.probability, "explained_boxes": [each._asdict() for each in panel.boxes]}


def _of_class(panel: Panel) -> str:
    return panel.name + ("" if panel.probability is None else f" {panel.probability:.1%}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

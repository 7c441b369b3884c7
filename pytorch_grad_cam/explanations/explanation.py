"""The result of `explain`: the maps of an image, and ways to show them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from pytorch_grad_cam.explanations.data_url import data_url
from pytorch_grad_cam.explanations.report import write_report
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.regions import boxes_of, otsu_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """One map, float32 (H, W) in [0, 1], with its method, layer and target.

    layer: its dotted name; several are joined by ' + '; '' for methods without layers. category, probability: None
    where the target is no class. name: that of the class or the target.
    """

    method: str
    layer: str
    category: int | None
    name: str
    probability: float | None
    map: np.ndarray

    def __str__(self) -> str:
        probability = "" if self.probability is None else f" {self.probability:.1%}"
        return f"{self.name}{probability}, {self.method}{f' at {self.layer}' if self.layer else ''}"


@dataclass(eq=False)  # == of arrays is no single answer
class Explanation:
    """The maps of one image by one or several methods, at one or several layers, for one or several classes.

    picture: uint8 RGB (H, W, 3), what the model was shown. panels: method by method, layer by layer, class by class.
    logits, probabilities: float32 (classes,). names: the classes' names. title: the image's file name. warnings: why
    maps are blank. versions: those of the packages that made it. A notebook shows the overlays.
    """

    title: str
    picture: np.ndarray
    panels: list[Panel]
    logits: np.ndarray
    probabilities: np.ndarray
    names: Sequence[str]
    warnings: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def maps(self) -> np.ndarray:
        """The panels' maps, float32 (P, H, W) in [0, 1]."""
        return np.stack([panel.map for panel in self.panels])

    def top(self, count: int = 5) -> list[tuple[int, str, float]]:
        """The classes of the highest logits: number, name, probability."""
        highest = np.argsort(-self.logits, kind="stable")[:count].tolist()
        return [(index, self.names[index], float(self.probabilities[index])) for index in highest]

    def overlay(self, panel: int = 0, image_weight: float = 0.5) -> np.ndarray:
        """The picture with one panel's map over it, uint8 RGB (H, W, 3)."""
        return show_cam_on_image(self.picture, self.panels[panel].map, use_rgb=True, image_weight=image_weight)

    def masks(self, method: Literal["otsu"] | float = "otsu") -> np.ndarray:
        """The pixels where each map is high, bool (P, H, W): above Otsu's threshold, or not below a given number."""
        if method != "otsu" and isinstance(method, str):
            raise ValueError(f"method is {method!r}: pass 'otsu' or a threshold in [0, 1]")
        return np.stack([otsu_mask(cam_map) if method == "otsu" else cam_map >= method for cam_map in self.maps])

    def boxes(self, method: Literal["otsu"] | float = "otsu") -> list[list[tuple[int, int, int, int]]]:
        """For each panel the boxes (left, top, right, bottom) around the connected regions of its mask."""
        return [boxes_of(mask) for mask in self.masks(method)]

    def grid(self) -> Figure:
        """A matplotlib figure of all overlays, see `figure.comparison_figure`."""
        from pytorch_grad_cam.explanations.figure import comparison_figure

        return comparison_figure(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the overlays as PNG and the maps as `maps.npy` into a folder, which is made; return the files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for index, panel in enumerate(self.panels):
            files.append(folder / f"{index:02d}_{_file_name(panel)}.png")
            Image.fromarray(self.overlay(index)).save(files[-1])
        files.append(folder / "maps.npy")
        np.save(files[-1], self.maps)
        return files

    def report(self, file: str | Path) -> Path:
        """Write a page for the browser and return its path, see `report.write_report`."""
        return write_report([self], file)

    def _repr_html_(self) -> str:
        cells = [
            f'<figure style="display:inline-block;margin:4px"><img alt="{escape(str(panel))}" style="min-width:224px" '
            f'src="{data_url(self.overlay(index), "png")}"><figcaption>{escape(str(panel))}</figcaption></figure>'
            for index, panel in enumerate(self.panels)
        ]
        notes = [f"<p>{escape(warning)}</p>" for warning in self.warnings]
        return f"<div><p><b>{escape(self.title)}</b></p>{''.join(cells + notes)}</div>"


def _file_name(panel: Panel) -> str:
    return "_".join(re.findall(r"[\w.]+", f"{panel.method} {panel.layer} {panel.name}"))[:100]

"""The result of `explain`: the maps of an image, and ways to show them."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.explanations.data_url import data_url
from pytorch_grad_cam.explanations.image_maps import ImageMaps
from pytorch_grad_cam.explanations.panel import Panel as Panel
from pytorch_grad_cam.explanations.panel import TargetBox as TargetBox
from pytorch_grad_cam.explanations.report import write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Explanation(ImageMaps):
    """The maps of one image by one or several methods, at one or several layers, for one or several classes.

    picture: uint8 RGB (H, W, 3), what the model was shown; of signals and volumes (*spatial, 3). panels: method by
    method, layer by layer, class by class. logits, probabilities: float32 (classes,). names: the classes' names.
    title: the image's file name. warnings: why maps are blank. versions: those of the packages that made it.
    assumptions: whose preprocessing, probabilities and names they are, a line each, with '(assumed)' where nobody said
    so. original: the picture before it was preprocessed; None for inputs that were given. about: the model's name, how
    cells are drawn, the day. truth: the name of the right class, where somebody said so. sentence: the words of a
    model's answer, with the spaces between them; they are the classes then. A notebook shows overlays.
    """

    def grid(self, cmap: str | None = None, alpha: float = 0.5, title: str | None = None) -> Figure:
        """A matplotlib figure of all overlays, see `figure.comparison_figure`."""
        with needing("matplotlib", "figures"):
            from pytorch_grad_cam.explanations.figure import comparison_figure

        return comparison_figure({"": self}, cmap, alpha, title)

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

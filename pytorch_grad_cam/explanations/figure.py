"""The figure of explanations: models, methods, layers and classes beside each other."""

from __future__ import annotations

import io
from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from pytorch_grad_cam.explanations.colours import colour_table

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.image_maps import ImageMaps
    from pytorch_grad_cam.explanations.panel import Panel

_INCHES = 2.2  # of a column
_FONT, _SMALL_FONT = 8, 6  # points
_POINTS, _LINE = 72, 1.6  # points in an inch; the height of a line, with some room, in those of its letters
_CHARACTERS = 110  # of one point that stand in an inch; a letter of DejaVu Sans is 0.65 points wide and more
_TRUETYPE = 42  # journals refuse matplotlib's default, Type 3


class ShownFigure(Figure):
    """A figure that notebooks show, without pyplot and its state. In PDFs its text is text, in fonts journals take."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """As matplotlib's."""
        with rc_context({"pdf.fonttype": _TRUETYPE, "ps.fonttype": _TRUETYPE}):
            super().savefig(*arguments, **options)

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=80)
        return picture.getvalue()


def comparison_figure(
    explanations: Mapping[str, ImageMaps], cmap: str | None = None, alpha: float = 0.5, title: str | None = None
) -> Figure:
    """The overlays of explanations of one picture, by the names of their models, in a grid.

    A column for each class with its probability and a row for each model, method and layer; of one class alone a column
    for each layer. What was assumed stands below. cmap, alpha: see `Explanation.overlay`. title: None is the image's.
    Raises ValueError where there are no maps.
    """
    if not any(found.panels for found in explanations.values()):
        why = dict.fromkeys(warning for found in explanations.values() for warning in found.warnings)
        raise ValueError(": ".join(["there are no maps to draw", *why]))
    cells = [(name, found, index) for name, found in explanations.items() for index in range(len(found.panels))]
    first = next(iter(explanations.values()))
    layers = {panel.layer for found in explanations.values() for panel in found.panels}
    by_layer = len(layers) > 1 and all(
        len({_class_of(panel) for panel in f.panels}) == 1 for f in explanations.values()
    )
    rows: dict[str, list[tuple[ImageMaps, int]]] = {}
    for name, found, index in cells:
        panel = found.panels[index]
        label = "\n".join(filter(None, (name, panel.method, "" if by_layer else panel.layer)))
        rows.setdefault(label, []).append((found, index))
    columns = max(map(len, rows.values()))
    shape = first.shown().shape
    height = max(_INCHES * shape[0] / shape[1], *(_length_of(label) for label in rows))
    caption = fill("; ".join(dict.fromkeys(_assumptions(explanations))), _fitting(_INCHES * (columns + 1), _SMALL_FONT))
    beside = max(label.count("\n") + 1 for label in rows) * _FONT * _LINE / _POINTS
    size = (_INCHES * (columns + 1) + beside + 1.6, height * len(rows) + 0.5 + 0.12 * caption.count("\n"))
    figure = ShownFigure(figsize=size, dpi=150)
    figure.set_layout_engine("constrained", h_pad=0.01, hspace=0.01)
    FigureCanvasAgg(figure)
    widths = [1, beside / _INCHES, *[1] * columns]  # the picture, the rows' labels, the maps
    grid = figure.subplots(len(rows), columns + 2, squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].imshow(first.shown())
    _title(grid[0, 0], first.title if title is None else title)
    for row, (label, panels) in enumerate(rows.items()):
        grid[row, 1].text(0.5, 0.5, label, fontsize=_FONT, parse_math=False, rotation=90, ha="center", va="center")
        for axes, (found, index) in zip(grid[row, 2:], panels, strict=False):
            axes.imshow(found.overlay(index, 1 - alpha, cmap=cmap))
            panel = found.panels[index]
            above = _described(panel) + (f"\n{panel.layer}" if by_layer else "")
            _title(axes, above if row == 0 or len(explanations) > 1 else "")
    figure.supxlabel(caption, fontsize=_SMALL_FONT, parse_math=False)
    colours = ListedColormap(alpha * colour_table(cmap or first.default_cmap) / 255 + 1 - alpha)  # as over white
    lowest = -1 if first.is_signed else 0
    scale = ScalarMappable(Normalize(lowest, 1), colours)
    bar = figure.colorbar(scale, ax=grid, shrink=0.6, label=f"evidence, from {lowest} to 1")
    bar.ax.tick_params(labelsize=_FONT)
    return figure


def _assumptions(explanations: Mapping[str, ImageMaps]) -> list[str]:
    """The assumptions, those that are not of all models with the model's name."""
    common = set.intersection(*({*found.assumptions} for found in explanations.values()))
    return [
        line if line in common else f"{name}: {line}"
        for name, found in explanations.items()
        for line in found.assumptions
    ]


def _title(axes: Any, text: str) -> None:
    wrapped = "\n".join(fill(line, _fitting(_INCHES, _FONT)) for line in text.splitlines())
    axes.set_title(wrapped, fontsize=_FONT, parse_math=False)


def _fitting(inches: float, font: int) -> int:
    """How many characters fit into a line."""
    return int(inches * _CHARACTERS / font)


def _length_of(label: str) -> float:
    """Inches that the longest line of a label takes."""
    return max(map(len, label.splitlines())) * _FONT / _CHARACTERS


def _class_of(panel: Panel) -> tuple[int | None, str]:
    return panel.category, panel.name


def _described(panel: Panel) -> str:
    number = "" if panel.category is None or panel.name == str(panel.category) else f" ({panel.category})"
    return f"{panel.name}{number}" + ("" if panel.probability is None else f" {panel.probability:.1%}")

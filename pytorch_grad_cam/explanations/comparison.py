"""Methods, layers and classes beside each other in one picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from pytorch_grad_cam.explanations.explaining import explain

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.explanation import Explanation, Panel

_INCHES = 2.2  # the width of a picture


class ShownFigure(Figure):
    """A figure that notebooks show, without pyplot and its state."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=80)
        return picture.getvalue()


def compare(model: Any, image: Any, methods: Any = ("gradcam", "layercam", "eigencam"), **options: Any) -> Figure:
    """A matplotlib figure of the maps of one image by several methods, for several classes, at several layers.

    Takes what `explain` takes. `figure.savefig("comparison.pdf")` writes it.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net
    >>> figure = compare(load_digits_net(), example_scene(), ["gradcam", "layercam"], targets=[5, 7])
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['5 (5) 100.0%', '7 (7) 100.0%']
    """
    return comparison_figure(explain(model, image, methods, **options))


def comparison_figure(explanation: Explanation) -> Figure:
    """A figure of the overlays: a column for each class with its probability, a row for each method and layer."""
    rows: dict[str, list[int]] = {}
    for index, panel in enumerate(explanation.panels):
        rows.setdefault("\n".join(filter(None, (panel.method, panel.layer))), []).append(index)
    columns = max(map(len, rows.values()))
    height, width = explanation.picture.shape[:2]
    size = (_INCHES * (columns + 1) + 1.6, _INCHES * len(rows) * height / width + 0.5)
    figure = ShownFigure(figsize=size, dpi=150)
    figure.set_layout_engine("constrained", h_pad=0.01, hspace=0.01)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].imshow(explanation.picture)
    grid[0, 0].set_title(explanation.title, fontsize=8, parse_math=False)
    for row, (label, panels) in enumerate(rows.items()):
        grid[row, 1].annotate(
            label, (-0.04, 0.5), xycoords="axes fraction", rotation=90, ha="right", va="center", parse_math=False
        )
        for axes, index in zip(grid[row, 1:], panels, strict=False):
            axes.imshow(explanation.overlay(index))
            axes.set_title(_title(explanation.panels[index]) if row == 0 else "", fontsize=8, parse_math=False)
    figure.colorbar(ScalarMappable(cmap="jet"), ax=grid, shrink=0.6, label="evidence, from 0 to 1")
    return figure


def _title(panel: Panel) -> str:
    number = "" if panel.category is None else f" ({panel.category})"
    return f"{panel.name}{number}" + ("" if panel.probability is None else f" {panel.probability:.1%}")

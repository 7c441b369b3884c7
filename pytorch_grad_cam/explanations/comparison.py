"""Methods, layers and classes beside each other in one picture."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from pytorch_grad_cam.explanations.explaining import explain
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.figure import comparison_figure


def compare(
    model: Any,
    image: Any,
    methods: Any = ("gradcam", "layercam", "eigencam"),
    *,
    cmap: str | None = None,
    alpha: float = 0.5,
    title: str | None = None,
    **options: Any,
) -> Figure:
    """A figure of the maps of one image by several methods, for several classes, at several layers, of several models.

    model: one, or a mapping of names to models. Takes what `explaining.explain` takes. cmap, alpha (the map's share of
    the blend), title: of the figure. Returns a matplotlib figure: `figure.savefig("comparison.pdf")`. Raises what
    `explain` raises, and ValueError for several images.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net
    >>> figure = compare(load_digits_net(), example_scene(), ["gradcam", "layercam"], targets=[5, 7])
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['5 100.0%', '7 100.0%']
    """
    models = model if isinstance(model, Mapping) else {"": model}
    explanations = {name: explain(each, image, methods, **options) for name, each in models.items()}
    if not all(isinstance(explanation, Explanation) for explanation in explanations.values()):
        raise ValueError("compare makes a figure of one image: of several, call it for each, or write_report")
    return comparison_figure(explanations, cmap, alpha, title)

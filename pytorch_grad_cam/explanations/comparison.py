"""Methods, layers and classes beside each other in one picture."""

from typing import Any

from matplotlib.figure import Figure

from pytorch_grad_cam.explanations.explaining import explain
from pytorch_grad_cam.explanations.figure import comparison_figure


def compare(model: Any, image: Any, methods: Any = ("gradcam", "layercam", "eigencam"), **options: Any) -> Figure:
    """A figure of the maps of one image by several methods, for several classes, at several layers.

    Takes what `explaining.explain` takes. Returns a matplotlib figure: `figure.savefig("comparison.pdf")`.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net
    >>> figure = compare(load_digits_net(), example_scene(), ["gradcam", "layercam"], targets=[5, 7])
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['5 (5) 100.0%', '7 (7) 100.0%']
    """
    return comparison_figure(explain(model, image, methods, **options))

"""Methods, layers and classes beside each other in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.explanations.explaining import explain
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.methods import SIDE_BY_SIDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

    from pytorch_grad_cam.explanations.typed import File, Layers, Method, Model, OneImage, Options, Target


def compare(
    model: Model | Mapping[str, Model],
    image: OneImage | File | np.ndarray | torch.Tensor,
    methods: Method | Sequence[Method] | None = None,
    targets: Target | Sequence[Target] | Mapping[str, Target] | None = None,
    layers: Layers | None = None,
    *,
    cmap: str | None = None,
    alpha: float = 0.5,
    title: str | None = None,
    **options: Unpack[Options],
) -> Figure:
    """A figure of the maps of one image by several methods, for several classes, at several layers, of several models.

    model: one, or a mapping of names to models. methods: None is GradCAM, LayerCAM and EigenCAM, of a detector LayerCAM
    and HiResCAM. Takes what `explaining.explain` takes. cmap, alpha (the map's share of
    the blend), title: of the figure. Returns a matplotlib figure: `figure.savefig("comparison.pdf")`. Raises what
    `explain` raises, and ValueError for several images.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net
    >>> figure = compare(load_digits_net(), example_scene(), ["gradcam", "layercam"], targets=[5, 7])
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['5 100.0%', '7 100.0%']
    """
    with needing("matplotlib", "figures"):
        from pytorch_grad_cam.explanations.figure import comparison_figure

    models = model if isinstance(model, Mapping) else {"": model}
    pictured: Any = image  # of any form: which of `explain`'s it is need not be known here
    asked: Any = SIDE_BY_SIDE if methods is None else methods
    explanations = {name: explain(each, pictured, asked, targets, layers, **options) for name, each in models.items()}
    if not all(isinstance(explanation, Explanation) for explanation in explanations.values()):
        raise ValueError("compare makes a figure of one image: of several, call it for each, or write_report")
    return comparison_figure(explanations, cmap, alpha, title)

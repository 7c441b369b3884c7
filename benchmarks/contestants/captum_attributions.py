"""captum 0.9: its attributions to a layer, summed over the channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import GuidedGradCam, LayerGradCam, LayerGradientXActivation
from networks import Work

METHODS = ("GradCAM", "HiResCAM", "GuidedGradCAM")
CLASSES = 5


@contextmanager
def maps_by(method: str, work: Work) -> Iterator[Callable[[], Any]]:
    """captum knows no tokens: of ViTs it gives one value a channel."""
    layer = work.model.get_submodule(work.network.layers[0])
    images, categories = work.images, work.categories
    if method == "GuidedGradCAM":
        guided = GuidedGradCam(work.model, layer)
        mode = "bilinear" if images.ndim == 4 else "trilinear"
        yield lambda: guided.attribute(images, categories, interpolate_mode=mode)
    elif method == "HiResCAM":
        products = LayerGradientXActivation(work.model, layer)
        yield lambda: products.attribute(images, categories).sum(1).relu()
    else:
        cam = LayerGradCam(work.model, layer)
        yield lambda: cam.attribute(images, categories, relu_attributions=True)[:, 0]


@contextmanager
def _several_classes(work: Work) -> Iterator[Callable[[], Any]]:
    cam = LayerGradCam(work.model, work.model.get_submodule(work.network.layers[0]))

    def maps(category: int) -> torch.Tensor:
        return cam.attribute(work.images, [category] * len(work.images), relu_attributions=True)

    yield lambda: [maps(category) for category in range(CLASSES)]


TASKS: dict[str, Callable] = {"GradCAM, 5 classes": _several_classes}

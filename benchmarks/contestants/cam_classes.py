"""This library and grad-cam 1.5.7, by the same calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from networks import Work

import pytorch_grad_cam
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

_NAMES = (
    "GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "ShapleyCAM", "EigenCAM",
    "EigenGradCAM", "SegEigenCAM", "KPCA_CAM", "FEM", "RandomCAM", "FinerCAM", "RefineCAM", "PathCAM",
    "FullGrad", "GuidedGradCAM", "AblationCAM", "ScoreCAM", "SESS", "CAM", "SSGradCAM", "ODAM", "LIFTCAM", "ReciproCAM",
    "LayerIntegratedGradients", "SmoothGradCAMPlusPlus", "GScoreCAM", "GroupCAM", "ISCAM", "SSCAM",
)  # fmt: skip
_OF_FUNCTIONS = ("GuidedGradCAM",)
METHODS = tuple(name for name in _NAMES if name in _OF_FUNCTIONS or hasattr(pytorch_grad_cam, name))
TWO_LAYERS = ("RefineCAM",)
NO_LAYERS = ("FullGrad",)
CLASSES = 5
REGISTERED_BY = 32  # images, without their labels


@contextmanager
def maps_by(method: str, work: Work, **options: Any) -> Iterator[Callable[[], Any]]:
    """A call that gives the maps of the images, after everything that is done once; options of the constructor."""
    layers = work.network.layers[: 2 if method in TWO_LAYERS else 0 if method in NO_LAYERS else 1]
    if method == "GuidedGradCAM":
        with cam_of("GradCAM", work, layers, **options) as cam:
            yield partial(_guided, cam, work)
    else:
        with cam_of(method, work, layers, **options) as cam:
            yield partial(_call, cam, work.images, work.categories)


@contextmanager
def cam_of(method: str, work: Work, layers: list[str], **options: Any) -> Iterator[Any]:
    modules = [work.model.get_submodule(layer) for layer in layers]
    if options.get("align") == "receptive_field":
        for module in modules:
            pytorch_grad_cam.registration_of(work.model, module, work.images[:REGISTERED_BY], work.network.as_map)
    if method == "AblationCAM" and work.network.as_map:
        options["ablation_layer"] = pytorch_grad_cam.AblationLayerVit()
    cam_class = getattr(pytorch_grad_cam, method)
    with cam_class(work.model, modules, reshape_transform=work.network.as_map, **options) as cam:
        if not _is_here():
            cam.batch_size = 32  # what its README says; here the default is made for the device
        yield cam


def _call(cam: Any, images: Any, categories: list[int], **options: Any) -> Any:
    options = options if not _is_here() else {**options, "as_tensor": True}
    return cam(images, [ClassifierOutputTarget(category) for category in categories], **options)


def _guided(cam: Any, work: Work) -> Any:
    """Guided Grad-CAM: guided backpropagation times the map, the images one by one (1.5.7 takes no others)."""
    guided = pytorch_grad_cam.GuidedBackpropReLUModel(work.model, device=work.images.device)
    maps = _call(cam, work.images, work.categories)
    gradients = [
        np.moveaxis(guided(work.images[i : i + 1], category), -1, 0) for i, category in enumerate(work.categories)
    ]
    return [each * gradient for each, gradient in zip(maps, gradients, strict=True)]


def _is_here() -> bool:
    return hasattr(pytorch_grad_cam, "__version__")


@contextmanager
def _task(method: str, layers: int | str, work: Work, **options: Any) -> Iterator[Callable[[], Any]]:
    names = [layers] if isinstance(layers, str) else work.network.layers[:layers]
    with cam_of(method, work, names) as cam:
        yield partial(_call, cam, work.images, work.categories, **options)


@contextmanager
def _several_classes(work: Work) -> Iterator[Callable[[], Any]]:
    with cam_of("GradCAM", work, work.network.layers[:1]) as cam:
        if _is_here():
            yield lambda: cam(work.images, [list(range(CLASSES))] * len(work.images), as_tensor=True)
        else:
            yield lambda: [_call(cam, work.images, [category] * len(work.images)) for category in range(CLASSES)]


@contextmanager
def _road(work: Work) -> Iterator[Callable[[], Any]]:
    targets = [ClassifierOutputTarget(category) for category in work.categories]
    with cam_of("GradCAM", work, work.network.layers[:1]) as cam:
        maps = cam(work.images, targets)
    yield lambda: ROADCombined(percentiles=[20, 40, 60, 80])(work.images, maps, targets, work.model)


# More than one map an image, or a layer of another size; by what the README calls them.
TASKS: dict[str, Callable] = {
    "GradCAM, aug_smooth": partial(_task, "GradCAM", 1, aug_smooth=True),
    "GradCAM, eigen_smooth": partial(_task, "GradCAM", 1, eigen_smooth=True),
    "GradCAM, 2 layers": partial(_task, "GradCAM", 2),
    "GradCAM, 5 layers": partial(_task, "GradCAM", 5),
    "GradCAM, 5 classes": _several_classes,
    "EigenCAM, 256 x 56 x 56": partial(_task, "EigenCAM", "layer1"),
    "EigenGradCAM, 256 x 56 x 56": partial(_task, "EigenGradCAM", "layer1"),
    "ROADCombined, 4 percentiles": _road,
    "AblationCAM, layer3": partial(_task, "AblationCAM", "layer3"),
}

"""torch-cam 0.5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from networks import Work
from torchcam import methods

CLASS_OF = {
    "CAM": "CAM", "GradCAM": "GradCAM", "GradCAMPlusPlus": "GradCAMpp", "SmoothGradCAMPlusPlus": "SmoothGradCAMpp",
    "XGradCAM": "XGradCAM", "LayerCAM": "LayerCAM", "FinerCAM": "FinerCAM", "RefineCAM": "RefineCAM",
    "ScoreCAM": "ScoreCAM", "SSCAM": "SSCAM", "ISCAM": "ISCAM",
}  # fmt: skip
METHODS = tuple(CLASS_OF)
TWO_LAYERS = ("RefineCAM",)
CLASSES = 5


@contextmanager
def maps_by(method: str, work: Work) -> Iterator[Callable[[], Any]]:
    with cam_of(method, work, work.network.layers[: 2 if method in TWO_LAYERS else 1]) as cam:
        yield partial(_call, cam, work)


@contextmanager
def cam_of(method: str, work: Work, layers: list[str]) -> Iterator[Any]:
    cam_class = getattr(methods, CLASS_OF[method])
    with cam_class(work.model, layers, reshape_transform=work.network.as_map) as cam:
        yield cam


def _call(cam: Any, work: Work) -> torch.Tensor:
    """As its users write it: a forward of theirs, the extractor, the layers fused."""
    with torch.set_grad_enabled(True):
        scores = work.model(work.images)
        return cam.fuse_cams(cam(work.categories, scores))


@contextmanager
def _layers(count: int, work: Work) -> Iterator[Callable[[], Any]]:
    with cam_of("GradCAM", work, work.network.layers[:count]) as cam:
        yield partial(_call, cam, work)


@contextmanager
def _several_classes(work: Work) -> Iterator[Callable[[], Any]]:
    def maps(cam: Any) -> list:
        scores = work.model(work.images)
        return [cam([category] * len(work.images), scores, retain_graph=True)[0] for category in range(CLASSES)]

    with cam_of("GradCAM", work, work.network.layers[:1]) as cam:
        yield partial(maps, cam)


TASKS: dict[str, Callable] = {
    "GradCAM, 2 layers": partial(_layers, 2),
    "GradCAM, 5 layers": partial(_layers, 5),
    "GradCAM, 5 classes": _several_classes,
}

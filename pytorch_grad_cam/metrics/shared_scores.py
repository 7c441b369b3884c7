"""Metrics that are made of scores of perturbed images: several of them ask for theirs in shared batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import call, on_device_of
from pytorch_grad_cam.engine.targets import Target, Targets, scores_in, scores_of_lists, target_lists
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.metrics.perturbation_confidence import Versions, maps_of, scores_of_versions


class AskedInCommon(Protocol):
    """What `scored_in_common` takes: ROAD, drop and increase in confidence, and every ScoreMetric."""

    def versions(self, images: torch.Tensor, maps: torch.Tensor) -> Versions:
        """The perturbed versions of images (N, C, *spatial) by maps (R, *spatial); row r is of image r modulo N."""

    def of_scores(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The metric (R,) of the scores (R,) of the images and (versions, R) of their versions."""


class ScoreMetric(ABC):
    """A metric of the scores of the images and of perturbed versions of them."""

    @abstractmethod
    def versions(self, images: torch.Tensor, maps: torch.Tensor) -> Versions:
        """The perturbed versions of images (N, C, *spatial) by maps (R, *spatial); row r is of image r modulo N."""

    @abstractmethod
    def of_scores(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The metric (R,) of the scores (R,) of the images and (versions, R) of their versions."""

    def __call__(
        self, input_tensor: torch.Tensor, cams: np.ndarray | torch.Tensor, targets: Targets, model: nn.Module
    ) -> np.ndarray:
        """One number a map: float32 (N,), or (N, K) for maps (N, K, *spatial) of K targets an image.

        targets: as those of a CAM; classes that are not given are those of the unchanged images. Raises ValueError for
        maps that are not finite or not of the images' number and size. Cost: a forward of each image and of each
        version of it, in shared batches.
        """
        (found,) = scored_in_common([self], input_tensor, cams, targets, model)
        of_maps: np.ndarray = found.cpu().numpy()
        return of_maps


def scored_in_common(
    metrics: Sequence[AskedInCommon],
    input_tensor: torch.Tensor,
    cams: np.ndarray | torch.Tensor,
    targets: Targets,
    model: nn.Module,
) -> list[torch.Tensor]:
    """What each metric gives, as if it were called alone: float32 (N,), of K targets an image (N, K).

    The unchanged images are scored once for all metrics and all targets, and the perturbed ones of all metrics in
    batches of `engine.chunks.images_at_a_time`, made when their turn comes. Arguments and errors are those of
    `ScoreMetric.__call__`. Cost: 1 + the sum of the metrics' versions forwards of each image.
    """
    unchanged = scored_unchanged(input_tensor, cams, targets, model)
    versions = [metric.versions(input_tensor, unchanged.maps) for metric in metrics]
    after = scores_of_versions(model, versions, input_tensor.device, unchanged.targets)
    parts = after.split([each.times for each in versions])
    numbers = [metric.of_scores(unchanged.scores, part).float() for metric, part in zip(metrics, parts, strict=True)]
    if not unchanged.are_several:
        return numbers
    return [each.unflatten(0, (-1, len(input_tensor))).T for each in numbers]


class Unchanged(NamedTuple):
    """What is known before anything is perturbed, a row for each map: all images of each target list.

    scores: (R,) of the images. targets: one a row. maps: (R, *spatial). are_several: whether K an image were asked for.
    """

    scores: torch.Tensor
    targets: list[Target]
    maps: torch.Tensor
    are_several: bool


def scored_unchanged(
    images: torch.Tensor, cams: np.ndarray | torch.Tensor, targets: Targets, model: nn.Module
) -> Unchanged:
    """The images' scores, targets and maps, row by row. Cost: one forward of each image."""
    with undisturbed(model), torch.no_grad():
        outputs = scores_in(call(model, on_device_of(model, images)))
        lists, are_several = target_lists(targets, outputs, image_shape=images.shape)
        scores = scores_of_lists(outputs, lists).float().flatten()
    rows = [target for target_list in lists for target in target_list]
    if not are_several:
        return Unchanged(scores, rows, maps_of(images, cams), False)
    maps = torch.as_tensor(cams)
    expected = (len(images), len(lists), *images.shape[2:])
    if maps.shape != expected:
        raise ValueError(
            f"the maps have shape {tuple(maps.shape)}, expected {expected} for {len(lists)} targets an image"
        )
    return Unchanged(scores, rows, torch.cat([maps_of(images, of_list) for of_list in maps.unbind(1)]), True)

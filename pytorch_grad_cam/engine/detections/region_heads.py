"""Masks and keypoints of torchvision's two-stage detectors: computed of the one box that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from pytorch_grad_cam.engine.detections.predictions import Predictions


class Regions(NamedTuple):
    """What a head reads of one image: maps (1, C, h, w) of its features, and its boxes in pixels of what was shown.

    heads: the module that has the heads, torchvision's `RoIHeads`.
    """

    features: Mapping[str, torch.Tensor]
    shown: tuple[int, int]
    boxes: torch.Tensor
    heads: Any

    def read(self, row: torch.Tensor, kind: str) -> torch.Tensor:
        """What the head of this kind, 'mask' or 'keypoint', says of a box: (M, h, w). row: a number (1,)."""
        pool, head, predictor = (getattr(self.heads, f"{kind}_{part}") for part in ("roi_pool", "head", "predictor"))
        box = self.boxes.detach().index_select(0, row)
        maps: torch.Tensor = predictor(head(pool(self.features, [box], [self.shown])))[0]
        return maps


class RegionMasks(NamedTuple):
    """Mask R-CNN's masks. labels: (P,), the class whose mask is that of the box."""

    regions: Regions
    labels: torch.Tensor

    @property
    def of_box(self) -> bool:
        return True

    def of(self, row: torch.Tensor) -> torch.Tensor:
        """The logits (h, w) of one prediction, within its box."""
        return self.regions.read(row, "mask").index_select(0, self.labels[row])[0]


class RegionKeypoints(NamedTuple):
    """Keypoint R-CNN's keypoints."""

    regions: Regions

    def of(self, row: torch.Tensor) -> torch.Tensor:
        """The score (K,) of each keypoint of one prediction: the highest logit of where it may be."""
        return self.regions.read(row, "keypoint").flatten(1).amax(1)


def with_region_heads(raw: Predictions, heads: Any, sample: int, called_with: tuple[Any, ...]) -> Predictions:
    """The raw predictions of a sample with the masks and the keypoints that its detector has heads for.

    called_with: the arguments of the module with the heads: the features and, third, the sizes of the images.
    """
    kinds = [kind for kind in ("mask", "keypoint") if getattr(heads, f"{kind}_roi_pool", None) is not None]
    if not kinds:
        return raw
    features, _, sizes, *_ = called_with
    of_sample = {name: maps[sample : sample + 1] for name, maps in features.items()}
    regions = Regions(of_sample, sizes[sample], raw.boxes, heads)
    return raw._replace(
        masks=RegionMasks(regions, raw.labels[:, 0]) if "mask" in kinds else None,
        keypoints=RegionKeypoints(regions) if "keypoint" in kinds else None,
    )

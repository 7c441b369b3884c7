"""MaxBoxAccV2, the measure of weakly supervised localisation (Choe et al. 2020 and 2022, arXiv:2007.04178)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.metrics.ground_truth import Maps, Truth, boxes_in, finite_maps
from pytorch_grad_cam.utils.regions import boxes_of


class MaxBoxAccV2:
    """Whether a box around a region of the map's upper part is the object's: the mean over how alike they must be.

    thresholds: for each least intersection over union (IoU) that counts, the least value of the upper part of a map
    scaled from 0 to 1, both above 0 and at most 1. `chosen_on` finds the best ones on other images, as the paper does;
    chosen on the same images they flatter the map.
    Raises ValueError for none and for others.
    Paper: Choe et al. 2022, https://arxiv.org/abs/2007.04178.
    """

    def __init__(self, thresholds: Mapping[float, float]) -> None:
        numbers = [*thresholds.keys(), *thresholds.values()]
        if not numbers or not all(0 < number <= 1 for number in numbers):
            raise ValueError(f"thresholds are {dict(thresholds)}, expected some such as {{0.5: 0.3}}, all in (0, 1]")
        self.thresholds = dict(thresholds)

    @classmethod
    def chosen_on(
        cls, maps: Maps, truth: Truth, overlaps: Sequence[float] = (0.3, 0.5, 0.7), candidates: int = 100
    ) -> MaxBoxAccV2:
        """With the thresholds that are best on these images, for each IoU the lowest of the best.

        candidates: how many are tried, evenly from 1 / candidates to 1. (The paper's code tries 1,000 from 0, of maps
        in 256 levels.) Cost: that of a call for each.
        """
        if candidates < 1:
            raise ValueError(f"candidates is {candidates}, expected at least 1")
        tried = np.arange(1, candidates + 1) / candidates
        found = best_overlaps(maps, truth, tried)
        best = {overlap: float(tried[(found >= overlap).mean(1).argmax()]) for overlap in overlaps}
        return cls(best)

    def __call__(self, maps: Maps, truth: Truth) -> torch.Tensor:
        """For each of the maps (N, H, W) the share of the IoUs that is reached: float32 (N,) from 0 to 1, the higher
        the better.

        Each connected region has a box, and the one that is most like a true box counts. truth: see
        `ground_truth.masks_of`; of a mask it is the box around it. A constant map has no region and gets 0.
        Raises ValueError for maps that are not (N, H, W), are not finite, or where an image has no object.
        Cost: the maps and boxes come to the host once, for PyTorch has no operation that finds connected regions; there
        OpenCV finds those of each map for each threshold, one after the other.
        """
        overlaps = np.array([*self.thresholds])
        found = best_overlaps(maps, truth, np.array([*self.thresholds.values()]))
        reached = (found >= overlaps[:, None]).mean(0)
        return torch.from_numpy(reached).to(torch.as_tensor(maps).device, torch.float32)


def best_overlaps(maps: Maps, truth: Truth, thresholds: np.ndarray) -> np.ndarray:
    """The IoU of the best box of each map at each threshold: float64 (thresholds, N)."""
    found = finite_maps(maps)
    if found.ndim != 3:
        raise ValueError(f"the maps have shape {tuple(found.shape)}, expected (N, H, W): boxes are of pictures")
    scaled = min_max(found).cpu().numpy()
    return np.array(
        [
            [_best_overlap(cam >= threshold, boxes) for threshold in thresholds]
            for cam, boxes in zip(scaled, boxes_in(truth, found), strict=True)
        ]
    ).T


def _best_overlap(upper: np.ndarray, boxes: np.ndarray) -> float:
    found = np.array(boxes_of(upper), dtype=np.float64).reshape(-1, 1, 4)
    sides = np.minimum(found[..., 2:], boxes[:, 2:]) - np.maximum(found[..., :2], boxes[:, :2])
    common = sides.clip(min=0).prod(-1)
    union = (found[..., 2:] - found[..., :2]).prod(-1) + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - common
    return float((common / union).max(initial=0))

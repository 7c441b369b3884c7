"""Maps that look at no model: what a method must beat, and the ceiling where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.metrics.ground_truth import Truth, masks_of

# Of each side: the middle half of a photograph has most objects, and nine tenths of this Gaussian.
_SPREAD = 1 / 6
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def baseline_maps(
    images: torch.Tensor, positions: Sequence[int], truth: Truth | None, seed: int
) -> dict[str, torch.Tensor]:
    """Maps (N, *spatial) in [0, 1] of images (N, C, *spatial), by the name of the baseline.

    'random map': noise, of each image by its position and the seed. 'centre Gaussian'. 'edge detector': Sobel's
    gradient of the mean over the channels, of pictures. 'ground truth': masks, where the truth is known.
    """
    maps = {"random map": _noise(images, positions, seed), "centre Gaussian": _centre(images)}
    if images.ndim == 4:
        maps["edge detector"] = _edges(images)
    if truth is not None:
        maps["ground truth"] = masks_of(truth, images[:, 0]).float()
    return maps


def _noise(images: torch.Tensor, positions: Sequence[int], seed: int) -> torch.Tensor:
    draws = [np.random.default_rng((seed, each)).random(images.shape[2:], dtype=np.float32) for each in positions]
    return torch.from_numpy(np.stack(draws)).to(images.device)


def _centre(images: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(images.shape[2:], device=images.device)
    for axis, length in enumerate(images.shape[2:]):
        places = torch.arange(length, device=images.device) - (length - 1) / 2
        of_axis = (places / (_SPREAD * length)).square()
        total = total + of_axis.reshape(-1, *[1] * (total.ndim - 1 - axis))
    return min_max((-total / 2).exp()[None]).expand(len(images), *images.shape[2:])


def _edges(images: torch.Tensor) -> torch.Tensor:
    grey = F.pad(images.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor(_SOBEL, device=images.device)
    across, down = F.conv2d(grey, torch.stack([kernel, kernel.T])[:, None]).unbind(1)
    return min_max(across.hypot(down))

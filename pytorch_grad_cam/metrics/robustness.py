"""Does a map stay when the image hardly changes, and does it say by how much the score changes?

`cam` is an object that makes maps, called as `cam(input_tensor=..., targets=...)`. Targets are those of a CAM, one an
image; classes that are not given are those of the unchanged images. All return float32 (N,), and nothing changes with
the order of the images. Raise ValueError for maps that are not finite or not of the images' number and size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.metrics.ground_truth import Maps, finite_maps
from pytorch_grad_cam.metrics.perturbation_confidence import (
    Versions,
    clean_scores,
    maps_of,
    scores_of_versions,
)
from pytorch_grad_cam.metrics.similarity import Similarity, similarity

_REPLICATED = 2  # torch pads the border of images, of two spatial axes, here


def max_sensitivity(
    cam: Callable[..., Any],
    images: torch.Tensor,
    targets: Targets,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> torch.Tensor:
    r"""The most that a map changes within a small neighbourhood of the image. Lower is better.

    $\max_{\|\epsilon\|_\infty \le r} \|L(x + \epsilon) - L(x)\| / \|L(x)\|$ (Yeh et al. 2019, definition 3,
    arXiv:1901.09392), the largest of `samples` uniform draws, from 0. As captum and Quantus it divides by the norm of
    the map, of which the paper says nothing, so that the map's scale makes no difference; of a blank map by 1.
    radius: in the units of the images. The draws are the same for every image.
    Raises ValueError for fewer than one sample. Cost: 1 + samples calls of cam, and a forward.
    """
    targets = _resolved(cam, images, targets)
    maps = _made(cam, images, targets)
    norms = maps.flatten(1).norm(dim=1)
    norms = torch.where(norms == 0, 1, norms)
    largest = torch.zeros_like(norms)
    for uniform in _draws(torch.rand, images, samples, seed):
        changed = _made(cam, images + radius * (2 * uniform - 1), targets)
        largest = largest.maximum((changed - maps).flatten(1).norm(dim=1) / norms)
    return largest.float()


def infidelity(
    model: nn.Module,
    images: torch.Tensor,
    cams: Maps,
    targets: Targets,
    noise: float = 0.2,
    samples: int = 32,
    seed: int = 0,
    normalise: bool = True,
) -> torch.Tensor:
    r"""How far the map is from saying by how much the score falls when the image changes. From 0, lower is better.

    $E_I[(\beta\, I^\top L - (f(x) - f(x - I)))^2]$ (Yeh et al. 2019, definition 1, arXiv:1901.09392), the mean over
    `samples` draws of Gaussian I with standard deviation `noise`, in the units of the images, the same for every image.
    A map has the same value for all channels of a pixel. normalise: the $\beta$ that makes it smallest, as in the
    authors' code and captum, so that the map's scale makes no difference; False takes 1. A blank map has
    $E[(f(x) - f(x - I))^2]$.
    Raises ValueError for fewer than one sample. Cost: 1 + samples forwards of each image, in shared batches.
    """
    maps = maps_of(images, cams).to(images)
    before, resolved = clean_scores(model, images, targets)
    perturbations = torch.stack([noise * draw for draw in _draws(torch.randn, images, samples, seed)])
    versions = Versions(samples, lambda which, rows: images[rows] - perturbations[which])
    falls = before - scores_of_versions(model, [versions], images.device, resolved)
    said = (perturbations.sum(1).flatten(1) @ maps.flatten(1).T).to(falls)
    if normalise:
        squares = said.square().sum(0)
        said = said * ((said * falls).sum(0) / squares.masked_fill(squares == 0, 1))
    return (said - falls).square().mean(0).float()


def flip_stability(
    cam: Callable[..., Any], images: torch.Tensor, targets: Targets, kind: Similarity = "pearson"
) -> torch.Tensor:
    """How alike a map is to that of the mirror image, mirrored back: from -1 to 1, higher is better.

    kind: see `similarity.similarity`; the images are mirrored along their last axis. A map that is not of the image but
    of its place, such as one that always lies in the corner, is not stable. As the equivariance of Crabbe and van der
    Schaar 2023, arXiv:2304.06715, with a correlation. Cost: two calls of cam, and a forward.
    """
    targets = _resolved(cam, images, targets)
    mirrored = _made(cam, images.flip(-1), targets).flip(-1)
    return similarity(_made(cam, images, targets), mirrored, kind)


def shift_stability(
    cam: Callable[..., Any], images: torch.Tensor, targets: Targets, pixels: int = 4, kind: Similarity = "pearson"
) -> torch.Tensor:
    """How alike a map is to that of the shifted image, shifted back: from -1 to 1, higher is better.

    The mean over shifts of so many pixels to the four sides, of images (N, C, H, W); the border is repeated, and what
    is not in both images is not compared. kind: see `flip_stability`; paper: arXiv:2304.06715.
    Raises ValueError unless pixels is above 0 and below half of either side. Cost: five calls of cam, and a forward.
    """
    if images.ndim != 2 + _REPLICATED or not 0 < pixels < min(images.shape[2:]) / 2:
        raise ValueError(
            f"pixels is {pixels} for images {tuple(images.shape)}, expected above 0 and below half of either side of "
            "images (N, C, H, W)"
        )
    targets = _resolved(cam, images, targets)
    maps = _made(cam, images, targets)
    height, width = images.shape[2:]
    padded = F.pad(images, (pixels,) * 4, mode="replicate")
    found = []
    for down, across in ((pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)):
        top, left = pixels - down, pixels - across
        shifted = _made(cam, padded[:, :, top : top + height, left : left + width], targets)
        here = maps[:, max(-down, 0) : height - max(down, 0), max(-across, 0) : width - max(across, 0)]
        there = shifted[:, max(down, 0) : height - max(-down, 0), max(across, 0) : width - max(-across, 0)]
        found.append(similarity(here, there, kind))
    return torch.stack(found).mean(0)


def _made(cam: Callable[..., Any], images: torch.Tensor, targets: Any) -> torch.Tensor:
    return finite_maps(maps_of(images, cam(input_tensor=images, targets=targets)))


def _resolved(cam: Callable[..., Any], images: torch.Tensor, targets: Targets) -> Any:
    """The targets of the unchanged images, so that a changed one is asked about the same class."""
    model = getattr(cam, "model", None)
    if targets is not None or not isinstance(model, nn.Module):
        return targets
    return list(clean_scores(model, images, targets)[1])


def _draws(draw: Callable[..., torch.Tensor], images: torch.Tensor, samples: int, seed: int) -> Iterator[torch.Tensor]:
    """Draws (C, *spatial), made on the host: the same on every device, whatever the number of images."""
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    return (draw(images.shape[1:], generator=generator).to(images) for _ in range(samples))

"""Maps smoothed over augmentations of the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of, with_image

if TYPE_CHECKING:
    import ttach


def smoothed_over(
    augmentations: ttach.Compose | None,
    clean_maps: torch.Tensor,
    maps_of: Callable[[Inputs], torch.Tensor],
    inputs: Inputs,
    spatial_from: SpatialFrom,
) -> torch.Tensor:
    """The mean of the maps over the augmentations, each turned back: of the shape of `clean_maps`.

    augmentations: None is a horizontal flip times the factors 0.9, 1, 1.1. clean_maps: those of the inputs themselves,
    taken for the augmentation that changes nothing. maps_of: from inputs to their maps.
    """
    image = image_of(inputs, spatial_from)
    pictures = _as_pictures(image)
    smoothed = []
    for augmentation in augmentations or _flips_and_factors():
        augmented = augmentation.augment_image(pictures)
        if augmented is pictures:
            maps = clean_maps
        else:
            restored = augmented.reshape(image.shape) if image.ndim != augmented.ndim else augmented
            maps = maps_of(with_image(inputs, restored, spatial_from))
        targets_as_channels = maps.reshape(len(maps), -1, *maps.shape[2 - image.ndim :])
        smoothed.append(augmentation.deaugment_mask(_as_pictures(targets_as_channels)))
    return torch.stack(smoothed).mean(0).reshape(clean_maps.shape)


def _flips_and_factors() -> ttach.Compose:
    import ttach

    return ttach.Compose([ttach.HorizontalFlip(), ttach.Multiply(factors=[0.9, 1, 1.1])])


def _as_pictures(tensor: torch.Tensor) -> torch.Tensor:
    """(N, C, *spatial) of any rank as the (N, C', H, W) that ttach expects; the last axis stays the horizontal one."""
    height = tensor.shape[-2] if tensor.ndim > 3 else 1
    return tensor.reshape(len(tensor), -1, height, tensor.shape[-1])

"""What a removed pixel becomes, and what an image is before its pixels are put back."""

from collections.abc import Callable

import torch

from pytorch_grad_cam.engine.maps import blurred as gaussian_blurred

Baseline = str | torch.Tensor | Callable[[torch.Tensor], torch.Tensor]
"""'zero', 'mean' or 'blur', a tensor that images broadcast with, or a function from images to images."""

# RISE's, for photographs of 224 pixels.
_BLUR_SIGMA, _BLUR_REACH = 5.0, 5


def baseline_of(baseline: Baseline, images: torch.Tensor) -> torch.Tensor:
    """The images (N, C, *spatial) without what is in them.

    'zero': of normalised images the mean of the data set. 'mean': each channel's mean, of each image. 'blur': see
    `blurred`. Raises ValueError for other names and for a tensor of another shape.
    """
    if isinstance(baseline, str):
        if baseline not in _NAMED:
            raise ValueError(f"baseline is {baseline!r}, expected 'zero', 'mean', 'blur', a tensor or a function")
        return _NAMED[baseline](images)
    values = baseline(images) if callable(baseline) else baseline
    try:
        return torch.broadcast_to(values.to(images), images.shape)
    except RuntimeError as error:
        raise ValueError(
            f"the baseline has shape {tuple(values.shape)}, expected one that images {tuple(images.shape)} have or "
            "that broadcasts to it"
        ) from error


def blurred(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, *spatial) blurred by a Gaussian of 11 pixels with sigma 5, as for RISE (arXiv:1806.07421).

    Values at the border are repeated outside; RISE's code has zeros there.
    """
    return gaussian_blurred(images, _BLUR_SIGMA, _BLUR_REACH)


def _mean(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(2).mean(2).reshape(*images.shape[:2], *[1] * (images.ndim - 2)).expand_as(images)


_NAMED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"zero": torch.zeros_like, "mean": _mean, "blur": blurred}

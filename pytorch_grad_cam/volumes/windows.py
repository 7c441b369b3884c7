"""Windows over an image of any spatial rank, and how much each of their positions counts, as MONAI has them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from pytorch_grad_cam.perturbation.sliding_windows import window_starts

Slices = tuple[slice, ...]
PaddingMode = Literal["constant", "reflect", "replicate", "circular"]

_LEAST_WEIGHT = 1e-3  # MONAI's, so that no sum of weights is 0


@dataclass(frozen=True)
class Windows:
    """The conventions of MONAI's sliding windows (`monai.inferers.sliding_window_inference`).

    roi_size: the window's size, one number for all axes or one for each; None and numbers below 1 are the image's own.
    overlap: the share of a window that the next one covers, in [0, 1), for all axes or for each. mode: 'gaussian'
    weights positions by how near they are to the window's centre, 'constant' alike. sigma_scale: the Gaussian's
    standard deviation as a share of the window's size, for all axes or for each. padding_mode, cval: where the image is
    smaller than the window, it is padded on both sides, by `torch.nn.functional.pad`'s mode and value.
    """

    roi_size: int | Sequence[int | None] | None
    overlap: float | Sequence[float] = 0.5
    mode: Literal["gaussian", "constant"] = "gaussian"
    sigma_scale: float | Sequence[float] = 0.125
    padding_mode: PaddingMode = "constant"
    cval: float = 0.0

    def __post_init__(self) -> None:
        overlaps = self.overlap if isinstance(self.overlap, Sequence) else [self.overlap]
        if not all(0 <= overlap < 1 for overlap in overlaps):
            raise ValueError(f"overlap is {self.overlap}, expected shares in [0, 1)")
        if self.mode not in ("gaussian", "constant"):
            raise ValueError(f"mode is {self.mode!r}, expected 'gaussian' or 'constant'")

    @classmethod
    def of(cls, inferer: Any) -> Windows:
        """Those of a `monai.inferers.SlidingWindowInferer`, or of anything with its attributes."""
        names = ("roi_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval")
        return cls(*(_value(getattr(inferer, name)) for name in names))

    def sizes(self, image_size: Sequence[int]) -> tuple[int, ...]:
        """The window's size on an image (*image_size). Raises ValueError for another number of axes."""
        wanted = _of_axes(self.roi_size, image_size, "roi_size")
        return tuple(size if roi is None or roi < 1 else int(roi) for roi, size in zip(wanted, image_size, strict=True))

    def on(self, image_size: Sequence[int]) -> list[Slices]:
        """Where the windows lie, row by row; none begins or ends outside the image, the last ones end at its border."""
        axes = zip(self._starts(image_size), self.sizes(image_size), image_size, strict=True)
        ends = [[(at, min(at + size, end)) for at in starts] for starts, size, end in axes]
        return [tuple(slice(*edges) for edges in where) for where in itertools.product(*ends)]

    def _starts(self, image_size: Sequence[int]) -> list[list[int]]:
        overlaps = _of_axes(self.overlap, image_size, "overlap")
        axes = zip(image_size, self.sizes(image_size), overlaps, strict=True)
        return [window_starts(length, max(1, int(size * (1 - overlap))), size) for length, size, overlap in axes]

    def weights(self, image_size: Sequence[int]) -> torch.Tensor:
        """How much each position of a window counts (*size), above 0: a product of one Gaussian for each axis.

        Those of MONAI's `compute_importance_map`, but that no factor is below 0.001, where MONAI's products are not:
        there all windows count alike along the image's border, with what their own borders do to the map.
        """
        return _product(self._factors(image_size))

    def shares(self, image_size: Sequence[int], where: Slices) -> torch.Tensor:
        """How much of what is said of each position comes from a window (*size): 1 over all windows, 0 on padding."""
        part = [slices.stop - slices.start for slices in where]
        shares = torch.zeros(self.sizes(image_size))
        factors = [total[slices] for total, slices in zip(self.totals(image_size), where, strict=True)]
        self.unpadded(shares, part).copy_(self.unpadded(self.weights(image_size), part) / _product(factors))
        return shares

    def totals(self, image_size: Sequence[int]) -> list[torch.Tensor]:
        """For each axis the sum (length,) of the windows' factors; the product of them all is that of the weights."""
        totals = []
        for length, factor, starts in zip(image_size, self._factors(image_size), self._starts(image_size), strict=True):
            total = torch.zeros(length)
            for start in starts:
                of_part = self.unpadded(factor, [min(len(factor), length - start)])
                total[start : start + len(of_part)] += of_part
            totals.append(total)
        return totals

    def _factors(self, image_size: Sequence[int]) -> list[torch.Tensor]:
        factors = []
        sizes = self.sizes(image_size)
        for size, scale in zip(sizes, _of_axes(self.sigma_scale, sizes, "sigma_scale"), strict=True):
            from_centre = torch.arange(size) - (size - 1) / 2
            gaussian = torch.exp(-(from_centre**2) / (2 * (size * scale) ** 2)).clamp(min=_LEAST_WEIGHT)
            factors.append(gaussian if self.mode == "gaussian" else torch.ones(size))
        return factors

    def padded(self, part: torch.Tensor, image_size: Sequence[int]) -> torch.Tensor:
        """A window's part (N, C, *part) of the image at the window's size."""
        margins = _margins(part.shape[2:], self.sizes(image_size))
        if not any(map(any, margins)):
            return part
        pairs = list(itertools.chain.from_iterable(reversed(margins)))
        value = {"value": self.cval} if self.padding_mode == "constant" else {}
        return F.pad(part, pairs, mode=self.padding_mode, **value)

    def unpadded(self, maps: torch.Tensor, part_size: Sequence[int]) -> torch.Tensor:
        """Of maps (..., *size) of a padded window the part that is of the image (..., *part_size)."""
        margins = _margins(part_size, maps.shape[maps.ndim - len(part_size) :])
        where = [slice(before, before + length) for (before, _), length in zip(margins, part_size, strict=True)]
        return maps[(Ellipsis, *where)]  # type: ignore[index]


def _product(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of factors (length,), one for each axis, the values at all positions (*lengths)."""
    product = torch.ones(())
    for factor in factors:
        product = product[..., None] * factor
    return product


def _margins(part: Sequence[int], whole: Sequence[int]) -> list[tuple[int, int]]:
    return [
        ((full - length) // 2, full - length - (full - length) // 2) for length, full in zip(part, whole, strict=True)
    ]


def _of_axes(given: Any, sizes: Sequence[int], name: str) -> Sequence[Any]:
    each = list(given) if isinstance(given, Sequence) else [given] * len(sizes)
    if len(each) != len(sizes):
        raise ValueError(f"{name} is {given}, expected one number or one for each of the {len(sizes)} axes")
    return each


def _value(attribute: Any) -> Any:
    """Of MONAI's enumerations the string."""
    return getattr(attribute, "value", attribute)

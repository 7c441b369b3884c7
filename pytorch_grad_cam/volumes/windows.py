"""Windows over an image of any spatial rank, and how much each of their positions counts, as MONAI has them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F

from pytorch_grad_cam.perturbation.sliding_windows import window_starts

Slices = tuple[slice, ...]
PaddingMode = Literal["constant", "reflect", "replicate", "circular"]

_MOST_WINDOWS = 8  # times as many, so that cells see what they see in the whole image: half the step on three axes
_LEAST_WEIGHT = 1e-3  # MONAI's, so that no sum of weights is 0


@dataclass(frozen=True)
class Windows:
    """The conventions of MONAI's sliding windows (`monai.inferers.sliding_window_inference`).

    roi_size: the window's size, one number for all axes or one for each; None and numbers below 1 are the image's own.
    overlap: the share of a window that the next one covers, in [0, 1), for all axes or for each. mode: 'gaussian'
    weights positions by how near they are to the window's centre, 'constant' alike. sigma_scale: the Gaussian's
    standard deviation as a share of the window's size, for all axes or for each. padding_mode, cval: where the image is
    smaller than the window, it is padded on both sides, by `torch.nn.functional.pad`'s mode and value. context: how
    many more positions of the image the model is shown on each side of a window, of which nothing is kept, for all axes
    or for each (MONAI has none; the overlap-tile strategy of Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597).
    """

    roi_size: int | Sequence[int | None] | None
    overlap: float | Sequence[float] = 0.5
    mode: Literal["gaussian", "constant"] = "gaussian"
    sigma_scale: float | Sequence[float] = 0.125
    padding_mode: PaddingMode = "constant"
    cval: float = 0.0
    context: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        if not all(0 <= overlap < 1 for overlap in _list_of(self.overlap)):
            raise ValueError(f"overlap is {self.overlap}, expected shares in [0, 1)")
        if self.mode not in ("gaussian", "constant"):
            raise ValueError(f"mode is {self.mode!r}, expected 'gaussian' or 'constant'")
        if any(context < 0 for context in _list_of(self.context)):
            raise ValueError(f"context is {self.context}, expected numbers of positions, 0 or more")

    @classmethod
    def of(cls, inferer: Any, context: int | Sequence[int] = 0) -> Windows:
        """Those of a `monai.inferers.SlidingWindowInferer`, or of anything with its attributes.

        Its devices, buffers and progress are not looked at. Raises ValueError where it gives the model coordinates, or
        slices of a volume (`SliceInferer`).
        """
        if getattr(inferer, "with_coord", False) or hasattr(inferer, "spatial_dim"):
            raise ValueError(
                f"{type(inferer).__name__} shows the model {_shown_by(inferer)}: wrap the model so that it takes the "
                "window alone, and pass roi_size= and overlap= instead of inferer="
            )
        names = ("roi_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval")
        values: dict[str, Any] = {name: _value(getattr(inferer, name)) for name in names}
        return cls(**values, context=context)

    def sizes(self, image_size: Sequence[int]) -> tuple[int, ...]:
        """The size of what the model is shown of an image (*image_size): a window with its context, which ends where
        the image ends. Raises ValueError for another number of axes.
        """
        axes = zip(self._kept(image_size), _of_axes(self.context, image_size, "context"), image_size, strict=True)
        return tuple(max(size, min(size + 2 * context, length)) for size, context, length in axes)

    def _kept(self, image_size: Sequence[int]) -> list[int]:
        """The size of the windows themselves."""
        wanted = _of_axes(self.roi_size, image_size, "roi_size")
        return [size if roi is None or roi < 1 else int(roi) for roi, size in zip(wanted, image_size, strict=True)]

    def on(self, image_size: Sequence[int]) -> list[Slices]:
        """What the model is shown, row by row; nothing lies outside the image, the last ones end at its border."""
        axes = zip(self._factors(image_size), self.sizes(image_size), image_size, strict=True)
        ends = [[(at, min(at + size, end)) for at in factors] for factors, size, end in axes]
        return [tuple(slice(*edges) for edges in where) for where in itertools.product(*ends)]

    def weights(self, image_size: Sequence[int], where: Slices) -> torch.Tensor:
        """How much each position of what is shown counts (*size): a product of one Gaussian for each axis, 0 in the
        context, but not where the image ends.

        Those of MONAI's `compute_importance_map`, but that no factor is below 0.001, where MONAI's products are not:
        there all windows count alike along the image's border, with what their own borders do to the map.
        """
        axes = zip(self._factors(image_size), where, strict=True)
        return _product([factors[slices.start] for factors, slices in axes])

    def own(self, image_size: Sequence[int], where: Slices) -> torch.Tensor:
        """Which positions count most in this window (*size): 1 there, 0 at others and on padding.

        Each position of the image is the own one of one window; of those that count alike the first.
        """
        own = torch.zeros(self.sizes(image_size))
        axes = zip(image_size, self._factors(image_size), where, strict=True)
        part = _product([self._owners(length, factors)[at] == at.start for length, factors, at in axes])
        self.unpadded(own, part.shape).copy_(part)
        return own

    def _owners(self, length: int, factors: dict[int, torch.Tensor]) -> torch.Tensor:
        """For each position of an axis (length,) where the window begins in which it counts most."""
        most, owners = torch.zeros(length), torch.zeros(length, dtype=torch.long)
        for start, factor in factors.items():
            end = min(start + len(factor), length)
            counts = self.unpadded(factor, [end - start])
            is_more = counts > most[start:end]
            owners[start:end][is_more] = start
            most[start:end] = torch.maximum(counts, most[start:end])
        return owners

    def totals(self, image_size: Sequence[int]) -> list[torch.Tensor]:
        """For each axis the sum (length,) of the windows' factors; the product of them all is that of the weights."""
        totals = []
        for length, factors in zip(image_size, self._factors(image_size), strict=True):
            total = torch.zeros(length)
            for start, factor in factors.items():
                part = total[start : start + len(factor)]
                part += self.unpadded(factor, part.shape)
            totals.append(total)
        return totals

    def seen_whole(self, image_size: Sequence[int], far: Sequence[int], strides: Sequence[int]) -> Windows | None:
        """Windows of the same sizes of which nothing counts that lies nearer to a cut than what a cell sees, `far`
        positions along each axis, in steps that are multiples of the network's strides; without a context of their own.

        None where that takes more than eight times as many windows, or a cell sees more than a window shows.
        """
        lengths_and_overlaps = zip(image_size, _of_axes(self.overlap, image_size, "overlap"), strict=True)
        axes = zip(lengths_and_overlaps, self._kept(image_size), far, strides, strict=True)
        each = [_inside(length, size, overlap, *sight) for (length, overlap), size, *sight in axes]
        if any(kept < 1 for kept, _, _ in each):
            return None
        kept, overlaps, contexts = zip(*each, strict=True)
        inside = replace(self, roi_size=kept, overlap=overlaps, context=contexts)
        return inside if inside.count(image_size) <= _MOST_WINDOWS * self.count(image_size) else None

    def count(self, image_size: Sequence[int]) -> int:
        """How many there are."""
        return math.prod(map(len, self._factors(image_size)))

    def beside_seams(self, image_size: Sequence[int]) -> list[int]:
        """For each axis how many positions of the image the model is shown beside one in the middle between two
        windows; as many as there are where one window shows all of it.
        """
        options = _of_axes(self.overlap, image_size, "overlap"), _of_axes(self.context, image_size, "context")
        axes = zip(image_size, self.sizes(image_size), self._kept(image_size), *options, strict=True)
        return [
            length if size >= length else context + (kept - _step(kept, overlap)) // 2
            for length, size, kept, overlap, context in axes
        ]

    def _factors(self, image_size: Sequence[int]) -> list[dict[int, torch.Tensor]]:
        """For each axis where what is shown begins, and how much each of its positions counts (size,)."""
        each = ((self.overlap, "overlap"), (self.sigma_scale, "sigma_scale"), (self.context, "context"))
        options = [_of_axes(given, image_size, name) for given, name in each]
        axes = zip(image_size, self._kept(image_size), self.sizes(image_size), *options, strict=True)
        return [self._factors_along(*axis) for axis in axes]

    def _factors_along(
        self, length: int, kept: int, size: int, overlap: float, sigma_scale: float, context: int
    ) -> dict[int, torch.Tensor]:
        from_centre = torch.arange(size) - (size - 1) / 2
        gaussian = torch.exp(-(from_centre**2) / (2 * (kept * sigma_scale) ** 2)).clamp(min=_LEAST_WEIGHT)
        counts = gaussian if self.mode == "gaussian" else torch.ones(size)
        at = torch.arange(size)
        return {
            start: counts * (at >= context * (start > 0)) * (at < size - context * (start + size < length))
            for start in window_starts(length, _step(kept, overlap), size)
        }

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


def _step(size: int, overlap: float) -> int:
    """From one window to the next."""
    return max(1, int(size * (1 - overlap)))


def _inside(length: int, size: int, overlap: float, far: int, stride: int) -> tuple[int, float, int]:
    """Along one axis what is kept of windows (below 1: nothing), their overlap then, and what is shown beside it."""
    if size >= length:
        return size, overlap, 0
    kept = size - 2 * far
    step = min(_step(size, overlap), kept)
    step = max(step - step % stride, min(stride, kept))
    return kept, 0.0 if step == kept else 1 - (step + 0.5) / kept, far  # the half is for the rounding of floats


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


def _list_of(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Sequence) else [given]


def _of_axes(given: Any, sizes: Sequence[int], name: str) -> Sequence[Any]:
    each = _list_of(given) if isinstance(given, Sequence) else [given] * len(sizes)
    if len(each) != len(sizes):
        raise ValueError(f"{name} is {given}, expected one number or one for each of the {len(sizes)} axes")
    return each


def _shown_by(inferer: Any) -> str:
    return "single slices of a volume" if hasattr(inferer, "spatial_dim") else "a window with its coordinates"


def _value(attribute: Any) -> Any:
    """Of MONAI's enumerations the string."""
    return getattr(attribute, "value", attribute)

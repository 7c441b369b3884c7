"""How alike two maps are."""

from __future__ import annotations

from typing import Literal

import torch

from pytorch_grad_cam.metrics.ground_truth import Maps, finite_maps

Similarity = Literal["pearson", "spearman"]


def similarity(first: Maps, second: Maps, kind: Similarity = "pearson") -> torch.Tensor:
    """The correlations of maps (N, *spatial) with others, each with the one in its place: float32 (N,) in [-1, 1].

    kind: 'pearson', of the values, or 'spearman', of their ranks, equal values sharing the mean of theirs. Of two
    constant maps it is 1, of one constant map 0. Raises ValueError for another kind, for maps of different shapes, and
    for maps that are not finite.
    """
    if kind not in ("pearson", "spearman"):
        raise ValueError(f"similarity is {kind!r}, expected 'pearson' or 'spearman'")
    a, b = (finite_maps(maps) for maps in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"maps of shape {tuple(a.shape)} cannot be compared with maps of shape {tuple(b.shape)}")
    rows = [maps.flatten(1).to(a.device) for maps in (a, b)]
    return _correlation(*(map(_ranks, rows) if kind == "spearman" else rows))


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = _standardised(a), _standardised(b)
    constant = [(rows == 0).all(1) for rows in (a, b)]
    return torch.where(constant[0] & constant[1], 1, (a * b).sum(1)).clamp(-1, 1).float()


def _standardised(rows: torch.Tensor) -> torch.Tensor:
    """Of mean 0 and norm 1; a constant row becomes zeros, however large its value."""
    lowest, highest = rows.aminmax(dim=1, keepdim=True)
    span = highest - lowest
    scaled = (rows - lowest) / span.masked_fill(span == 0, 1)
    centred = scaled - scaled.mean(1, keepdim=True)
    return torch.where(span == 0, 0, centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-30))


def _ranks(rows: torch.Tensor) -> torch.Tensor:
    """The mean of the first and the last place that a value could have among the sorted ones."""
    ordered = rows.sort(1).values
    first, last = (torch.searchsorted(ordered, rows, right=right) for right in (False, True))
    return (first + last).to(rows) / 2

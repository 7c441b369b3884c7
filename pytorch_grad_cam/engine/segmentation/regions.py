"""Regions of a grid of any rank: its connected parts, and masks and points of the image brought to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pytorch_grad_cam.engine.maps import most_precise_dtype

_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def connected_parts(mask: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The connected parts of a mask (*grid): the number of each cell's, 0 outside, and all numbers, the largest part's
    first. Diagonal neighbours are connected.

    Each cell takes the highest number among its neighbours', then that of the cell with this number, until nothing
    changes. Cost: some dozen waits for the device, whatever the size.
    """
    numbers = torch.arange(1, mask.numel() + 1, device=mask.device).reshape(mask.shape) * mask
    while True:
        as_floats = numbers.to(most_precise_dtype(mask.device))[None, None]
        highest = _POOL[mask.ndim](as_floats, 3, 1, 1)[0, 0].long() * mask
        of_highest = F.pad(highest.flatten(), (1, 0))[highest]
        if torch.equal(of_highest, numbers):
            break
        numbers = of_highest
    found, sizes = numbers[mask].unique(return_counts=True)
    return numbers, found[sizes.argsort(descending=True, stable=True)].tolist()


def at_grid(mask: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """A mask (*spatial) on a grid: of each cell the share that is inside, so that nothing small is lost."""
    if tuple(mask.shape) == tuple(grid):
        return mask
    return F.interpolate(mask[None, None], size=tuple(grid), mode="area")[0, 0]


def cell_of(point: Sequence[float], size: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """The cell of a grid over an image of a size in which a point, (y, x) or of a volume (z, y, x), lies.

    Raises ValueError outside of it, and for another number of axes.
    """
    sides = " x ".join(map(str, size))
    if len(point) != len(size):
        raise ValueError(f"the point {tuple(point)} has {len(point)} numbers, expected one for each axis of {sides}")
    if not all(0 <= at < length for at, length in zip(point, size, strict=True)):
        axes = ("x", "y, x", "z, y, x")[len(size) - 1]
        raise ValueError(f"the point {tuple(point)} lies outside of the image: ({axes}) in pixels of {sides}, from 0")
    return tuple(int(at * cells / length) for at, length, cells in zip(point, size, grid, strict=True))

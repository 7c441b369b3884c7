"""Random masks that leave about half of an image, blurred and at any place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch


@dataclass(frozen=True)
class RandomMasks:
    """Masks as RISE draws them: coarse grids of zeros and ones, enlarged linearly and shifted by less than a cell.

    nodes: (masks, *grid), zeros and ones. shifts: (masks, axes) in cells, in [0, 1). cells: how many along each axis of
    the image.
    """

    nodes: torch.Tensor
    shifts: torch.Tensor
    cells: int

    @classmethod
    def drawn(cls, count: int, rank: int, cells: int, share: float, seed: int) -> RandomMasks:
        """So many masks with this share of ones, for `rank` spatial axes; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        grid = [cells + 2] * rank  # a shifted image of c cells lies between c + 2 nodes
        draws = (torch.rand(count, *shape, generator=generator, dtype=torch.float32) for shape in (grid, [rank]))
        return cls((next(draws) < share).float(), next(draws), cells)

    def of(self, numbers: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """The masks (M, *size) of these numbers (M,), in [0, 1], on their device."""
        nodes, shifts = (values[numbers.cpu()].to(numbers.device) for values in (self.nodes, self.shifts))
        along = [
            _interpolation(length, shift, self.cells) for length, shift in zip(size, shifts.unbind(1), strict=True)
        ]
        return reduce(lambda masks, weights: torch.einsum("mg...,mlg->m...l", masks, weights), along, nodes)


def _interpolation(length: int, shifts: torch.Tensor, cells: int) -> torch.Tensor:
    """The weights (M, length, nodes) of the two nodes beside each pixel's centre."""
    pixels = (torch.arange(length).to(shifts) + 0.5) * cells / length
    nodes = torch.arange(cells + 2).to(shifts)
    return (1 - (pixels[:, None] + shifts[:, None, None] - nodes).abs()).relu()

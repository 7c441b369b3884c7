"""The maps of windows as one map, and how far the windows contradict each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pytorch_grad_cam.volumes.windows import Slices, Windows

_SAMPLED = 3  # every so many positions along an axis are compared: odd, as strides are not


class Stitching:
    """The weighted mean of the windows' maps at each position, on the host.

    At some positions it is compared with what the window says that counts most there. Memory: the map in float32, and
    for 1/27 (of three axes) of its positions two numbers more.
    """

    def __init__(self, windows: Windows, image_size: Sequence[int]) -> None:
        self.windows, self.image_size = windows, tuple(image_size)
        self._sum = self._first_hand = torch.zeros(())
        self._most = torch.zeros([-(-length // _SAMPLED) for length in self.image_size])

    def add(self, maps: torch.Tensor, where: Sequence[Slices]) -> None:
        """What some windows say: maps (W, ..., *size) on the host."""
        if self._sum.ndim == 0:
            others = maps.shape[1 : maps.ndim - len(self.image_size)]
            self._sum = maps.new_zeros(*others, *self.image_size)
            self._first_hand = maps.new_zeros(*others, *self._most.shape)
        for of_window, slices in zip(maps, where, strict=True):
            weights = self.windows.weights(self.image_size, slices)
            part = [each.stop - each.start for each in slices]
            values, counts = self.windows.unpadded(of_window, part), self.windows.unpadded(weights, part)
            self._sum[(Ellipsis, *slices)] += values * counts  # type: ignore[index]
            self._compare_later(values, counts, slices)

    def _compare_later(self, values: torch.Tensor, counts: torch.Tensor, where: Slices) -> None:
        """Keep a window's values (..., *part) at the positions where it counts most of all so far."""
        sampled = (Ellipsis, *[slice(-each.start % _SAMPLED, None, _SAMPLED) for each in where])
        among = (Ellipsis, *[slice(-(-each.start // _SAMPLED), -(-each.stop // _SAMPLED)) for each in where])
        most, kept = self._most[among], self._first_hand[among]  # type: ignore[index]
        counts = counts[sampled]  # type: ignore[index]
        kept.copy_(torch.where(counts > most, values[sampled], kept))  # type: ignore[index]
        most.copy_(torch.maximum(counts, most))

    def finish(self) -> tuple[torch.Tensor, float]:
        """The maps (..., *spatial), and how far one is at most from what the window says that counts most there, as a
        share of the map's largest absolute value. To be called once.
        """
        totals = self.windows.totals(self.image_size)
        for axis, of_axis in enumerate(totals):
            self._sum /= of_axis.reshape(-1, *[1] * (len(totals) - axis - 1))
        axes = tuple(range(-len(totals), 0))
        largest = torch.maximum(-self._sum.amin(axes), self._sum.amax(axes))
        sampled = self._sum[(Ellipsis, *[slice(None, None, _SAMPLED)] * len(totals))]  # type: ignore[index]
        apart = (sampled - self._first_hand).abs().amax(axes) / largest.masked_fill(largest == 0, torch.inf)
        return self._sum, float(apart.max())

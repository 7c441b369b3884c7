"""A method's channel weights for a whole image that is explained in windows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun


class SharedWeights:
    """The channel weights of a method for a whole image, from those of its windows.

    They are the sum of the weights of the windows, in which only the gradients of the cells count that are the window's
    own (`Windows.own`): where the weights are sums over cells, those of the whole image. A method that divides by the
    channels' sums (`sums_channels`) takes those of the whole image. The method itself is left as it is, copies of it do
    this.

    shares: for each target list what part of its score at a window's cells is that at the same cells of the whole
    image: 1 of a sum over positions, of a mean over them the whole image's cells for each of the window's.
    """

    def __init__(self, cam: Any, shares: Sequence[float]) -> None:
        self.cam, self.shares = cam, shares
        self._channel_sums: dict[Run, torch.Tensor] = {}
        self._weights: dict[Run, torch.Tensor] = {}

    @staticmethod
    def apply_to(cam: Any) -> bool:
        """Whether a method has one weight a channel, by a rule of its own that is not written for grad-cam 1.x."""
        return isinstance(cam, BaseCAM) and cam.averages_positions and type(cam).weigh is not BaseCAM.weigh

    def passes(self) -> list[Callable[[torch.Tensor], Any]]:
        """What the windows are given to, one behind the other, before `using`: from where they are their own
        (W, 1, *size) to the method that keeps what it sees of them in its next call.
        """
        return [self._summing, self._gathering] if getattr(self.cam, "sums_channels", False) else [self._gathering]

    def using(self) -> Any:
        """The method with the weights of the whole image, which needs no gradients."""
        cam = copy.copy(self.cam)
        cam.weigh, cam.uses_gradients = self._shared, False
        return cam

    def _summing(self, own: torch.Tensor) -> Any:
        cam = copy.copy(self.cam)
        cam.weigh, cam.uses_gradients = partial(self._summed, own), False
        return cam

    def _gathering(self, own: torch.Tensor) -> Any:
        cam = copy.copy(self.cam)
        cam.weigh = partial(self._gathered, own)
        return cam

    def _summed(self, own: torch.Tensor, run: LayerRun) -> torch.Tensor:
        sums = (run.activations * _of_cells(own, run)).flatten(2).sum(2).detach()
        _add(self._channel_sums, run, sums)
        return sums

    def _gathered(self, own: torch.Tensor, run: LayerRun) -> torch.Tensor:
        if run.grads is not None:
            run = run._replace(grads=run.grads * _of_cells(own, run))
        if _key(run) in self._channel_sums:
            sums = self._channel_sums[_key(run)] / self.shares[run.position]
            run = run._replace(of_whole=sums.expand(len(run.activations), -1))
        weights: torch.Tensor = self.cam.weigh(run)
        _add(self._weights, run, weights.detach())
        return weights

    def _shared(self, run: LayerRun) -> torch.Tensor:
        return self._weights[_key(run)].expand(len(run.activations), -1)


Run = tuple[torch.nn.Module, int, int]


def _key(run: LayerRun) -> Run:
    return run.layer, run.call_index, run.position


def _add(sums: dict[Run, torch.Tensor], run: LayerRun, of_windows: torch.Tensor) -> None:
    sums[_key(run)] = sums.get(_key(run), torch.zeros_like(of_windows[0])) + of_windows.sum(0)


def _of_cells(own: torch.Tensor, run: LayerRun) -> torch.Tensor:
    """Of each cell of a run the share that is the window's own (W, 1, *grid)."""
    return F.interpolate(own, size=tuple(run.activations.shape[2:]), mode="area").to(run.activations)

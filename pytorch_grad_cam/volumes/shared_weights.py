"""A method's channel weights for a whole image that is explained in windows."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun


class SharedWeights:
    """The channel weights of a method for a whole image, from those of its windows.

    They are the sum of the weights of the windows, whose gradients count by the window's share at each cell: where the
    weights are means of gradients, those of the whole image. The method itself is left as it is, copies of it do this.
    """

    def __init__(self, cam: Any) -> None:
        self.cam = cam
        self._sums: dict[tuple[torch.nn.Module, int, int], torch.Tensor] = {}

    @staticmethod
    def apply_to(cam: Any) -> bool:
        """Whether a method has one weight a channel, by a rule of its own that is not written for grad-cam 1.x."""
        return isinstance(cam, BaseCAM) and cam.averages_positions and type(cam).weigh is not BaseCAM.weigh

    def gathering(self, shares: torch.Tensor) -> Any:
        """The method, which adds the weights of the windows in its next call. shares: of the windows (W, 1, *size)."""
        cam = copy.copy(self.cam)
        cam.weigh = partial(self._gathered, shares)
        return cam

    def using(self) -> Any:
        """The method with the weights of the whole image, which needs no gradients."""
        cam = copy.copy(self.cam)
        cam.weigh, cam.uses_gradients = self._shared, False
        return cam

    def _gathered(self, shares: torch.Tensor, run: LayerRun) -> torch.Tensor:
        grid = run.activations.shape[2:]
        if run.grads is not None:
            of_cells = F.interpolate(shares, size=tuple(grid), mode="area").to(run.grads)
            run = run._replace(grads=run.grads * of_cells)
        weights: torch.Tensor = self.cam.weigh(run)
        key = run.layer, run.call_index, run.position
        self._sums[key] = self._sums.get(key, 0) + weights.detach().sum(0)
        return weights

    def _shared(self, run: LayerRun) -> torch.Tensor:
        weights = self._sums[run.layer, run.call_index, run.position]
        return weights.expand(len(run.activations), -1)

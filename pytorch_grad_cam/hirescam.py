"""HiResCAM."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun


class HiResCAM(BaseCAM):
    r"""Gradient times activation, position by position: $L = ReLU(\sum_k \partial y / \partial A^k \odot A^k)$.

    Section 3 of the paper; not averaging the gradients keeps the map to the positions that the score was computed from.
    When to take it: where the map has to be what a linear end of the network reads, and for boxes of a detector,
    since each gradient stays in its place. Not where gradients are noisy: deep tails behind early layers.
    Cost: one forward, one backward from the score to the layer.
    Paper: Draelos & Carin 2020, https://arxiv.org/abs/2011.08891.
    """

    takes_rectified = True

    def weigh(self, run: LayerRun) -> torch.Tensor:
        gradients: torch.Tensor = run.grads
        return gradients

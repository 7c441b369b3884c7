"""LayerCAM."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun


def layer_cam_weights(grads: torch.Tensor) -> torch.Tensor:
    r"""Eq. 6: $w^k_{ij} = ReLU(\partial y / \partial A^k_{ij})$, one weight for each channel and position."""
    return grads.relu()


class LayerCAM(BaseCAM):
    """Each position of each channel weighted by its own positive gradient; sharp also on early layers.

    When to take it: for boxes of detectors, early and fine layers, and transformers. Not where evidence against the
    class matters: it takes positive gradients alone.
    Cost: one forward, one backward from the score to the layer.
    Paper: Jiang et al. 2021, IEEE TIP 30, https://doi.org/10.1109/TIP.2021.3089943.
    """

    takes_rectified = True

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return layer_cam_weights(run.grads)

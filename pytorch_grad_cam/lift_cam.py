"""LIFT-CAM (Jung & Oh 2021, arXiv:2102.05228)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import Target
from pytorch_grad_cam.engine.trees import AsMap
from pytorch_grad_cam.perturbation.tail_cam import TailCAM
from pytorch_grad_cam.perturbation.tail_contributions import tail_contributions


def lift_cam_weights(contributions: torch.Tensor) -> torch.Tensor:
    r"""$\alpha_k = \sum_{ij} C_{\Delta A^k_{ij} \Delta y}$ of contributions (K, N, C, *spatial): (K, N, C)."""
    return contributions.flatten(3).sum(3)


class LIFTCAM(TailCAM):
    r"""Channels weighted by what they add to the score: $L = ReLU(\sum_k \alpha_k A^k)$ with DeepLIFT's contributions
    $\alpha_k$ against a layer of zeros.

    They approximate the Shapley values of the channels, which AblationCAM's falls of the score do not; behind global
    pooling and one linear layer they are these values. They add up to the score's change whatever is between the layer
    and the score, as long as `perturbation.deep_lift` has a rule for it: of functions of single numbers, products,
    normalisation, softmax, attention and max-pooling. Else a CamWarning says so.

    When to take it: where the score is no linear function of the layer, as of earlier layers and behind attention.
    Behind pooling and one linear layer, as of the bundled digits, GradCAM is no worse (hits .92 of both, ROAD 6.1 and
    5.8).

    batch_size: how many samples the tail gets at a time; None is 32 on a CPU and 128 elsewhere. Further options are
    those of BaseCAM.
    Raises ValueError where there are no gradients behind the layer.
    Cost: one forward (three for the first call with a number of images), the model's tail behind the layer twice and,
    for each target, a backward through it.
    Paper: Jung & Oh 2021, https://arxiv.org/abs/2102.05228.
    """

    averages_positions = True

    def of_tail(self, tail: PartialForward, target_lists: Sequence[Sequence[Target]], run: LayerRun) -> torch.Tensor:
        return lift_cam_weights(tail_contributions(tail, target_lists, cast(AsMap, run.as_map), self.batch_size))

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return self.asked(run)

"""What FullGrad keeps of each bias: its contribution to the score, rescaled (arXiv:1905.00780, section 4)."""

import torch

from pytorch_grad_cam.engine.bias_gradients import BiasGradients
from pytorch_grad_cam.engine.maps import full_precision


def rescaled(contribution: torch.Tensor) -> torch.Tensor:
    r"""$\psi$ not resized: |contribution| (N, C, *spatial), each sample to [0, 1], summed; overwritten."""
    magnitude = contribution.abs_()
    axes = tuple(range(1, magnitude.ndim))
    lowest, highest = magnitude.amin(axes, keepdim=True), magnitude.amax(axes, keepdim=True)
    return magnitude.sub_(lowest).sum(1, keepdim=True) / (highest - lowest).masked_fill(highest == lowest, 1)


class RescaledContributions(BiasGradients):
    """Of each bias the contribution to the score, rescaled: (N, 1, *spatial)."""

    def contribution(self, bias: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return rescaled(full_precision(bias.reshape(-1, *[1] * (gradient.ndim - 2))) * gradient)

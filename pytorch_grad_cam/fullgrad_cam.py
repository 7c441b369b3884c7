"""FullGrad (Srinivas & Fleuret 2019, arXiv:1905.00780)."""

import warnings
from typing import Any

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.bias_gradients import BiasGradients
from pytorch_grad_cam.maps import full_precision, resize
from pytorch_grad_cam.old_spellings import old_constructor
from pytorch_grad_cam.principal_component import first_principal_component


def rescaled(contribution: torch.Tensor) -> torch.Tensor:
    r"""$\psi$ (section 4) not resized: |contribution| (N, C, *spatial), each sample to [0, 1], summed; overwritten."""
    magnitude = contribution.abs_()
    axes = tuple(range(1, magnitude.ndim))
    lowest, highest = magnitude.amin(axes, keepdim=True), magnitude.amax(axes, keepdim=True)
    return magnitude.sub_(lowest).sum(1, keepdim=True) / (highest - lowest).masked_fill(highest == lowest, 1)


class RescaledContributions(BiasGradients):
    """Of each bias the contribution to the score, rescaled: (N, 1, *spatial)."""

    def contribution(self, bias: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return rescaled(full_precision(bias.reshape(-1, *[1] * (gradient.ndim - 2))) * gradient)


class FullGrad(BaseCAM):
    r"""What input and biases add to the score: $\psi(\nabla_x y \odot x) + \sum_{l,c} \psi(\nabla_b y \odot b)$.

    Biases are those of convolutions and batch normalisations, the latter with what they subtract; a bias' gradient is
    taken at each position that it is added to. $\psi$ rescales each sample's contribution of a layer as a whole, as the
    authors' code does, and channels are summed before they are resized, which is linear.
    eigen_smooth: the first principal component of the layers' maps instead of their sum.

    target_layers and reshape_transform are not used, which a UserWarning says where layers are given.
    Cost: one forward with its graph, one whole backward.
    """

    hooks_class = RescaledContributions
    uses_layers = False

    @old_constructor
    def __init__(self, model, target_layers: Any = None, reshape_transform=None, **options) -> None:
        if target_layers:
            warnings.warn("FullGrad uses the biases of all layers, not target_layers", UserWarning, stacklevel=3)
        super().__init__(model, [], reshape_transform, **{**options, "compute_input_gradient": True})

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        of_input = rescaled(full_precision(input_tensor.detach()) * input_tensor.grad)
        of_layers = self.activations_and_grads.contributions
        if self.align == "cell":
            enlarged = [resize(each, input_tensor.shape[2:]) for each in of_layers]
        else:
            places = self.activations_and_grads.registrations(self._inputs(input_tensor), self.spatial_from)
            enlarged = [place.enlarge(each) for place, each in zip(places, of_layers, strict=True)]
        maps = torch.cat([of_input, *enlarged], dim=1)
        return [(first_principal_component(maps) if eigen_smooth else maps.sum(1))[:, None]]

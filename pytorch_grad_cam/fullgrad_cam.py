"""FullGrad (Srinivas & Fleuret 2019, arXiv:1905.00780)."""

import warnings
from typing import Any

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.cam_warning import LayerEvidence, warn_of_blank_maps
from pytorch_grad_cam.engine.maps import full_precision, resize, scaled_evidence
from pytorch_grad_cam.engine.principal_component import first_principal_component
from pytorch_grad_cam.rescaled_contributions import RescaledContributions, rescaled


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
        if not options.get("detach", True):
            raise ValueError("FullGrad(detach=False): its maps cannot be differentiated, take HiResCAM or LayerCAM")
        super().__init__(model, [], reshape_transform, **{**options, "compute_input_gradient": True})

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        of_input = rescaled(full_precision(input_tensor.detach()) * input_tensor.grad)
        of_layers = self.activations_and_grads.contributions
        if self.align == "cell":
            enlarged = [resize(each, input_tensor.shape[2:]) for each in of_layers if _is_map(each, input_tensor)]
        else:
            places = self.activations_and_grads.registrations(self._inputs(input_tensor), self.spatial_from)
            located = zip(places, of_layers, strict=True)
            enlarged = [place.enlarge(each) for place, each in located if place and _is_map(each, input_tensor)]
        maps = torch.cat([of_input, *enlarged], dim=1)
        cam = first_principal_component(maps) if eigen_smooth else maps.sum(1)
        scaled = scaled_evidence(cam)
        evidence = LayerEvidence(input_tensor.detach(), input_tensor.grad, cam)
        warn_of_blank_maps(scaled.flatten(1).amax(1), [evidence], str)
        return [scaled[:, None]]


def _is_map(contribution: torch.Tensor, input_tensor: torch.Tensor) -> bool:
    """Whether a bias was added to maps of the images: not to features behind the pooling, nor to windows or boxes."""
    return contribution.ndim == input_tensor.ndim and len(contribution) == len(input_tensor)

"""FullGrad."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.cam_warning import CamWarning, RunEvidence, issue, warn_of_blank_maps
from pytorch_grad_cam.engine.capture import Capturing, gradients_of_list
from pytorch_grad_cam.engine.layer_run import Call, Drawn
from pytorch_grad_cam.engine.maps import full_precision, resize
from pytorch_grad_cam.engine.principal_component import first_principal_component
from pytorch_grad_cam.engine.rescaled_contributions import BiasContributions, Contributions, by_shape
from pytorch_grad_cam.registration.bias_registrations import bias_registrations
from pytorch_grad_cam.registration.registration import Registration

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FullGrad(BaseCAM):
    r"""What input and biases add to the score: $\psi(\nabla_x y \odot x) + \sum_{l,c} \psi(\nabla_b y \odot b)$.

    Biases are those that are added to maps: of convolutions; of batch normalisations, with what they subtract; of layer
    normalisations and linear layers on maps with their channels last (ConvNeXt, Swin), which the paper has not. Those
    of tokens (N, T, C) are left out, class tokens and position embeddings too, and where no bias is left, the map is
    input x gradient alone; a CamWarning says either. A bias' gradient is taken at each position that it is added to.
    $\psi$ rescales each sample's contribution of a layer as a whole, as the authors' code does, and channels are summed
    before they are resized, which is linear.
    eigen_smooth: the first principal component of the layers' maps instead of their sum.

    target_layers and reshape_transform are not used, which a UserWarning says where layers are given.
    When to take it: to see what biases add to a score; no layer has to be chosen. To point at an object PathCAM is
    better. Not on transformers, whose biases it hardly counts, nor where several objects are in the picture.
    Cost: one forward with its graph, one whole backward.
    Paper: Srinivas & Fleuret 2019, https://arxiv.org/abs/1905.00780.
    """

    capture_class = BiasContributions
    uses_layers = is_differentiable = False

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: Any = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        if target_layers:
            warnings.warn("FullGrad uses the biases of all layers, not target_layers", UserWarning, stacklevel=3)
        options["compute_input_gradient"] = True
        super().__init__(model, [], reshape_transform, **options)
        self._registrations: dict[tuple[int, ...], list[Registration | None]] = {}

    def _maps_of_layers(self, call: Call, capture: Capturing, transform: Callable[[Any], torch.Tensor] | None) -> Drawn:
        image, signed, norms, without_biases = call.image.detach(), [], [], False
        for position in range(len(call.target_lists)):
            of_biases = gradients_of_list(capture, call.scores, call.target_lists, position, call.image)
            gradient = cast(torch.Tensor, call.image.grad)
            one = gradient.new_ones(image.shape[1])
            of_input = Contributions.of([one], [full_precision(image) * gradient]).rescaled()
            of_maps = [*self._of_maps(call, of_biases)]
            without_biases |= not of_maps
            maps = torch.cat([of_input, *of_maps], dim=1)
            signed.append(first_principal_component(maps) if call.eigen_smooth else maps.sum(1))
            norms.append(torch.linalg.vector_norm(full_precision(gradient).flatten(1), dim=1))
        if without_biases:
            issue(CamWarning(_WITHOUT_BIASES.format(type(self.model).__name__)))
        elif cast(BiasContributions, capture).leaves_out_tokens:
            issue(CamWarning(_WITHOUT_TOKENS.format(type(self.model).__name__)))
        evidence = RunEvidence(image, torch.stack(signed, dim=1), torch.stack(norms, dim=1))
        scaled = self._scaled(evidence.signed.flatten(0, 1))
        return [scaled[:, None]], partial(warn_of_blank_maps, [scaled], [evidence], str, call)

    def _of_maps(self, call: Call, of_biases: Sequence[tuple[int, Any]]) -> Iterator[torch.Tensor]:
        """The contributions (N, k, *spatial) of those biases that were added to maps of the images, or their sums."""
        size = tuple(call.image.shape[2:])
        for numbers, contributions in by_shape(of_biases):
            if not _are_maps(contributions, call.image):
                continue
            maps = contributions.rescaled()
            if self.align == "cell":
                yield resize(maps if call.eigen_smooth else maps.sum(1, keepdim=True), size)
                continue
            if size not in self._registrations:
                self._registrations[size] = bias_registrations(self.model, call.inputs, self.spatial_from)
            places = [self._registrations[size][number] for number in numbers]
            drawn = zip(places, maps.split(1, dim=1), strict=True)
            yield from (place.enlarge(of_bias) for place, of_bias in drawn if place is not None)


_WITHOUT_BIASES = (
    "{} adds no bias to a map of the image on which the score depends: this map of FullGrad is input x gradient alone, "
    "which is noisy; take another method"
)
_WITHOUT_TOKENS = (
    "{} adds biases to tokens, which this map of FullGrad leaves out: it has a part of the score only; take a method "
    "for transformers, as LeGrad or LayerCAM"
)


def _are_maps(contributions: Contributions, image: torch.Tensor) -> bool:
    """Whether biases were added to maps of the images: not to features behind the pooling, nor to windows or boxes."""
    return contributions.summed.ndim == image.ndim and contributions.summed.shape[1] == len(image)

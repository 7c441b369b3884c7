"""Ablation-CAM (Desai & Ramaswamy 2020, WACV)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
from pytorch_grad_cam.array_interface import to_array
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.chunks import in_chunks
from pytorch_grad_cam.model_state import undisturbed
from pytorch_grad_cam.old_spellings import old_constructor
from pytorch_grad_cam.partial_forward import PartialForward
from pytorch_grad_cam.target_scores import Target, resolve_targets, target_scores


def ablation_cam_weights(score: torch.Tensor, ablated_scores: torch.Tensor) -> torch.Tensor:
    r"""Eq. 3: $w_k = (y - y_k) / |y|$ for the score y and the scores without channel k (C,).

    The paper divides by y itself; its absolute value keeps the sign right for a negative score. Undivided for y = 0.
    """
    return (score - ablated_scores) / (score.abs() if score != 0 else 1)


class AblationCAM(BaseCAM):
    """Channels weighted by how far the score falls when they are set to zero; no gradients.

    ablation_layer: sets channels to zero; None is AblationLayer or, for channels-last layers, AblationLayerVit.
    batch_size: channels ablated at a time. ratio_channels_to_ablate: the share of the channels that is ablated, those
    with the most energy first; the others have weight zero. Further options are those of BaseCAM.

    Cost: three forwards (one of them for the first call on a layer only) and, for each channel, the part of the model
    behind the layer.
    """

    uses_gradients = False

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: Any = None,
        reshape_transform: Callable | None = None,
        ablation_layer: AblationLayer | None = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.ablation_layer = ablation_layer
        self.batch_size = batch_size
        self.ratio_channels_to_ablate = ratio_channels_to_ablate
        self._partial_run_follows: dict[nn.Module, bool] = {}

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        with undisturbed(self.model), torch.no_grad():
            tail = PartialForward(self.model, target_layer, input_tensor)
            try:
                targets = resolve_targets(targets, tail.outputs)
                scores = target_scores(tail.outputs, targets)
                if target_layer not in self._partial_run_follows:
                    self._partial_run_follows[target_layer] = tail.follows()
                weights = [
                    self._image_weights(tail, image, target, scores[image], activations[image])
                    for image, target in enumerate(targets)
                ]
            finally:
                tail.close()
        return torch.stack(weights)

    def _image_weights(
        self, tail: PartialForward, image: int, target: Target, score: torch.Tensor, activations: torch.Tensor
    ) -> torch.Tensor:
        output = tail.layer_output
        ablate = self.ablation_layer or _ablation_layer_for(output, activations)
        channels = ablate.activations_to_be_ablated(to_array(activations), self.ratio_channels_to_ablate)
        whole = not self._partial_run_follows[tail.layer]

        def ablated_scores(start: int, stop: int) -> torch.Tensor:
            def ablated(layer_output: torch.Tensor) -> torch.Tensor:
                ablate.indices = channels[start:]
                ablate.set_next_batch(image, output, stop - start)
                return ablate(layer_output)

            return target_scores(tail(image, stop - start, ablated, whole), [target] * (stop - start))

        without = in_chunks(ablated_scores, len(channels), self.batch_size, "AblationCAM channels")
        weights = torch.zeros(len(activations), device=output.device)
        weights[torch.as_tensor(channels, device=output.device)] = ablation_cam_weights(score, without).float()
        return weights


def _ablation_layer_for(output: torch.Tensor, activations: torch.Tensor) -> AblationLayer:
    """By where the layer's output (N, ...) has the channels of one image's map (C, *spatial)."""
    channels = len(activations)
    if output.shape[1:] != activations.shape and output.shape[-1] == channels:
        return AblationLayerVit()
    if output.shape[1] == channels:
        return AblationLayer()
    raise ValueError(
        f"the target layer gives {tuple(output.shape)}, its map has {channels} channels: neither the second nor the "
        "last axis holds them. Pass an ablation_layer that sets channels of such an output to zero"
    )

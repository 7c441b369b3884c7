"""Ablation-CAM (Desai & Ramaswamy 2020, WACV)."""

import torch

from pytorch_grad_cam.ablated_scores import score_falls
from pytorch_grad_cam.ablation_layer import ablation_layer_for
from pytorch_grad_cam.array_interface import to_array
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.model_state import undisturbed
from pytorch_grad_cam.old_spellings import old_constructor
from pytorch_grad_cam.target_scores import resolve_targets, target_scores


def ablation_cam_weights(score: torch.Tensor, falls: torch.Tensor) -> torch.Tensor:
    r"""Eq. 3: $w_k = (y - y_k) / |y|$ for the score y and its falls $y - y_k$ without channel k (C,).

    The paper divides by y itself; its absolute value keeps the sign right for a negative score. Undivided for y = 0.
    """
    return falls / (score.abs() if score != 0 else 1)


class AblationCAM(BaseCAM):
    """Channels weighted by how far the score falls when they are set to zero; no gradients.

    ablation_layer: sets channels to zero; None is AblationLayer or, for channels-last layers, AblationLayerVit.
    batch_size: channels ablated at a time. ratio_channels_to_ablate: the share of the channels that is ablated, those
    with the most energy first; the others have weight zero. Further options are those of BaseCAM.
    Cost, for each target: two forwards (three for the first call with a number of images) and, for each channel, the
    model's tail behind the layer; where that is affine (global pooling and a linear classifier) one gradient of it
    gives the same for all channels.
    """

    uses_gradients = False

    @old_constructor
    def __init__(
        self,
        model,
        target_layers=None,
        reshape_transform=None,
        ablation_layer=None,
        batch_size=32,
        ratio_channels_to_ablate=1.0,
        **options,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.ablation_layer, self.batch_size = ablation_layer, batch_size
        self.ratio_channels_to_ablate = ratio_channels_to_ablate

    @torch.no_grad()
    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        weights = torch.zeros(activations.shape[:2], device=activations.device)
        with undisturbed(self.model), self._tail(input_tensor, target_layer) as tail:
            targets = resolve_targets(targets, tail.scores)
            for image, score in enumerate(target_scores(tail.scores, targets)):
                ablate = ablation_layer_for(self.ablation_layer, tail.layer_output, tail.batch, activations[image])
                channels = ablate.activations_to_be_ablated(to_array(activations[image]), self.ratio_channels_to_ablate)
                falls = score_falls(tail, image, targets[image], score, ablate, channels, self.batch_size)
                weights[image, torch.as_tensor(channels)] = ablation_cam_weights(score, falls).to(weights)
        return weights

"""Ablation-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.targets import Target, check_own_scores, resolve_targets, scores_of_lists
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.perturbation.ablated_scores import score_falls

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytorch_grad_cam.ablation_layer import AblationLayer


def ablation_cam_weights(score: torch.Tensor, falls: torch.Tensor) -> torch.Tensor:
    r"""Eq. 3: $w_k = (y - y_k) / |y|$ for scores y (...) and their falls $y - y_k$ without each channel k (..., C).

    The paper divides by y itself; its absolute value keeps the sign right for a negative score. Undivided for y = 0.
    """
    return falls / score.abs().masked_fill(score == 0, 1)[..., None]


class AblationCAM(BaseCAM):
    """Channels weighted by how far the score falls when they are set to zero; no gradients.

    ablation_layer: sets channels to zero; None is AblationLayer or, for channels-last layers, AblationLayerVit.
    batch_size: channels ablated at a time, of one image or several; None is 32 on a CPU and 128 elsewhere.
    ratio_channels_to_ablate: the share of the channels that is ablated, those with the most energy first; the others
    have weight zero. Further options are those of BaseCAM.
    When to take it: without gradients, or where they are saturated, at a layer with few channels or an affine tail.
    Not in front of a long tail: it runs once for each channel.
    Cost: two forwards (three for the first call with a number of images, and one of two samples for the first, see
    `engine.rectifiers`) and, for each channel of each image, the model's tail behind the layer; where that is affine
    (global pooling and a linear classifier) one gradient a target of all images gives the same.
    Paper: Desai & Ramaswamy 2020, WACV, https://doi.org/10.1109/WACV45572.2020.9093360.
    """

    averages_positions = True

    uses_gradients = is_differentiable = False
    takes_rectified = True

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        ablation_layer: AblationLayer | None = None,
        batch_size: int | None = None,
        ratio_channels_to_ablate: float = 1.0,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.ablation_layer, self.batch_size = ablation_layer, batch_size
        self.ratio_channels_to_ablate = ratio_channels_to_ablate

    def weigh(self, run: LayerRun) -> torch.Tensor:
        def of_ablated(target_lists: Sequence[Sequence[Target]]) -> torch.Tensor:
            options = self.ablation_layer, self.ratio_channels_to_ablate, self.batch_size
            with run.tail() as tail:
                check_own_scores(tail.scores, len(run.image))
                target_lists = [list(resolve_targets(target_list, tail.scores)) for target_list in target_lists]
                scores = scores_of_lists(tail.scores, target_lists)
                falls = score_falls(tail, target_lists, scores, run.activations, *options)
            return ablation_cam_weights(scores, falls).to(run.activations.device)

        with undisturbed(self.model, known=self._known), torch.no_grad():
            return run.of_targets(of_ablated)

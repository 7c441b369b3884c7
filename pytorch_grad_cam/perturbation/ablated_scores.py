"""How far the score of an image falls without one channel of a layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit, ablation_layer_for
from pytorch_grad_cam.engine.chunks import in_chunks
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import Target, scores_of_lists
from pytorch_grad_cam.engine.trees import to_array
from pytorch_grad_cam.perturbation.affine_tail import contributions


def score_falls(
    tail: PartialForward,
    image: int,
    targets: Sequence[Target],
    scores: torch.Tensor,
    activations: torch.Tensor,
    ablation_layer: AblationLayer | None,
    ratio: float,
    batch_size: int,
) -> torch.Tensor:
    """The scores (K,) of the K targets for one image of the batch less those without each of its channels: (C, K).

    activations: the image's (C, *spatial), of which the share `ratio` of the channels is ablated; 0 for the others.
    Computed by ablating them, `batch_size` at a time; where the tail is affine and to ablate is to set to zero, from
    one gradient a target.
    """
    ablate = ablation_layer_for(ablation_layer, tail.layer_output, tail.batch, activations)
    channels = ablate.activations_to_be_ablated(to_array(activations), ratio)
    falls = scores.new_zeros(len(activations), len(targets))
    falls[torch.as_tensor(channels)] = _falls(tail, image, targets, scores, ablate, channels, batch_size).to(falls)
    return falls


def _falls(
    tail: PartialForward,
    image: int,
    targets: Sequence[Target],
    scores: torch.Tensor,
    ablate: AblationLayer,
    channels: np.ndarray,
    batch_size: int,
) -> torch.Tensor:
    if type(ablate) in (AblationLayer, AblationLayerVit):
        added = contributions(tail, image, targets, ablate.channel_axis)
        if added is not None:
            of_channels = [each.movedim(ablate.channel_axis, 0).flatten(1).sum(1) for each in added]
            return torch.stack(of_channels, dim=1)[torch.as_tensor(channels)]

    def without(start: int, stop: int) -> torch.Tensor:
        def ablated(layer_output: Any) -> Any:
            ablate.indices = channels[start:]
            ablate.set_next_batch(image, tail.layer_output, stop - start)
            return ablate(layer_output)

        rows = stop - start
        return scores_of_lists(tail(image, rows, ablated), [[target] * rows for target in targets]).T

    return scores - in_chunks(without, len(channels), batch_size, "AblationCAM channels")

"""How far the score of an image falls without one channel of a layer."""

from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
from pytorch_grad_cam.affine_tail import contributions
from pytorch_grad_cam.chunks import in_chunks
from pytorch_grad_cam.partial_forward import PartialForward
from pytorch_grad_cam.target_scores import Target, target_scores


def score_falls(
    tail: PartialForward,
    image: int,
    target: Target,
    score: torch.Tensor,
    ablate: AblationLayer,
    channels: np.ndarray,
    batch_size: int,
) -> torch.Tensor:
    """The target's score for one image of the batch less that without each of the channels (K,).

    Computed by ablating them, `batch_size` at a time; where the tail is affine and to ablate is to set to zero, from
    one gradient.
    """
    if type(ablate) in (AblationLayer, AblationLayerVit):
        added = contributions(tail, image, target, ablate.channel_axis)
        if added is not None:
            return added.movedim(ablate.channel_axis, 0).flatten(1).sum(1)[torch.as_tensor(channels)]

    def scores(start: int, stop: int) -> torch.Tensor:
        def ablated(layer_output: Any) -> Any:
            ablate.indices = channels[start:]
            ablate.set_next_batch(image, tail.layer_output, stop - start)
            return ablate(layer_output)

        return target_scores(tail(image, stop - start, ablated), [target] * (stop - start))

    return score - in_chunks(scores, len(channels), batch_size, "AblationCAM channels")

"""The scores of an image without one channel of a layer."""

from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.chunks import in_chunks
from pytorch_grad_cam.partial_forward import PartialForward
from pytorch_grad_cam.target_scores import Target, target_scores


def ablated_scores(
    tail: PartialForward, image: int, target: Target, ablate: AblationLayer, channels: np.ndarray, batch_size: int
) -> torch.Tensor:
    """The target's score for one image of the batch without each of the channels (K,), `batch_size` at a time."""

    def scores(start: int, stop: int) -> torch.Tensor:
        def ablated(layer_output: Any) -> Any:
            ablate.indices = channels[start:]
            ablate.set_next_batch(image, tail.layer_output, stop - start)
            return ablate(layer_output)

        return target_scores(tail(image, stop - start, ablated), [target] * (stop - start))

    return in_chunks(scores, len(channels), batch_size, "AblationCAM channels")

"""What AblationCAM puts in the place of the target layer. Subclass one for layers of another layout."""

import numpy as np
import torch
from torch import nn


class AblationLayer(nn.Module):
    """Returns one image's activations many times, in each row with another channel set to zero.

    AblationCAM calls `activations_to_be_ablated` once an image; then, for each chunk, it sets `indices` to the
    channels still to be ablated, calls `set_next_batch`, and calls the layer in the place of the model's own.
    """

    channel_axis = 1

    def __init__(self) -> None:
        super().__init__()
        self.indices: np.ndarray = np.arange(0)
        self.activations = torch.empty(0)

    def activations_to_be_ablated(self, activations: np.ndarray, ratio_channels_to_ablate: float = 1.0) -> np.ndarray:
        """The channels of one image's (C, *spatial) to ablate: the share with the most energy, the strongest first.

        A channel's energy, its sum of squares, bounds what setting it to zero can change. Raises ValueError for a share
        outside (0, 1].
        """
        if not 0 < ratio_channels_to_ablate <= 1:
            raise ValueError(f"ratio_channels_to_ablate is {ratio_channels_to_ablate}, expected a share in (0, 1]")
        channels = len(activations)
        if ratio_channels_to_ablate == 1:
            self.indices = np.arange(channels)
        else:
            energy = np.square(activations.reshape(channels, -1)).sum(axis=1)
            strongest = np.argsort(-energy, kind="stable")
            self.indices = strongest[: max(1, round(ratio_channels_to_ablate * channels))]
        return self.indices

    def set_next_batch(self, input_batch_index: int, activations: torch.Tensor, num_channels_to_ablate: int) -> None:
        """Keep `num_channels_to_ablate` copies of one image's output of the layer (N, ...)."""
        image = activations[input_batch_index]
        self.activations = image.expand(num_channels_to_ablate, *image.shape).clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The copies, channel `indices[row]` of each row set to zero."""
        output = self.activations
        rows = len(output)
        channels = torch.as_tensor(self.indices[:rows], device=output.device)
        output.movedim(self.channel_axis, 1)[torch.arange(rows, device=output.device), channels] = 0
        self.indices = self.indices[rows:]
        return output


class AblationLayerVit(AblationLayer):
    """For layers with the channels last: tokens (N, T, C) of a ViT, maps (N, H, W, C) of a Swin."""

    channel_axis = -1

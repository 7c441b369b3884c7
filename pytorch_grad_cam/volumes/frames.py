"""A network for pictures as one for clips and volumes."""

from __future__ import annotations

import torch
from torch import nn


class FrameByFrame(nn.Module):
    """A network for pictures (N, C, H, W) over the frames of clips, or the slices of volumes: the mean of its scores.

    A CAM of it has a map for each frame, all on one scale, for the frames are run as one batch: a layer of the network
    named or found, `FrameByFrame(network)` in the place of the network. Of clips longer than the memory:
    `SlidingWindowCAM(FrameByFrame(network), roi_size=(16, -1, -1))`.
    """

    def __init__(self, network: nn.Module, axis: int = 2) -> None:
        """network: from pictures to scores (N, classes). axis: of the frames in the clips: 2 is (N, C, T, H, W), 1 is
        (N, T, C, H, W).
        """
        super().__init__()
        self.network, self.axis = network, axis

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """The mean (N, classes) of the frames' scores."""
        frames = clip.movedim(self.axis, 1)
        scores: torch.Tensor = self.network(frames.flatten(0, 1))
        return torch.unflatten(scores, 0, frames.shape[:2]).mean(1)

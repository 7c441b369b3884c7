"""What the steps of one call of a CAM share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import Inputs
from pytorch_grad_cam.engine.targets import Target
from pytorch_grad_cam.registration.registration import Registration


@dataclass
class CurrentCall:
    """inputs: all that the model is called with.

    columns: with several targets an image the lists (N,) of targets, of which the map of number `column` is made;
    of_columns: by layer and run what was computed for all of them at once.
    call_index: which run of the layer the map is made of; registration: where the layer's cells are drawn.
    """

    inputs: Inputs
    columns: list[list[Target]] = field(default_factory=list)
    column: int = 0
    of_columns: dict[tuple[nn.Module, int], torch.Tensor] = field(default_factory=dict)
    call_index: int = 0
    registration: Registration | None = None

"""Models with several images, as siamese and stereo networks: which runs of shared layers read the one asked about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of, rows_of
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.locate.traced_forward import TracedForward

# What has as many axes as the least image: a signal (N, C, time), a spectrogram (N, time, mel).
_LEAST_AXES = 3
# Normalisation by the batch's own statistics needs two.
_SAMPLES = 2


def runs_of_other_inputs(model: nn.Module, inputs: Inputs, spatial_from: SpatialFrom) -> set[tuple[nn.Module, int]]:
    """Modules that run several times, each with the number of a run that the image does not lead to while it leads to
    another one: what is drawn of such a run belongs to another input.

    Cost: nothing for a single image, else one forward of the first two samples with its graph. Within `undisturbed`.
    """
    if not isinstance(inputs, tuple | Mapping) or not _has_several_images(inputs):
        return set()
    samples = len(image_of(inputs, spatial_from))
    few = rows_of(inputs, torch.arange(min(samples, _SAMPLES)), samples)
    reading: dict[nn.Module, dict[int, bool]] = defaultdict(dict)
    for entry in TracedForward(model, few, spatial_from).runs:
        reads = reading[entry.module]
        reads[entry.run] = reads.get(entry.run, False) or entry.returned.requires_grad
    return {
        (module, number)
        for module, runs in reading.items()
        for number, reads_image in enumerate(runs.values())
        if any(runs.values()) and not reads_image
    }


def _has_several_images(inputs: Any) -> bool:
    return sum(tensor.ndim >= _LEAST_AXES for tensor in floating_tensors(inputs)) > 1

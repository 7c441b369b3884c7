"""How far scores fall without one channel of a layer."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.ablation_layer import (
    ZEROING,
    AblationLayer,
    ablation_layer_for,
    set_to_zero,
    strongest_channels,
)
from pytorch_grad_cam.engine.chunks import in_chunks, rows_at_a_time
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.tail import PartialForward, Replace
from pytorch_grad_cam.engine.targets import RowScores, Target
from pytorch_grad_cam.engine.trees import copied, to_array
from pytorch_grad_cam.perturbation.affine_tail import ScoresWith, contributions


def score_falls(
    tail: PartialForward,
    target_lists: Sequence[Sequence[Target]],
    scores: torch.Tensor,
    activations: torch.Tensor,
    ablation_layer: AblationLayer | None,
    ratio: float,
    batch_size: int | None,
) -> torch.Tensor:
    """The scores (K, N) of K lists of N targets less those without each of the layer's channels: (K, N, C).

    activations: (N, C, *spatial); of each image the share `ratio` of the channels is ablated, the others get 0.
    ablation_layer: None for the one that suits the layer's output. batch_size: how many rows the tail gets at a time;
    None for as many as suit the device.

    Cost: where the tail is affine a few runs of it, see `contributions`; else, and for images that this does not hold
    for, a row of the tail for each image and channel. Rows of several images share a run; with an ablation layer of the
    user's each image has its own. The host waits for the device a few times a call, for small copies to it and for the
    check of `contributions`, but for no chunk.
    """
    falls = scores.new_zeros(*scores.shape, activations.shape[1])
    if not len(activations):
        return falls
    layer = ablation_layer_for(ablation_layer, tail.layer_output, activations)
    score_rows = RowScores(target_lists, scores.device)
    size = rows_at_a_time(scores.device) if batch_size is None else batch_size

    def scores_with(rows: Rows, replace: Replace) -> torch.Tensor:
        return score_rows(tail(rows, replace), rows)

    if type(layer) in ZEROING:
        channels = strongest_channels(activations, ratio).to(scores.device)
        of_channels = _falls_with_zeros(scores_with, scores, channels, tail.layer_output, layer.channel_axis, size)
        return falls.scatter(2, channels.expand(len(scores), -1, -1), of_channels)
    for image, own_activations in enumerate(activations):
        own_layer = copy(layer)  # it keeps the state of one image
        chosen = own_layer.activations_to_be_ablated(to_array(own_activations), ratio)
        ablated = _scores_by_layer(own_layer, scores_with, image, chosen, tail.layer_output, scores.device, size)
        falls[:, image, torch.as_tensor(chosen)] = scores[:, image, None] - ablated
    return falls


def _falls_with_zeros(
    scores_with: ScoresWith,
    scores: torch.Tensor,
    channels: torch.Tensor,
    layer_output: Any,
    channel_axis: int,
    size: int,
) -> torch.Tensor:
    """The falls (K, N, k) of the scores when the channels (N, k) are set to zero, one at a time."""
    images, count = list(range(len(channels))), channels.shape[1]
    falls = scores.new_empty(*scores.shape, count)
    found = contributions(scores_with, layer_output, channel_axis)
    if found is not None:
        added, exact = found
        falls = added.to(falls).gather(2, channels.expand(len(scores), -1, -1))
        images = [image for image, holds in enumerate(exact.tolist()) if not holds]
    if not images:
        return falls
    rows = Rows.repeated(images, count, scores.device)
    of_rows = channels[images].flatten()

    def without(start: int, stop: int) -> torch.Tensor:
        def zeroed(output: Any) -> Any:
            return set_to_zero(copied(output), of_rows[start:stop], channel_axis)

        return scores_with(rows[start:stop], zeroed).T

    ablated = in_chunks(without, len(rows), size, "AblationCAM channels").T
    falls[:, images] = scores[:, images, None] - torch.unflatten(ablated, 1, (len(images), count))
    return falls


def _scores_by_layer(
    layer: AblationLayer,
    scores_with: ScoresWith,
    image: int,
    channels: np.ndarray,
    layer_output: Any,
    device: torch.device,
    size: int,
) -> torch.Tensor:
    """The scores (K, k) of one image when the layer ablates its k channels, one at a time."""
    rows = Rows.of([image] * len(channels), device)

    def without(start: int, stop: int) -> torch.Tensor:
        def ablated(output: Any) -> Any:
            layer.indices = channels[start:]
            layer.set_next_batch(image, layer_output, stop - start)
            return layer(copied(output))

        return scores_with(rows[start:stop], ablated).T

    return in_chunks(without, len(channels), size, "AblationCAM channels").T

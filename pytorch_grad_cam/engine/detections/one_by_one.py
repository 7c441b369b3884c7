"""Calls that are made of one image at a time: images of several sizes, and with several numbers of boxes."""

from __future__ import annotations

from typing import Any

import torch

from pytorch_grad_cam.engine.detections.box_targets import of_one_prediction
from pytorch_grad_cam.engine.inputs import Inputs, image_of, is_list_of_images, rows_of


def one_by_one(inputs: Inputs, targets: Any, spatial_from: Any) -> list[tuple[Inputs, Any]]:
    """The inputs and targets of each image, where they do not fit into one batch; none where they do.

    They are lists of images (C, H, W) of several sizes, and targets of which each image has its own number, for
    detections.
    """
    several_sizes = is_list_of_images(inputs) and len({image.shape for image in inputs}) > 1
    several_counts = isinstance(targets, list | tuple) and _are_uneven(targets)
    if not several_sizes and not several_counts:
        return []
    samples = len(inputs) if several_sizes else len(image_of(inputs, spatial_from))
    own = isinstance(targets, list | tuple)
    if own and len(targets) != samples:
        raise ValueError(f"{len(targets)} targets for {samples} images: give one for each, or a single one for all")
    each = (
        [[image] for image in inputs]
        if several_sizes
        else [rows_of(inputs, torch.tensor([sample]), samples) for sample in range(samples)]
    )
    return [(image, [targets[sample]] if own else targets) for sample, image in enumerate(each)]


def maps_of_each(cam: Any, apart: list[tuple[Inputs, Any]], *smoothing: bool, as_tensor: bool) -> list[Any]:
    """A list of maps, one for each image (H, W) or (K, H, W): the calls of a CAM that `one_by_one` sets apart.

    The CAM then has the outputs and predictions of all.
    """
    maps, outputs = [], []
    predictions: list[Any] = []
    for inputs, targets in apart:
        maps.append(cam(inputs, targets, *smoothing, as_tensor=as_tensor)[0])
        outputs.append(cam.outputs)
        predictions += cam.predictions or [None]
    cam.outputs, cam.predictions = outputs, predictions
    return maps


def _are_uneven(targets: Any) -> bool:
    counts = {len(row) if isinstance(row, list | tuple) else None for row in targets}
    return len(counts) > 1 and of_one_prediction(targets)

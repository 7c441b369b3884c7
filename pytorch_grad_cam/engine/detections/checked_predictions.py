"""Whether the predictions of a call can be explained one by one."""

from collections.abc import Mapping
from typing import Any

import torch

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.detections.box_targets import of_one_prediction
from pytorch_grad_cam.engine.layer_run import Call
from pytorch_grad_cam.engine.trees import detached


def checked_predictions(targets: Any, call: Call, method: str, averages_positions: bool) -> Any:
    """The predictions that a call is about, without their graph; a CamWarning where a method is asked for one of them
    whose weights have no places.

    targets: as they were given. averages_positions: whether a channel has one weight for all positions. A method that
    knows no targets says the same of all.
    Raises ValueError for boxes in images that were padded to one batch.
    """
    if of_one_prediction(targets):
        _check_unpadded(call.inputs)
    knows_targets = any(call.target_lists)
    asked = call.target_lists if averages_positions else [] if knows_targets else targets
    if of_one_prediction(asked):
        _warn_of_lookalikes(method)
    return detached(call.scores.predictions)


def _warn_of_lookalikes(method: str) -> None:
    issue(
        CamWarning(
            f"{method} has no weights for single positions, so that its map of a box marks all objects that look "
            "alike: take LayerCAM or HiResCAM"
        )
    )


def _check_unpadded(inputs: Any) -> None:
    """Raise ValueError where images are padded to one batch, as transformers' processors do it: their boxes are shares
    of the images without it.
    """
    mask = inputs.get("pixel_mask") if isinstance(inputs, Mapping) else None
    if isinstance(mask, torch.Tensor) and not mask.all():
        raise ValueError("images of several sizes, padded to one batch (pixel_mask): call the CAM once for each image")

"""Models that give something else in training mode, where their user has them, than in evaluation mode."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, model_device, on_device_of, rows_of


def warn_of_another_output(
    model: nn.Module,
    inputs: Inputs,
    spatial_from: SpatialFrom,
    scores_in: Callable[[Any], Any],
    outputs: Any,
) -> None:
    """A CamWarning where a sample's scores have another shape in the mode that the model is in than in `outputs`, those
    of evaluation mode: re-identification networks give identities in training, features else.

    Only where code of the model, not of PyTorch, asks for `training`. Cost: one forward of the first sample, twice in
    a batch, since normalisations refuse one. It has copies of the buffers, and the random state is put back; what else
    the model's own code does in training mode happens once more. A forward that fails, as for want of labels, says
    nothing.
    """
    if not any(_asks_for_training(type(module)) for module in model.modules()):
        return
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    for table, own in buffers:
        table.update({name: None if buffer is None else buffer.clone() for name, buffer in own.items()})
    device = model_device(model)
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
            twice = rows_of(inputs, torch.tensor([0, 0]), len(image_of(inputs, spatial_from)))
            trained = scores_in(call(model, on_device_of(model, twice))).shape[1:]
            explained = scores_in(outputs).shape[1:]
    except Exception:  # noqa: BLE001
        return  # whatever it stumbled over: the map is there, and the question is left open
    finally:
        for table, own in buffers:
            table.update(own)
    if trained != explained:
        issue(
            CamWarning(
                f"the model is in training mode, where it gives {tuple(trained)} for an image; explained is what it "
                f"gives in evaluation mode, {tuple(explained)}. If the targets are meant for the former, pass an "
                "output_transform that makes it of the latter; if not, call model.eval() before"
            )
        )


def _asks_for_training(kind: type) -> bool:
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] != "torch"]
    functions = [inspect.unwrap(member) for base in own for member in vars(base).values() if inspect.isfunction(member)]
    return any("training" in function.__code__.co_names for function in functions)

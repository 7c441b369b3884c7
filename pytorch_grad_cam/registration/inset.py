"""Whether a layer looks further inside the image than its map is drawn: convolutions without padding use up borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import rows_of
from pytorch_grad_cam.engine.layer_run import Call, CapturedRun
from pytorch_grad_cam.engine.layers import names_of
from pytorch_grad_cam.locate.place_check import check_places
from pytorch_grad_cam.registration.registration import Registration, by_geometry

# How far the outermost cells may look further inside than even tiles are, in cells and in the image's length. Of 13
# networks of torchvision and timm .52 of a cell at most (squeezenet1_0), LeNet's last pooling .64; what training makes
# of half a cell geometry does not say. A 32nd of the image is that of `locate.place_check`.
_CELLS, _OF_IMAGE = 0.6, 1 / 32


def check_drawn(call: Call, drawn: Sequence[tuple[CapturedRun, torch.Tensor]], transform: Any) -> None:
    """`locate.place_check.check_places`, and a CamWarning where even tiles are not where the outermost cells look.

    Cost: that of `check_places`; in networks with convolutions or pooling that use up borders one forward more of the
    first sample for each layer.
    """
    check_places(call, drawn, transform)
    if not any(map(_uses_up_borders, call.model.modules())):
        return
    for captured in {captured.run.layer: captured for captured, _ in drawn}.values():
        run = captured.run
        if run.registration is None:
            one = rows_of(call.inputs, torch.tensor([0]), len(call.image))
            how = captured.read, call.spatial_from, run.activations.shape[2:]
            inset = _inset(by_geometry(call.model, run.layer, one, *how))
            if inset:
                size = " x ".join(map(str, call.image.shape[2:]))
                issue(CamWarning(_INSET.format(names_of(call.model, [run.layer])[0], inset, size)))


_INSET = (
    "the map of {0} is drawn up to {1:.0f} pixels too far towards the border: convolutions or pooling without padding "
    "use up the border of the {2} image, and cells are drawn as even tiles. align='receptive_field' draws each cell "
    "where it looks"
)


def _inset(registration: Registration) -> float:
    """How far the outermost cells look further inside than even tiles are, in pixels; 0 for what is tolerated."""
    farthest = 0.0
    for pixels, cells, first, step in zip(*registration[:4], strict=True):
        tile = pixels / cells
        last = first + step * (cells - 1)
        inside = max(first - (tile - 1) / 2, pixels - (tile + 1) / 2 - last)
        if cells > 1 and inside > max(_CELLS * tile, _OF_IMAGE * pixels):
            farthest = max(farthest, inside)
    return farthest


def _uses_up_borders(module: nn.Module) -> bool:
    """Whether a module's cells do not reach the ends of what it reads by more than its stride."""
    if not isinstance(module, _WITH_WINDOWS) or module.padding == "same":
        return False
    padding = 0 if module.padding == "valid" else module.padding
    window = module.kernel_size, module.stride, padding, getattr(module, "dilation", 1)
    axes = zip(*map(_of_axes, window), strict=False)
    return any(dilation * (kernel - 1) + 1 - 2 * border > stride for kernel, stride, border, dilation in axes)


_WITH_WINDOWS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
)


def _of_axes(number: Any) -> Sequence[int]:
    return number if isinstance(number, Sequence) else (number,) * 3

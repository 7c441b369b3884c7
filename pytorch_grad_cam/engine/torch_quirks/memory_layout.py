"""Many forwards of a model in the memory layout in which its convolutions are fastest."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_as_they_come: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def in_fastest_layout(model: nn.Module, run: Callable[[torch.Tensor], Any], images: torch.Tensor) -> Any:
    """run(images), which calls the model; on the CPU the images lie channels last in memory.

    Convolutions are 1.3 to 2 times as fast there; see `in_layout`.
    """
    return in_layout(model, run, images, channels_last=images.device.type == "cpu")


def in_layout(model: nn.Module, run: Callable[[torch.Tensor], Any], images: torch.Tensor, channels_last: bool) -> Any:
    """run(images), which calls the model, with images that lie channels last in memory or as they come.

    The values are the same up to rounding. A model that depends on the layout (`view` behind a convolution) is run
    again, and from then on, with the images as they come.
    """
    if not channels_last or images.ndim not in _CHANNELS_LAST or model in _as_they_come:
        return run(images)
    try:
        return run(images.contiguous(memory_format=_CHANNELS_LAST[images.ndim]))
    except RuntimeError:
        result = run(images)  # if it was not the layout, the same is raised again
        _as_they_come.add(model)
        return result

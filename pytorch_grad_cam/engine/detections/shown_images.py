"""Detectors that resize and pad images inside: what they were shown, and maps of it brought back to the image."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.detections.raw_predictions import raw_predictions_kept
from pytorch_grad_cam.engine.inputs import Inputs, image_of, on_device_of
from pytorch_grad_cam.engine.maps import Scaling, min_max, resize
from pytorch_grad_cam.engine.watch import Arguments, Watch

Size = tuple[int, int]

# What torchvision's own transforms leave as it is, by their settings and the images' shape: it does not depend on more.
_leaving: weakref.WeakKeyDictionary[nn.Module, set[tuple[str, torch.Size]]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Shown:
    """What a model is called with in the place of images that it would resize or pad.

    inputs: the images (N, C, H, W) as its layers see them. given: the size of the images, None where nobody asks.
    covered: how many rows and columns of the inputs are of the image, the others are padding; None where nothing is
    changed.
    """

    inputs: Inputs
    given: Size | None = None
    covered: Size | None = None

    def brought_back(self, maps: torch.Tensor, scale: Scaling = min_max) -> torch.Tensor:
        """Maps (N, H, W), or (N, K, H, W), without the padding and at the size of the images, scaled anew."""
        if self.given is None or self.covered is None:
            return maps
        rows, columns = self.covered
        flat = maps[..., :rows, :columns].flatten(0, -3)
        at_size = scale(resize(flat[:, None], self.given)[:, 0])
        return at_size.reshape(*maps.shape[:-2], *self.given)


def as_shown(
    make: Callable[..., Any],
    model: nn.Module,
    suppressing: Sequence[nn.Module],
    scale: Scaling,
    inputs: Inputs,
    *how: Any,
) -> torch.Tensor:
    """Maps of a detector with thresholds of its own, which says all that it predicts of what it was shown.

    make: from inputs and `how` to maps; scale: what becomes of maps that are brought back.
    """
    with shown_with_raw_predictions(model, suppressing, inputs) as shown:
        return shown.brought_back(torch.as_tensor(make(shown.inputs, *how)), scale)


@contextmanager
def shown_with_raw_predictions(model: nn.Module, suppressing: Sequence[nn.Module], inputs: Inputs) -> Iterator[Shown]:
    """Within, in this thread: what `shown_by` and `raw_predictions_kept` say, of a model with these modules."""
    with shown_by(model, on_device_of(model, inputs)) as shown, raw_predictions_kept(suppressing, shown.given):
        yield shown


@contextmanager
def shown_by(model: nn.Module, inputs: Inputs) -> Iterator[Shown]:
    """Within, in this thread: the model takes images as its `transform`, torchvision's, would make them.

    Its transform is passed by, and its boxes are those of the images as they are given. Other models, and images that
    are neither padded nor get other proportions, are as ever. inputs: where the model is. Cost: the transform, once;
    for images that are as ever at the first call alone, if it is torchvision's own.
    """
    transform = model._modules.get("transform")
    if transform is None or not hasattr(transform, "postprocess"):
        yield Shown(inputs)
        return
    images = image_of(inputs)
    height, width = images.shape[2:]
    left = _leaving.setdefault(transform, set())
    how = str({name: value for name, value in vars(transform).items() if not name.startswith("_")}), images.shape
    if how in left:
        yield Shown(inputs, (height, width))
        return
    with torch.no_grad():
        batch, _ = transform(list(images))
    covered = tuple(batch.image_sizes[0])
    if covered == batch.tensors.shape[2:] and covered[0] * width == covered[1] * height:
        if type(transform).__module__.startswith("torchvision."):
            left.add(how)
        yield Shown(inputs, (height, width))  # cells cover the image as they cover what is shown
        return
    with _PassedBy(model, transform, (height, width)):
        yield Shown(batch.tensors, (height, width), covered)


class _PassedBy(Watch):
    """The model gets blank images of the given size, so that it knows it; behind the transform the shown ones."""

    def __init__(self, model: nn.Module, transform: nn.Module, given: Size) -> None:
        super().__init__([model, transform], before=lambda: None)
        self._given, self._kinds = given, (type(model), type(transform))
        self._images: Any = None

    def starts(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Of the model, which may be a copy of the one that is watched: other arguments."""
        if type(module) is not self._kinds[0]:
            return None
        (self._images,) = args
        blank = self._images.new_zeros(()).expand(self._images.shape[1], *self._given)
        return ([blank] * len(self._images),)

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        if type(module) is not self._kinds[1]:
            return None
        batch, targets = output
        return type(batch)(self._images, batch.image_sizes), targets

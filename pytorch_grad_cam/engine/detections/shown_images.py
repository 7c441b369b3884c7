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
    """Within, in this thread: the model takes images as the `transform`, torchvision's, of the one detector that it is,
    or has in it, would make them.

    That transform is passed by, and the boxes are those of the images as they are given. Other models, and images that
    are neither padded nor get other proportions, are as ever. inputs: where the model is. Cost: the transform, once;
    for images that are as ever at the first call alone, if it is torchvision's own.
    Within, the model raises ValueError where it changes images, that would be padded, in front of the detector.
    """
    detectors = [module for module in model.modules() if hasattr(module._modules.get("transform"), "postprocess")]
    if len(detectors) != 1:
        yield Shown(inputs)
        return
    transform: Any = detectors[0].transform
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
    with _PassedBy(model, detectors[0], (height, width)):
        yield Shown(batch.tensors, (height, width), covered)


class _PassedBy(Watch):
    """The detector gets blank images of the given size, so that it knows it; behind its transform the shown ones.

    model: the detector, or one that has it in it.
    """

    def __init__(self, model: nn.Module, detector: Any, given: Size) -> None:
        super().__init__({model, detector, detector.transform}, before=lambda: None)
        self._given = given
        self._model, self._detector, self._transform = (type(each) for each in (model, detector, detector.transform))
        self._images: Any = None

    def starts(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """What takes the place of the detector's arguments. Of modules that may be copies of those that are watched."""
        if type(module) is self._model:
            (self._images,) = args
        if type(module) is not self._detector:
            return None
        if type(module) is not self._model and not _are_those(self._images, *args):
            raise ValueError(
                f"{self._model.__name__} changes the images in front of the {self._detector.__name__} in it, which "
                "pads them, so that nobody knows where its cells look: explain that module itself, by what it is given"
            )
        blank = self._images.new_zeros(()).expand(self._images.shape[1], *self._given)
        return ([blank] * len(self._images),)

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        if type(module) is not self._transform:
            return None
        batch, targets = output
        return type(batch)(self._images, batch.image_sizes), targets


def _are_those(images: torch.Tensor, *args: Any) -> bool:
    """Whether the only argument is these images, as they lie in memory."""
    if len(args) != 1 or len(args[0]) != len(images):
        return False
    return all(_place(image) == _place(given) for image, given in zip(images, args[0], strict=True))


def _place(image: torch.Tensor) -> tuple[Any, ...]:
    return image.data_ptr(), image.shape, image.stride()

"""What an image may be given as: a picture, what the model takes, or several of either."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import as_tree
from pytorch_grad_cam.folder.batches import Batch, decoded, given, plan
from pytorch_grad_cam.folder.image_list import images_in, means_several
from pytorch_grad_cam.zoo.pictures import is_input

_RANKS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


class Several(NamedTuple):
    """Several images. are_given: whether they are inputs of the model. items: pictures, or batches of inputs.

    are_listed: whether somebody else has listed them, so that one that cannot be read is left out.
    """

    are_given: bool
    items: Iterable[Any]
    are_listed: bool = False

    def title(self, position: int) -> str:
        """The file's name, else ''."""
        item = self.items[position] if isinstance(self.items, Sequence) and not self.are_given else None
        return Path(item).name if isinstance(item, str | os.PathLike) else ""

    def batches(self, preprocess: Callable[[Any], Any], batch_size: int, workers: int, pinned: bool) -> Iterator[Batch]:
        """Their batches, of pictures as many as `batch_size`; those of files are decoded by `workers` processes."""
        if self.are_given:
            yield from given(self.items)
        elif isinstance(self.items, Sequence):
            processes = workers if len(self.items) > batch_size and isinstance(self.items[0], str | os.PathLike) else 0
            yield from decoded(self.items, preprocess, plan(len(self.items), batch_size), processes, pinned)
        else:
            yield from _numbered_on(self.items, preprocess, batch_size)


def is_given(image: Any) -> bool:
    """Whether an image is what the model takes: a tensor of floats, a mapping or a tuple of arguments."""
    return is_input(image) or isinstance(image, Mapping | tuple)


def given_batch(image: Any, model: nn.Module) -> Any:
    """An input as a batch. Raises ValueError for a tensor of another number of axes than the model's images have."""
    if not isinstance(image, torch.Tensor):
        return as_tree(image)
    axes = _rank_of(model) + 2
    if image.ndim not in (axes - 1, axes):
        sizes = ", ".join("DHW"[-(axes - 2) :])
        raise ValueError(f"the image has shape {tuple(image.shape)}, expected (C, {sizes}) or (N, C, {sizes})")
    return image if image.ndim == axes else image[None]


def several_of(image: Any, model: nn.Module) -> Several | None:
    """The images of a folder, a glob, a list of paths (.txt), a list, a loader, or an array with a batch axis.

    None for one image. A loader, as any other iterable, gives batches of inputs, or pictures.
    """
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        return Several(False, [each.path for each in images_in(path, None)], True) if means_several(path) else None
    if is_input(image):
        batch = given_batch(image, model)
        return Several(True, [batch]) if len(batch) > 1 else None
    if isinstance(image, np.ndarray | torch.Tensor):
        return Several(False, list(image)) if image.ndim == 4 and len(image) > 1 else None
    if is_given(image) or not isinstance(image, Iterable) or isinstance(image, bytes | bytearray | memoryview):
        return None
    if hasattr(image, "im") or hasattr(image, "getexif"):  # of Pillow, which can be looped over in no useful way
        return None
    return _of_iterable(image, model)


def _of_iterable(images: Iterable[Any], model: nn.Module) -> Several:
    rest: Iterable[Any]
    if isinstance(images, Sequence):
        if not len(images):
            raise ValueError("there are no images: the list is empty")
        first, rest = images[0], images
    else:
        iterator = iter(images)
        try:
            first = next(iterator)
        except StopIteration:
            raise ValueError("there are no images: what was given gave none") from None
        rest = chain([first], iterator)
    if is_input(first):
        return Several(True, (given_batch(each, model) for each in rest))
    return Several(isinstance(first, Mapping | tuple | list), rest)


def _numbered_on(pictures: Iterable[Any], preprocess: Callable[[Any], Any], batch_size: int) -> Iterator[Batch]:
    """The batches of pictures that are not there all at once."""
    iterator, start = iter(pictures), 0
    while chunk := list(islice(iterator, batch_size)):
        for groups, unreadable in decoded(chunk, preprocess, [list(range(len(chunk)))], workers=0, pinned=False):
            moved = [group._replace(positions=[start + each for each in group.positions]) for group in groups]
            yield Batch(moved, [(start + each, why) for each, why in unreadable])
        start += len(chunk)


def _rank_of(model: nn.Module) -> int:
    """How many spatial axes the model's images have, by its first convolution; two where it has none."""
    return next((_RANKS[type(module)] for module in model.modules() if type(module) in _RANKS), 2)

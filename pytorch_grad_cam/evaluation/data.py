"""The images of an evaluation in batches, each with its targets and its ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import image_of
from pytorch_grad_cam.explanations.sources import Several, given_batch, several_of
from pytorch_grad_cam.zoo.classifiers import Classifier
from pytorch_grad_cam.zoo.pictures import is_input
from pytorch_grad_cam.zoo.placement import Placement, Placements
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

_MOST_IN_A_TUPLE = 3


class Labelled(NamedTuple):
    """Images of one batch: their positions among all, the model's input (N, C, *spatial), targets and ground truth."""

    positions: list[int]
    images: torch.Tensor
    targets: list[Any] | None
    truth: Any


def batches_of(data: Any, classifier: Classifier, targets: Any, truth: Any, batch_size: int) -> Iterator[Labelled]:
    """The batches of the data, each of at most `batch_size` images, those of a loader as it gives them.

    data: see `evaluating.evaluate`. Issues a CamWarning for images of a folder that cannot be read; raises
    UnusableInput for those of a list, ValueError for other numbers of targets or of truths than images.
    """
    single = given_batch(data, classifier.model) if is_input(data) else None
    if single is not None:
        yield from _of_tensor(single, targets, truth, batch_size)
    elif _is_loader(data):
        if targets is not None or truth is not None:
            raise ValueError("a loader gives its own targets and truth: (images, targets, truth) in each batch")
        yield from _of_loader(data, classifier)
    else:
        several = several_of(data, classifier.model)
        if several is None:
            several = Several(False, [data])
        if several.are_given:
            yield from _of_tensor(torch.cat([*several.items]), targets, truth, batch_size)
        else:
            yield from _of_pictures(several, classifier, targets, truth, batch_size)


def _is_loader(data: Any) -> bool:
    """Whether it gives batches: what is no list of images, no path and no picture, and can be gone through."""
    is_one = isinstance(data, str | bytes | np.ndarray | torch.Tensor | Sequence | Mapping) or hasattr(data, "im")
    return isinstance(data, Iterable) and not is_one


def _of_tensor(images: torch.Tensor, targets: Any, truth: Any, batch_size: int) -> Iterator[Labelled]:
    listed, places = _one_each(targets, len(images), "targets"), _one_each(truth, len(images), "truths")
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        chunk = images[part]
        positions = list(range(start, start + len(chunk)))
        yield Labelled(positions, chunk, listed and listed[part], places and places[part])


def _of_loader(loader: Iterable[Any], classifier: Classifier) -> Iterator[Labelled]:
    start = 0
    for entry in loader:
        parts = [*entry] if isinstance(entry, tuple | list) else [entry]
        if not parts or not is_input(parts[0]) or len(parts) > _MOST_IN_A_TUPLE:
            raise ValueError(
                f"the loader gave {type(entry).__name__}, expected batches: images (N, C, *spatial), or tuples of "
                "images and targets, or of images, targets and truth"
            )
        images, targets, truth = [*parts, None, None][:_MOST_IN_A_TUPLE]
        images = given_batch(images, classifier.model)
        count = len(images)
        positions = list(range(start, start + count))
        yield Labelled(positions, images, _one_each(targets, count, "targets"), _one_each(truth, count, "truths"))
        start += count


def _of_pictures(
    several: Several, classifier: Classifier, targets: Any, truth: Any, batch_size: int
) -> Iterator[Labelled]:
    count = len(several.items) if isinstance(several.items, Sequence) else None
    listed, places = _one_each(targets, count, "targets"), _one_each(truth, count, "truths")
    placements = Placements(classifier.preprocess)
    for groups, unreadable in several.batches(classifier.preprocess, batch_size, 0, False):
        for _, reason in unreadable:
            if not several.are_listed:
                raise UnusableInput(reason)
            issue(CamWarning(f"not evaluated: {reason}"))
        for positions, inputs, sizes, _ in groups:
            images = image_of(inputs)
            of_images = None
            if places is not None:
                of_images = [
                    _on_input(places[position], size, placements, images)
                    for position, size in zip(positions, sizes, strict=True)
                ]
            yield Labelled(positions, images, listed and [listed[position] for position in positions], of_images)


def _on_input(truth: Any, size: tuple[int, int] | None, placements: Placements, images: torch.Tensor) -> Any:
    """Boxes or a mask of a picture at the pixels of the model's input."""
    placement = None if size is None else placements(size)
    if placement is None:
        raise UnusableInput("the ground truth cannot be followed through the preprocessing: pass tensors and their own")
    given = np.asarray(truth)
    if given.shape == (placement.size[1], placement.size[0]):
        return _mask_on_input(given, placement, images.shape[-2:])
    boxes = [placement.seen(box) for box in given.reshape(-1, 4).astype(np.float64).tolist()]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _mask_on_input(mask: np.ndarray, placement: Placement, size: Sequence[int]) -> np.ndarray:
    indices, inside = [], []
    for (scale, offset), length, side in zip((placement.y, placement.x), size, mask.shape, strict=True):
        places = np.floor(scale * (np.arange(length) + 0.5) + offset).astype(int)
        indices.append(places.clip(0, side - 1))
        inside.append((places >= 0) & (places < side))
    found: np.ndarray = (mask[np.ix_(*indices)] != 0) & inside[0][:, None] & inside[1][None]
    return found


def _one_each(values: Any, count: int | None, what: str) -> list[Any] | None:
    """A list of what belongs to each image; one target alone is that of all."""
    if values is None:
        return None
    if what == "targets" and (callable(values) or isinstance(values, int | np.integer | str)):
        return [values] * (count or 1)
    listed = values.tolist() if what == "targets" and isinstance(values, torch.Tensor | np.ndarray) else [*values]
    if count is not None and len(listed) != count:
        raise ValueError(f"{len(listed)} {what} for {count} images, expected one for each")
    return listed

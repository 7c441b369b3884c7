"""Images decoded and preprocessed by worker processes, in batches."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pytorch_grad_cam.folder.image_list import ListedImage
from pytorch_grad_cam.zoo.read_image import read_image

Preprocess = Callable[[Image.Image], torch.Tensor]


class Batch(NamedTuple):
    """The images of a batch by their positions in the list.

    groups: for each size the positions and the inputs (N, C, H, W). unreadable: the positions of the others, and why.
    """

    groups: list[tuple[list[int], torch.Tensor]]
    unreadable: list[tuple[int, str]]


def plan(images: int, batch_size: int) -> list[list[int]]:
    """The positions in each batch, consecutive ones.

    Nothing else may decide which images share a batch, because the last digits of their maps depend on it.
    """
    return [list(range(start, min(start + batch_size, images))) for start in range(0, images, batch_size)]


def decoded(
    images: Sequence[ListedImage], preprocess: Preprocess, batches: list[list[int]], workers: int, pinned: bool
) -> "DataLoader[Batch]":
    """The batches in turn, decoded ahead by `workers` processes. pinned: in memory that CUDA copies from faster."""
    return DataLoader(
        _Images(images, preprocess),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_by_size,
        pin_memory=pinned,
    )


class _Images(Dataset[Any]):
    def __init__(self, images: Sequence[ListedImage], preprocess: Preprocess) -> None:
        self.images = images
        self.preprocess = preprocess

    def __getitem__(self, position: int) -> tuple[int, torch.Tensor | str]:
        path = self.images[position].path
        try:
            return position, self.preprocess(read_image(path))
        except (ValueError, RuntimeError, MemoryError) as error:  # UnusableInput, or a size that cannot be preprocessed
            reason = str(error) or type(error).__name__
            return position, reason if path in reason else f"{path}: {reason}"


def _by_size(items: list[tuple[int, torch.Tensor | str]]) -> Batch:
    """The batch of items, which are a position with an input or with the reason why there is none."""
    groups: dict[torch.Size, list[tuple[int, torch.Tensor]]] = {}
    unreadable = []
    for position, item in items:
        if isinstance(item, str):
            unreadable.append((position, item))
        else:
            groups.setdefault(item.shape, []).append((position, item))
    unzipped = [list(zip(*group, strict=True)) for group in groups.values()]
    return Batch([(list(positions), torch.stack(inputs)) for positions, inputs in unzipped], unreadable)

"""Pictures decoded and preprocessed by worker processes, in batches; and the batches of a user's loader."""

import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.data import DataLoader, Dataset

from pytorch_grad_cam.zoo.pictures import as_picture
from pytorch_grad_cam.zoo.preprocessing import inputs_of

_LABELS = ("label", "labels", "target", "targets")


class Group(NamedTuple):
    """Images whose inputs have one size: their positions in the list, the model's inputs, a batch, and what they were.

    sizes: each picture's (width, height) before it was preprocessed; None for inputs that were given. labels: of a
    loader's batch the numbers beside the inputs, None where there are none.
    """

    positions: list[int]
    inputs: Any
    sizes: list[tuple[int, int] | None]
    labels: list[int | None]


class Batch(NamedTuple):
    """The images of a batch. unreadable: the positions of those without inputs, and why."""

    groups: list[Group]
    unreadable: list[tuple[int, str]]


class _Prepared(NamedTuple):
    position: int
    inputs: Any
    size: tuple[int, int]


def plan(images: int, batch_size: int) -> list[list[int]]:
    """The positions in each batch, consecutive ones.

    Nothing else may decide which images share a batch, because the last digits of their maps depend on it.
    """
    return [list(range(start, min(start + batch_size, images))) for start in range(0, images, batch_size)]


def decoded(
    pictures: Sequence[Any], preprocess: Callable[[Any], Any], batches: list[list[int]], workers: int, pinned: bool
) -> "DataLoader[Batch]":
    """The batches in turn, decoded ahead by `workers` processes. pinned: in memory that CUDA copies from faster.

    pictures: paths, or anything else that `zoo.pictures.as_picture` takes. preprocess: see `preprocessing.inputs_of`;
    one that cannot be sent to processes, as a lambda where they are not forked, is called in this one.
    """
    return DataLoader(
        _Pictures(pictures, preprocess),
        batch_sampler=batches,
        num_workers=workers if not workers or _can_be_sent(preprocess) else 0,
        collate_fn=_by_size,
        pin_memory=pinned,
        worker_init_fn=_silent_when_left,
    )


def _silent_when_left(_: int) -> None:
    """In a worker: after Ctrl-C the process that it hands tensors to has gone, of which Python's thread that hands them
    over (multiprocessing.resource_sharer) would print a traceback.
    """
    shown = sys.excepthook
    sys.excepthook = lambda kind, *of: None if issubclass(kind, ConnectionError | EOFError) else shown(kind, *of)


def _can_be_sent(preprocess: Any) -> bool:
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if method == "fork":
        return True
    try:
        pickle.dumps(preprocess)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def given(loader: Iterable[Any]) -> Iterator[Batch]:
    """The batches of a loader: tensors (N, ...), mappings of them, or tuples of one of both and labels.

    Raises ValueError for batches of other forms.
    """
    start = 0
    for entry in loader:
        first = entry[0] if isinstance(entry, tuple | list) and len(entry) else entry
        labels = entry[1:] if first is not entry else []
        if isinstance(first, Mapping):
            labels = [*labels, *(first[name] for name in _LABELS if name in first)]
            kept = {name: each for name, each in first.items() if name not in _LABELS}
            first = kept if len(kept) != 1 else next(iter(kept.values()))
        sizes = {len(leaf) for leaf in tree_flatten(first)[0] if isinstance(leaf, torch.Tensor) and leaf.ndim}
        if len(sizes) != 1:
            raise ValueError(
                f"the loader gave {type(entry).__name__}, expected batches: tensors (N, ...) of floats, mappings of "
                "them, or tuples of one of both and labels"
            )
        (count,) = sizes
        yield Batch([Group(list(range(start, start + count)), first, [None] * count, _numbers(labels, count))], [])
        start += count


def _numbers(labels: Iterable[Any], count: int) -> list[int | None]:
    """The first of them that has an integer for each image."""
    for each in map(torch.as_tensor, (each for each in labels if isinstance(each, torch.Tensor | list | tuple))):
        if each.shape == (count,) and not each.is_floating_point() and each.dtype != torch.bool:
            return list(each.tolist())
    return [None] * count


class _Pictures(Dataset[Any]):
    def __init__(self, pictures: Sequence[Any], preprocess: Callable[[Any], Any]) -> None:
        self.pictures = pictures
        self.preprocess = preprocess

    def __getitem__(self, position: int) -> Any:
        source = self.pictures[position]
        try:
            picture = as_picture(source)
            return _Prepared(position, inputs_of(self.preprocess(picture)), picture.size)
        except (ValueError, RuntimeError, MemoryError) as error:  # UnusableInput, or a size that cannot be preprocessed
            reason = str(error) or type(error).__name__
            named = str(source) if isinstance(source, str) else f"image {position}"
            return position, reason if named in reason else f"{named}: {reason}"


def _by_size(items: list[Any]) -> Batch:
    """The batch of items, which are prepared, or a position with the reason why there is nothing."""
    groups: dict[Any, list[_Prepared]] = {}
    unreadable = []
    for item in items:
        if not isinstance(item, _Prepared):
            unreadable.append(item)
            continue
        leaves, structure = tree_flatten(item.inputs)
        groups.setdefault((str(structure), *(leaf.shape for leaf in leaves)), []).append(item)
    return Batch([_group(each) for each in groups.values()], unreadable)


def _group(items: list[_Prepared]) -> Group:
    inputs = tree_map(lambda *leaves: torch.cat(leaves), *(item.inputs for item in items))
    return Group([item.position for item in items], inputs, [item.size for item in items], [None] * len(items))

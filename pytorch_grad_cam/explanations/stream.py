"""Batches of images explained one after the other, while threads finish what was found before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.utils._pytree import tree_map_only

from pytorch_grad_cam.engine.chunks import images_at_a_time
from pytorch_grad_cam.engine.inputs import image_of, model_device
from pytorch_grad_cam.folder.processes import default_workers
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.explainer import Explained, Explainer
    from pytorch_grad_cam.explanations.explanation import Explanation
    from pytorch_grad_cam.explanations.sources import Several
    from pytorch_grad_cam.folder.batches import Batch

Made = TypeVar("Made")
Finish = Callable[[int, "Explanation | UnusableInput"], Made]

# Batches that are still being finished while the model goes on. A choice: their maps wait in memory.
_BATCHES_AHEAD = 2
_SECONDS_WITHOUT_BAR = 5  # a choice


def explanations(
    explainer: Explainer, several: Several, batch_size: int | None = None, workers: int | None = None
) -> Iterator[Explanation | UnusableInput]:
    """The explanations of several images, in their order, or why there is none.

    A progress bar (tqdm, on standard error) appears after five seconds. batch_size, workers: see `explaining.explain`.
    """
    from tqdm import tqdm

    total = len(several.items) if isinstance(several.items, Sized) and not several.are_given else None
    size, threads = batch_size or images_at_a_time(explainer.device), workers or default_workers()
    batches = several.batches(explainer.classifier.preprocess, size, threads, explainer.device.type == "cuda")
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=total, unit="image", delay=_SECONDS_WITHOUT_BAR, leave=False) as progress,
    ):
        for made in streamed(explainer, batches, several.title, lambda _, explanation: explanation, pool):
            for explanation in made:
                progress.update()
                yield explanation


def streamed(
    explainer: Explainer,
    batches: Iterable[Batch],
    titles: Callable[[int], str],
    finish: Finish[Made],
    threads: ThreadPoolExecutor,
) -> Iterator[list[Made]]:
    """What `finish` makes in the threads of the images of each batch, in their order; two batches are made ahead.

    finish: from an image's position and its explanation, or why there is none. titles: of the positions.
    """
    begun: deque[list[Future[Made]]] = deque()
    for batch in batches:
        begun.append(begin(explainer, batch, titles, finish, threads))
        if len(begun) > _BATCHES_AHEAD:
            yield [future.result() for future in begun.popleft()]
    while begun:
        yield [future.result() for future in begun.popleft()]


def begin(
    explainer: Explainer, batch: Batch, titles: Callable[[int], str], finish: Finish[Made], threads: ThreadPoolExecutor
) -> list[Future[Made]]:
    """Explain a batch, and let the threads finish its images."""
    futures = {position: threads.submit(finish, position, UnusableInput(why)) for position, why in batch.unreadable}

    def finished(
        position: int, label: int | None, found: Explained, image: torch.Tensor, size: tuple[int, int] | None
    ) -> Made:
        return finish(position, explainer.explanation(found, image, size, titles(position), label))

    device = model_device(explainer.classifier.model)
    for positions, inputs, sizes, labels in batch.groups:
        images = image_of(inputs, explainer.request.options.get("spatial_from"))
        on_device = tree_map_only(torch.Tensor, partial(_sent, device), inputs)
        found = explainer(on_device, len(positions), sizes, shown=False)
        for position, *of_image in zip(positions, labels, found, images, sizes, strict=True):
            futures[position] = threads.submit(finished, position, *of_image)
    return [futures[position] for position in sorted(futures)]


def _sent(device: torch.device | None, tensor: torch.Tensor) -> torch.Tensor:
    """On the device, without waiting for a tensor in pinned memory."""
    return tensor if device is None else tensor.to(device, non_blocking=True)

"""Chunks of work that fit into the device's memory."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Result = TypeVar("Result")

# Both a choice, and so are the seconds before the progress bar.
_IMAGES_ON_CPU, _IMAGES_ON_DEVICE = 8, 64
_SECONDS_WITHOUT_BAR = 5


def images_at_a_time(device: torch.device) -> int:
    """The default number of images in a forward; on a CPU more of them no longer fit into its caches."""
    return _IMAGES_ON_CPU if device.type == "cpu" else _IMAGES_ON_DEVICE


def rows_at_a_time(device: torch.device) -> int:
    """How many rows the part of a model behind a layer is given where nobody says.

    A CPU needed, for a row of the end of ViT-S, ResNet-50's layer4 and VGG-16's classifier, 11, 33 and 18 ms with 8
    rows, 13, 27 and 6.7 with 32, 16, 30 and 5.1 with 128. A GPU must be busy for longer than the host starts its work.
    """
    return 32 if device.type == "cpu" else 128


def in_chunks(run: Callable[[int, int], torch.Tensor], total: int, size: int, description: str) -> torch.Tensor:
    """The concatenated results of run(start, stop) over 0..total, see `chunk_by_chunk`.

    Raises ValueError for a size below 1.
    """
    return torch.cat([*chunk_by_chunk(run, total, size, description)])


def chunk_by_chunk(run: Callable[[int, int], Result], total: int, size: int, description: str) -> Iterator[Result]:
    """The results of run(start, stop) over 0..total, at most `size` at a time.

    When the device runs out of memory the chunk is halved. A model that fails with several items, as a converted graph
    that was made for one image, gets one at a time. Where a single item does not do either, the error is raised.
    Of several chunks a progress bar (tqdm, on standard error) appears after five seconds. Raises ValueError for a size
    below 1.
    """
    from tqdm import tqdm

    if size < 1:
        raise ValueError(f"batch_size is {size}, expected at least 1")
    start = 0
    with tqdm(total=total, desc=description, delay=_SECONDS_WITHOUT_BAR, leave=False, disable=size >= total) as bar:
        while start < total:
            stop = min(start + size, total)
            try:
                result = run(start, stop)
            except Exception as error:
                if stop - start == 1:
                    raise
                size = 1
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    size = (stop - start) // 2
                    torch.cuda.empty_cache()
                continue
            yield result
            bar.update(stop - start)
            start = stop

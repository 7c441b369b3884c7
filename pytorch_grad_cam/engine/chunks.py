"""Work in chunks that fit into the device's memory."""

from collections.abc import Callable

import torch


def images_at_a_time(device: torch.device) -> int:
    """How many images a forward is given where nobody says: on a CPU more only lose the caches."""
    return 8 if device.type == "cpu" else 64


def rows_at_a_time(device: torch.device) -> int:
    """How many rows the part of a model behind a layer is given where nobody says.

    A CPU needed, for a row of the end of ViT-S, ResNet-50's layer4 and VGG-16's classifier, 11, 33 and 18 ms with 8
    rows, 13, 27 and 6.7 with 32, 16, 30 and 5.1 with 128. A GPU must be busy for longer than the host starts its work.
    """
    return 32 if device.type == "cpu" else 128


def in_chunks(run: Callable[[int, int], torch.Tensor], total: int, size: int, description: str) -> torch.Tensor:
    """The concatenated results of run(start, stop) over 0..total, at most `size` at a time.

    When the device runs out of memory the chunk is halved; the error passes on when a single one does not fit.
    A progress bar (tqdm, on standard error) appears when it takes longer than five seconds. Raises ValueError for a
    size below 1.
    """
    from tqdm import tqdm

    if size < 1:
        raise ValueError(f"batch_size is {size}, expected at least 1")
    results, start = [], 0
    with tqdm(total=total, desc=description, delay=5, leave=False) as progress:
        while start < total:
            stop = min(start + size, total)
            result = _unless_out_of_memory(run, start, stop)
            if result is None:
                size = (stop - start) // 2
                torch.cuda.empty_cache()
                continue
            results.append(result)
            progress.update(stop - start)
            start = stop
    return torch.cat(results)


def _unless_out_of_memory(run: Callable[[int, int], torch.Tensor], start: int, stop: int) -> torch.Tensor | None:
    try:
        return run(start, stop)
    except torch.cuda.OutOfMemoryError:
        if stop - start == 1:
            raise
        return None

"""Checkpointed blocks of the kind that re-enters autograd, which refuses gradients with respect to activations."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import CheckpointFunction

_lock = threading.Lock()
_threads = 0
_thread = threading.local()


@contextmanager
def reentrant_checkpoints_run_once() -> Iterator[None]:
    """Within, in this thread: `checkpoint(..., use_reentrant=True)` runs its block in the graph, as any other module.

    The results are the same, without the second run of the block that checkpointing pays for its memory.
    """
    outer = getattr(_thread, "within", False)
    _count(1)
    _thread.within = True
    try:
        yield
    finally:
        _thread.within = outer
        _count(-1)


def _count(change: int) -> None:
    """The function of PyTorch is exchanged while any thread is within."""
    global _threads
    with _lock:
        _threads += change
        if _threads == 0:
            del CheckpointFunction.apply  # the inherited one is seen again
        elif _threads == change:
            CheckpointFunction.apply = staticmethod(_apply)  # type: ignore[method-assign, unused-ignore]


def _apply(block: Callable, preserve_rng_state: bool, *args: Any) -> Any:
    if getattr(_thread, "within", False):
        return block(*args)
    return super(CheckpointFunction, CheckpointFunction).apply(block, preserve_rng_state, *args)

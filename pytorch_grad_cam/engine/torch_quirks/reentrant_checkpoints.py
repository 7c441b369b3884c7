"""Checkpointed blocks of the kind that re-enters autograd, which refuses gradients with respect to activations."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import CheckpointFunction

from pytorch_grad_cam.engine.shared_change import SharedChange, Undo

_thread = threading.local()


@contextmanager
def reentrant_checkpoints_run_once() -> Iterator[None]:
    """Within, in this thread: `checkpoint(..., use_reentrant=True)` runs its block in the graph, as any other module.

    The results are the same, without the second run of the block that checkpointing pays for its memory.
    """
    outer = getattr(_thread, "within", False)
    with _exchanged:
        _thread.within = True
        try:
            yield
        finally:
            _thread.within = outer


def _exchange() -> Undo:
    CheckpointFunction.apply = staticmethod(_apply)  # type: ignore[method-assign, unused-ignore]
    return _restore


def _restore() -> None:
    del CheckpointFunction.apply  # the inherited one is seen again


_exchanged = SharedChange(_exchange)


def _apply(block: Callable, preserve_rng_state: bool, *args: Any) -> Any:
    if getattr(_thread, "within", False):
        return block(*args)
    return super(CheckpointFunction, CheckpointFunction).apply(block, preserve_rng_state, *args)

"""Checkpointed blocks of the kind that re-enters autograd, which refuses gradients with respect to activations."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.checkpoint import CheckpointFunction

from pytorch_grad_cam.engine.threads import SharedChange


def _apply(block: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    if reentrant_checkpoints_run_once.is_within():
        return block(*args)
    return super(CheckpointFunction, CheckpointFunction).apply(block, preserve_rng_state, *args)


# Within, in this thread: `checkpoint(..., use_reentrant=True)` runs its block in the graph, as any other module. The
# results are the same, without the second run of the block that checkpointing pays for its memory.
reentrant_checkpoints_run_once = SharedChange(
    make=partial(setattr, CheckpointFunction, "apply", staticmethod(_apply)),
    undo=partial(delattr, CheckpointFunction, "apply"),  # the inherited one is seen again
)

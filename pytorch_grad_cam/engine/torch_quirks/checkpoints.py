"""Checkpointed blocks, which refuse gradients of activations (one kind) or run once more in the backward pass, without
the hooks and the attention kernels of the first run (the other).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils import checkpoint

from pytorch_grad_cam.engine.threads import SharedChange

_OF_TORCH: dict[str, Any] = {name: getattr(checkpoint, name) for name in ("CheckpointFunction", "_checkpoint_hook")}


class _CheckpointFunction:
    """What `checkpoint(..., use_reentrant=True)` calls."""

    @staticmethod
    def apply(block: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        if checkpoints_run_once.is_within():
            return block(*args)
        return _OF_TORCH["CheckpointFunction"].apply(block, preserve_rng_state, *args)


class _CheckpointHook(checkpoint._checkpoint_hook):
    """Within it `checkpoint(..., use_reentrant=False)` runs its block: it takes the place of what the graph keeps."""

    def __enter__(self) -> None:
        if not checkpoints_run_once.is_within():
            super().__enter__()

    def __exit__(self, *exception: object) -> None:
        if not checkpoints_run_once.is_within():
            super().__exit__(*exception)


# Within, in this thread: checkpointed blocks run in the graph, as any other module. The results are the same, without
# the second run of the block that checkpointing pays for its memory.
checkpoints_run_once = SharedChange(
    make=partial(vars(checkpoint).update, CheckpointFunction=_CheckpointFunction, _checkpoint_hook=_CheckpointHook),
    undo=partial(vars(checkpoint).update, _OF_TORCH),
)

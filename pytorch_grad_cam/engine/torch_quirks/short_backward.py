"""The backward pass from one prediction of a detector, without what has no part in it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.torch_quirks.zero_rows import SkipZeroRows

if TYPE_CHECKING:
    from typing_extensions import Self

_JOINING = ("CatBackward0", "StackBackward0")


class ShortBackward:
    """A context: within, gradients of scores are computed without the levels and regions that a score does not read.

    A prediction is one cell of one level, or one of a thousand regions, but what joins them hands zeros to all others,
    and these would be taken through all of their heads. The gradients are the same; where they are nothing but zeros
    autograd may say None. A backward that makes a graph of its own is as ever.

    predicted: tensors with the graph of all predictions. Cost: one look at that graph. For the CPU: elsewhere looking
    for zeros would wait for the device.
    """

    def __init__(self, predicted: Iterable[torch.Tensor]) -> None:
        self._is_within = False
        nodes = nodes_behind(*(tensor.grad_fn for tensor in predicted if tensor.device.type == "cpu"))
        for node in nodes:
            if node.name() in _JOINING:
                node.register_hook(self._without_zeros)
        of_regions = any("roialign" in node.name().lower().replace("_", "") for node in nodes)
        self._rows: AbstractContextManager[Any] = SkipZeroRows() if of_regions else nullcontext()

    def __enter__(self) -> Self:
        self._rows.__enter__()
        self._is_within = True
        return self

    def __exit__(self, *exception: Any) -> None:
        self._is_within = False
        self._rows.__exit__(*exception)

    def _without_zeros(self, of_parts: tuple[torch.Tensor | None, ...], _: Any) -> Any:
        """The gradients of what was joined, None in the place of zeros; all as they are where nothing else is left."""
        if not self._is_within or torch.is_grad_enabled():
            return None
        left = [part if part is not None and part.any() else None for part in of_parts]
        return tuple(left) if any(part is not None for part in left) else None

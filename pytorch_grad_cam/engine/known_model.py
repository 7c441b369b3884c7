"""What does not change between calls of a model, known once."""

from __future__ import annotations

from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import nn

# In evaluation mode: a copy of the statistics of every normalisation would be for nothing.
_WRITES_NO_BUFFERS = "torch.nn.modules."
_WRITES_UNCOUNTED = ("torch.ao.", "torchao.")


class KnownModel:
    """A model's modules and tensors, as they were when they were looked at.

    Looking walks the whole model. To see whether it still has the same modules, parameters and buffers is one pass over
    lists; flags (training, requires_grad), devices and values are read where they are needed, not known.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = list(model.modules())
        self.parameters = [parameter for parameter in model.parameters() if not parameter.is_inference()]
        tables = [(module._modules, module._parameters, module._buffers) for module in self.modules]
        # Those of scripted modules are no dicts, and cannot change.
        self._tables = [table for table in chain.from_iterable(tables) if isinstance(table, dict)]
        self._contents = self._read()
        self.made_in_inference_mode = [
            (table, name, tensor)
            for table in self._tables
            for name, tensor in table.items()
            if isinstance(tensor, torch.Tensor) and tensor.is_inference()
        ]
        self._first_tensor = next(chain(model.parameters(), model.buffers()), None)
        self.watched_buffers = [
            WatchedBuffer(module, name, buffer)
            for module in self.modules
            if not type(module).__module__.startswith(_WRITES_NO_BUFFERS)
            for name, buffer in module._buffers.items()
            if buffer is not None and not buffer.is_inference()
        ]

    def __reduce__(self) -> tuple:
        return KnownModel, (self.model,)

    def refreshed(self) -> KnownModel:
        """This, if the model still has the same modules, parameters and buffers; else what is known of it now."""
        contents = self._read()
        same = len(contents) == len(self._contents) and all(map(is_, contents, self._contents))
        return self if same else KnownModel(self.model)

    @property
    def device(self) -> torch.device | None:
        """Where the model's first parameter or buffer lives; None for a model that has neither."""
        return None if self._first_tensor is None else self._first_tensor.device

    def _read(self) -> list[Any]:
        """All children, parameters and buffers; in C, since this is done in every call."""
        return list(chain.from_iterable(map(dict.values, self._tables)))


class WatchedBuffer:
    """A buffer that its module may write, and a copy of its values that is made anew only where they have changed."""

    def __init__(self, module: nn.Module, name: str, buffer: torch.Tensor) -> None:
        self.table, self.name, self.buffer = module._buffers, name, buffer
        self.counts_writes = not type(module).__module__.startswith(_WRITES_UNCOUNTED)
        self._values: torch.Tensor | None = None
        self._version = -1

    def keep(self) -> None:
        """Remember the values."""
        if self._values is None or not self.counts_writes or self.buffer._version != self._version:
            self._values, self._version = self.buffer.detach().clone(), self.buffer._version

    def restore(self) -> None:
        """Put the buffer back with the values that were kept."""
        self.table[self.name] = self.buffer
        values = self._values
        if values is None:
            return
        if not self.counts_writes or self.buffer._version != self._version or self.buffer.shape != values.shape:
            with torch.no_grad():
                self.buffer.resize_(values.shape).copy_(values)
            self._version = self.buffer._version

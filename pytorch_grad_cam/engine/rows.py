"""Which sample each row of a batch is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils._pytree import tree_map

from pytorch_grad_cam.engine.trees import has_rows


@dataclass(frozen=True)
class Rows:
    """The sample of each row: `samples` on the host, `index` (rows,) on a device.

    Both are made once and cut into chunks, so that no chunk waits for the device to learn whose rows it has.
    """

    samples: Sequence[int]
    index: torch.Tensor

    @classmethod
    def of(cls, samples: Sequence[int], device: torch.device) -> Rows:
        """The rows of these samples. Cost: one copy to the device."""
        return cls(samples, torch.tensor(samples, dtype=torch.long, device=device))

    @classmethod
    def repeated(cls, samples: Iterable[int], times: int, device: torch.device) -> Rows:
        """Each of these samples so many times, one after the other. Cost: one copy to the device."""
        return cls.of([sample for sample in samples for _ in range(times)], device)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, chunk: slice) -> Rows:
        return Rows(self.samples[chunk], self.index[chunk])

    def read(self, tree: Any, batch: int) -> Any:
        """The rows of each tensor that has `batch` samples on its first axis; others as they are.

        Rows of one sample, and all samples in their order, are views: nothing may be written into them.
        """
        every, one = list(self.samples) == list(range(batch)), self._only_sample

        def rows_of(leaf: Any) -> Any:
            if every or not has_rows(leaf, batch):
                return leaf
            if one is None:
                return leaf[self.index.to(leaf.device)]
            return leaf[one : one + 1].expand(len(self), *leaf.shape[1:])

        return tree_map(rows_of, tree)

    @cached_property
    def _only_sample(self) -> int | None:
        return self.samples[0] if len(set(self.samples)) == 1 else None

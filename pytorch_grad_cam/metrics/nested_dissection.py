"""The order in which a grid's pixels are eliminated so that a sparse factorisation stays sparse."""

from functools import lru_cache

import numpy as np

_LEAF = 16


@lru_cache(maxsize=8)
def nested_dissection(height: int, width: int) -> np.ndarray:
    """Flat indices (height * width,): both halves of the grid before the line between them, and so on within each.

    George 1973, SIAM J. Numer. Anal. 10. For equations between pixels and their eight neighbours.
    """
    order: list[np.ndarray] = []

    def dissect(block: np.ndarray) -> None:
        if block.size <= _LEAF:
            order.append(block.ravel())
            return
        lines = block if block.shape[0] >= block.shape[1] else block.T
        middle = len(lines) // 2
        dissect(lines[:middle])
        dissect(lines[middle + 1 :])
        order.append(lines[middle])

    dissect(np.arange(height * width).reshape(height, width))
    return np.concatenate(order)

"""Maps as shares of their sum."""

import torch


def shares_of(values: torch.Tensor) -> torch.Tensor:
    """Rows (N, P) of no negative values divided by their sums; a row of zeros counts as a constant one.

    By way of each row's largest value, so that very small and very large ones lose nothing.
    """
    highest = values.amax(1, keepdim=True)
    scaled = torch.where(highest > 0, values / highest.masked_fill(highest == 0, 1), 1)
    return scaled / scaled.sum(1, keepdim=True)

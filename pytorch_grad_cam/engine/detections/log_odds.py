"""The logit of a probability."""

import torch

# 1 - p is off by more than 6 % there: `engine.saturation` takes over, where the graph shows the logit.
_EPSILONS_FROM_ONE = 16


def log_odds(probabilities: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)): of a sigmoid its logit, of a softmax the logit against all others. Numbers beyond what the
    precision holds are cut off.

    Where p is so near to 1 that rounding loses 1 - p, p itself stands in its place with its own gradient.
    """
    limits = torch.finfo(probabilities.dtype)
    is_lost = 1 - probabilities.detach() <= _EPSILONS_FROM_ONE * limits.eps
    kept = torch.where(is_lost, 0.5, probabilities.clamp(min=limits.tiny))
    return torch.where(is_lost, probabilities + _highest(limits), kept.log() - torch.log1p(-kept))


def _highest(limits: torch.finfo) -> float:
    """What lost ones have: above the log-odds of all others."""
    return -torch.log(torch.tensor(_EPSILONS_FROM_ONE * limits.eps)).item()

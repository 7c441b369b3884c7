"""Attention that can be differentiated twice."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.backends import cuda

# PyTorch's choice of attention kernels is one for the process, on every device: (how to read it, how to set it).
_KERNELS = {
    "flash": (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    "memory-efficient": (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    "cuDNN": (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    "plain": (cuda.math_sdp_enabled, cuda.enable_math_sdp),
}
_lock = threading.Lock()
_users = 0
_enabled: dict[str, bool] = {}


@contextmanager
def twice_differentiable_attention() -> Iterator[None]:
    """Within: PyTorch's attention in plain operations; its fused kernels have no second derivative.

    Several threads may be within at once; the last one out restores the choice.
    """
    global _users
    with _lock:
        if _users == 0:
            _enabled.update({name: enabled() for name, (enabled, _) in _KERNELS.items()})
            _choose(dict.fromkeys(_KERNELS, False) | {"plain": True})
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _choose(_enabled)


def _choose(enabled: dict[str, bool]) -> None:
    for name, (_, enable) in _KERNELS.items():
        enable(enabled[name])

"""Attention that can be differentiated twice."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel

_lock = threading.Lock()
_users = 0
_choice = ExitStack()


@contextmanager
def twice_differentiable_attention() -> Iterator[None]:
    """Within: PyTorch's attention in plain operations; its fused kernels have no second derivative.

    The choice is PyTorch's for the whole process: several threads may be within at once, the last one out restores it.
    """
    global _users
    with _lock:
        if _users == 0:
            _choice.enter_context(sdpa_kernel(SDPBackend.MATH))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _choice.close()

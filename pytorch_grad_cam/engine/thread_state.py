"""What belongs to one thread's call."""

import threading
from typing import Any


class ThreadState(threading.local):
    """Attributes that each thread has of its own; a copy, or what comes out of a pickle, has none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ThreadState, ()

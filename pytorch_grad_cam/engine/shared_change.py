"""A change of something that all threads share."""

import threading
from collections.abc import Callable


class SharedChange:
    """A context: `make` is called when the first thread comes in, `undo` when the last one has left.

    A thread may come in repeatedly.
    """

    def __init__(self, make: Callable[[], object], undo: Callable[[], object]) -> None:
        self._make, self._undo = make, undo
        self._lock = threading.Lock()
        self._within: list[int] = []

    def is_within(self) -> bool:
        """Whether this thread has come in."""
        return threading.get_ident() in self._within

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._make()
            self._within.append(threading.get_ident())

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._within.remove(threading.get_ident())
            if not self._within:
                self._undo()

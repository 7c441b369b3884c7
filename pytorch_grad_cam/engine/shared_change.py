"""A change of something that all threads share."""

import threading
from collections.abc import Callable

Undo = Callable[[], None]


class SharedChange:
    """A context: what `change` does when the first thread comes in is undone when the last one has left.

    change: makes the change and returns what undoes it. A thread may come in repeatedly.
    """

    def __init__(self, change: Callable[[], Undo]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._within: list[int] = []
        self._undo: Undo | None = None

    def is_within(self) -> bool:
        """Whether this thread has come in."""
        return threading.get_ident() in self._within

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._undo = self._change()
            self._within.append(threading.get_ident())

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._within.remove(threading.get_ident())
            if not self._within and self._undo is not None:
                self._undo()

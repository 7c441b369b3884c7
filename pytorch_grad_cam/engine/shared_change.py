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
        self._users = 0
        self._undo: Undo | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._undo = self._change()
            self._users += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._undo is not None:
                self._undo()

"""What all threads share, and what each has of its own."""

import threading
from collections.abc import Callable
from typing import Any


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


class ThreadState(threading.local):
    """Attributes that each thread has of its own; a copy, or what comes out of a pickle, has none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ThreadState, ()


class OfThread:
    """An attribute of which each thread reads what it set itself; one that has set nothing, what any thread did."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        of_threads, last = instance.__dict__[self.name]
        return getattr(of_threads, "value", last)

    def __set__(self, instance: Any, value: Any) -> None:
        of_threads, _ = instance.__dict__.get(self.name) or (ThreadState(), None)
        of_threads.value = value
        instance.__dict__[self.name] = of_threads, value

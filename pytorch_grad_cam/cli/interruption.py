"""Ctrl-C that is not lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

Item = TypeVar("Item")


class Interruption:
    """Within, an interruption ends the work on `heeded` items even where Python forgets it: a KeyboardInterrupt that is
    raised in a callback of the garbage collector goes no further.
    """

    def __init__(self) -> None:
        self._has_come = False
        self._is_noted = False

    def __enter__(self) -> Self:
        is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._is_noted = is_usual and threading.current_thread() is threading.main_thread()
        if self._is_noted:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_noted:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, *_: Any) -> None:
        self._has_come = True
        raise KeyboardInterrupt

    def heeded(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; KeyboardInterrupt behind the one during which it came."""
        for item in items:
            yield item
            if self._has_come:
                raise KeyboardInterrupt

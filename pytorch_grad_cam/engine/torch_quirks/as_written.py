"""Functions of PyTorch whose inner calls a function mode sees."""

from types import FunctionType
from typing import Any


def as_written(function: Any) -> Any:
    """A function of PyTorch that does not ask whether a mode overrides it, so that the mode sees what it calls."""
    own_globals = {**function.__globals__, "has_torch_function": lambda tensors: False}
    written = FunctionType(
        function.__code__, own_globals, function.__name__, function.__defaults__, function.__closure__
    )
    written.__kwdefaults__ = function.__kwdefaults__
    return written

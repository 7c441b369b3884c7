"""Subclasses written for grad-cam 1.x compute with NumPy arrays, the library with tensors: both work together."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

_OVERRIDE_POINTS = ("get_cam_weights", "get_cam_image")
_ARRAYS = ("activations", "grads")
_FIRST_ARRAY = 3


def adapt_overrides(cls: type) -> None:
    """Wrap a BaseCAM subclass's own override points.

    The library's compute with tensors; called with arrays they return an array. Those of other packages are given
    NumPy arrays and what they return becomes a tensor again, unless the class says `receives_tensors = True` or its
    object was made with `detach=False`.
    """
    own = cls.__module__.partition(".")[0] == __package__
    wrap = accepts_arrays if own else _given_arrays
    for name in _OVERRIDE_POINTS:
        if name in vars(cls):
            setattr(cls, name, wrap(vars(cls)[name]))


def accepts_arrays(method: Callable) -> Callable:
    """The tensor method, returning an array when it is called with arrays."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [*args[_FIRST_ARRAY:], *kwargs.values()]
        if not any(isinstance(value, np.ndarray) for value in given):
            return method(self, *args, **kwargs)
        device = args[0].device if args and isinstance(args[0], torch.Tensor) else None
        return to_array(_converted(method, functools.partial(_to_tensor, device), np.ndarray, self, args, kwargs))

    return wrapper


def _given_arrays(method: Callable) -> Callable:
    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [value for value in (*args[_FIRST_ARRAY:], *kwargs.values()) if isinstance(value, torch.Tensor)]
        if self is None or self.receives_tensors or not self.detach or not tensors:
            return method(self, *args, **kwargs)
        result = _converted(method, to_array, torch.Tensor, self, args, kwargs)
        return _to_tensor(tensors[0].device, np.asarray(result)).to(tensors[0].dtype)

    return wrapper


def to_array(value: Any) -> Any:
    """A tensor as a NumPy array on the host; anything else as it is."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _to_tensor(device: torch.device | None, array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), device=device)  # tensors have no negative strides


def _converted(method: Callable, convert: Callable, kind: type, self: Any, args: tuple, kwargs: dict) -> Any:
    args = (*args[:_FIRST_ARRAY], *(convert(v) if isinstance(v, kind) else v for v in args[_FIRST_ARRAY:]))
    kwargs = {k: convert(v) if k in _ARRAYS and isinstance(v, kind) else v for k, v in kwargs.items()}
    return method(self, *args, **kwargs)

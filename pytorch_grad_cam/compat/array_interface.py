"""Subclasses written for grad-cam 1.x compute with NumPy arrays, the library with tensors: both work together."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from pytorch_grad_cam.engine.trees import to_array

# The override points, and how many positional arguments stay as they are: the input tensor, the layer, the targets.
_OVERRIDE_POINTS = {"get_cam_weights": 3, "get_cam_image": 3, "aggregate_multi_layers": 0}
_PACKAGE = __name__.partition(".")[0]
_CONVERTED_KEYWORDS = ("activations", "grads", "cam_per_target_layer")


def adapt_overrides(cls: type) -> None:
    """Wrap a BaseCAM subclass's own override points, and those of its mixins.

    The library's compute with tensors; called with arrays they return an array. Those of other packages are given
    NumPy arrays, tensors where the object was made with `detach=False`, and what they return becomes a tensor again,
    unless the class says `receives_tensors = True`.
    """
    for name in _OVERRIDE_POINTS:
        definer = next(base for base in cls.__mro__ if name in vars(base))
        if definer is cls or not hasattr(definer, "receives_tensors"):  # a mixin
            own = definer.__module__.partition(".")[0] == _PACKAGE
            wrap = accepts_arrays if own else _given_arrays
            setattr(cls, name, wrap(vars(definer)[name]))


def accepts_arrays(method: Callable) -> Callable:
    """The tensor method, returning an array when it is called with arrays."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        converted = _convertible(method, args, kwargs)
        if not any(isinstance(leaf, np.ndarray) for leaf in tree_leaves(converted)):
            return method(self, *args, **kwargs)
        device = args[0].device if args and isinstance(args[0], torch.Tensor) else None
        return to_array(_call_converted(method, self, args, kwargs, functools.partial(_to_tensor, device)))

    return wrapper


def _given_arrays(method: Callable) -> Callable:
    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        converted = _convertible(method, args, kwargs)
        tensors = [leaf for leaf in tree_leaves(converted) if isinstance(leaf, torch.Tensor)]
        if self is None or self.receives_tensors or not tensors:
            return method(self, *args, **kwargs)
        result = _call_converted(method, self, args, kwargs, to_array) if self.detach else method(self, *args, **kwargs)
        if not isinstance(result, torch.Tensor):
            result = _to_tensor(tensors[0].device, np.asarray(result))
        return result.to(tensors[0])

    return wrapper


def _to_tensor(device: torch.device | None, value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return torch.as_tensor(np.ascontiguousarray(value), device=device)  # tensors have no negative strides


def _convertible(method: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return args[_OVERRIDE_POINTS[method.__name__] :], {k: v for k, v in kwargs.items() if k in _CONVERTED_KEYWORDS}


def _call_converted(method: Callable, self: Any, args: tuple, kwargs: dict, convert: Callable) -> Any:
    converted_args, converted_kwargs = tree_map(convert, _convertible(method, args, kwargs))
    kept = args[: _OVERRIDE_POINTS[method.__name__]]
    return method(self, *kept, *converted_args, **{**kwargs, **converted_kwargs})

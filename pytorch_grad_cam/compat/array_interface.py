"""Subclasses written for grad-cam 1.x compute with NumPy arrays, the library with tensors: both work together."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from pytorch_grad_cam.engine.trees import to_array

# The override points, and how many positional arguments stay as they are: the input tensor, the layer, the targets.
KEPT_ARGUMENTS = {"get_cam_weights": 3, "get_cam_image": 3, "aggregate_multi_layers": 0}
_CONVERTED_KEYWORDS = ("activations", "grads", "cam_per_target_layer")

_Args = tuple[Any, ...]
_Kwargs = dict[str, Any]


def accepts_arrays(method: Callable[..., Any]) -> Callable[..., Any]:
    """The tensor method, returning an array when it is called with arrays."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        converted = _convertible(method, args, kwargs)
        if not any(isinstance(leaf, np.ndarray) for leaf in tree_leaves(converted)):
            return method(self, *args, **kwargs)
        device = args[0].device if args and isinstance(args[0], torch.Tensor) else None
        return to_array(_call_converted(method, self, args, kwargs, functools.partial(_to_tensor, device)))

    return wrapper


def given_arrays(method: Callable[..., Any]) -> Callable[..., Any]:
    """The array method, given arrays and returning a tensor when it is called with tensors.

    It is given tensors where the class says `receives_tensors = True` or the object was made with `detach=False`.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        converted = _convertible(method, args, kwargs)
        tensors = [leaf for leaf in tree_leaves(converted) if isinstance(leaf, torch.Tensor)]
        if self is None or self.receives_tensors or not tensors:
            return method(self, *args, **kwargs)
        result = _call_converted(method, self, args, kwargs, to_array) if self.detach else method(self, *args, **kwargs)
        if result is None:
            raise ValueError(f"{type(self).__name__}.{method.__name__} returned None, expected an array: return one")
        if not isinstance(result, torch.Tensor):
            result = _to_tensor(tensors[0].device, np.asarray(result))
        return result.to(tensors[0])

    return wrapper


def _to_tensor(device: torch.device | None, value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return torch.as_tensor(np.ascontiguousarray(value), device=device)  # tensors have no negative strides


def _convertible(method: Callable[..., Any], args: _Args, kwargs: _Kwargs) -> tuple[_Args, _Kwargs]:
    return args[KEPT_ARGUMENTS[method.__name__] :], {k: v for k, v in kwargs.items() if k in _CONVERTED_KEYWORDS}


def _call_converted(
    method: Callable[..., Any], self: Any, args: _Args, kwargs: _Kwargs, convert: Callable[[Any], Any]
) -> Any:
    converted_args, converted_kwargs = tree_map(convert, _convertible(method, args, kwargs))
    kept = args[: KEPT_ARGUMENTS[method.__name__]]
    return method(self, *kept, *converted_args, **{**kwargs, **converted_kwargs})

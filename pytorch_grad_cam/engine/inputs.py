"""What a model is called with: a tensor, a tuple of arguments or a mapping of keyword arguments; one is the image."""

from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_map_only, tree_unflatten

from pytorch_grad_cam.engine.trees import copied, has_rows

Inputs = Any


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output, see `apply`, for copies of the inputs: it may change them in place."""
    if isinstance(inputs, torch.Tensor):
        return model(inputs.clone())
    return apply(model, copied(as_tree(inputs)))


def apply(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output: a tuple is unpacked into arguments, a mapping into keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def model_device(model: nn.Module) -> torch.device | None:
    """Where the model runs, see `running_device`, by its first parameter or buffer."""
    return running_device(model, next(chain(model.parameters(), model.buffers()), None))


def running_device(model: nn.Module, first: torch.Tensor | None) -> torch.device | None:
    """The device of the model's first tensor; None for a model that has none, which takes inputs where they are.

    Where accelerate has put it on 'meta' and fetches the values when a module runs: what accelerate says, or None.
    """
    if first is None or first.device.type != "meta":
        return None if first is None else first.device
    hooks = [module._hf_hook for module in model.modules() if hasattr(module, "_hf_hook")]
    devices = [getattr(hook, "execution_device", None) for hook in hooks]
    device = next((device for device in devices if device is not None), None)
    return None if device is None else torch.empty(0, device=device).device  # an index, a name or a device


def on_device_of(model: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs where the model is, see `usable`."""
    return usable(inputs, model_device(model))


def usable(inputs: Inputs, device: torch.device | None) -> Inputs:
    """The tensors on the device, or where they are if that is None; those made in inference mode as copies that
    autograd can use, if the caller is outside of it.
    """
    if not isinstance(inputs, torch.Tensor):
        return tree_map_only(torch.Tensor, partial(usable, device=device), as_tree(inputs))
    if inputs.is_inference() and not torch.is_inference_mode_enabled():
        inputs = inputs.clone()
    return inputs if device is None or inputs.device == device else inputs.to(device)


def image_of(inputs: Inputs, spatial_from: int | str | None = None) -> torch.Tensor:
    """The tensor (N, C, *spatial) that maps are made for.

    spatial_from: its position in the tuple or its key; None is the first floating-point tensor with a spatial axis.
    Raises TypeError when there is none.
    """
    wanted = None if spatial_from is None else inputs[spatial_from]
    for leaf in [inputs] if isinstance(inputs, torch.Tensor) else tree_leaves(as_tree(inputs)):
        is_tensor = isinstance(leaf, torch.Tensor)
        if leaf is wanted or (wanted is None and is_tensor and leaf.is_floating_point() and leaf.ndim > 2):
            return cast(torch.Tensor, leaf)
    raise TypeError(_no_image_in(inputs, spatial_from))


def _no_image_in(inputs: Inputs, spatial_from: int | str | None) -> str:
    described = type(inputs).__name__ if spatial_from is None else f"input {spatial_from!r}"
    return (
        f"{described} has no floating-point tensor (N, C, *spatial): pass the image as a tensor, and with other inputs "
        "a tuple of arguments or a mapping of keyword arguments; spatial_from= says which of them it is"
    )


def with_image(inputs: Inputs, image: torch.Tensor, spatial_from: int | str | None = None) -> Inputs:
    """The inputs with another image."""
    leaves, structure = tree_flatten(as_tree(inputs))
    replaced = image_of(inputs, spatial_from)
    index = next(index for index, leaf in enumerate(leaves) if leaf is replaced)
    return tree_unflatten([*leaves[:index], image, *leaves[index + 1 :]], structure)


def rows_of(inputs: Inputs, rows: torch.Tensor, batch: int) -> Inputs:
    """The inputs of the samples `rows`: of each tensor that has the batch as its first axis; others as they are."""

    def select(leaf: Any) -> Any:
        return leaf[rows.to(leaf.device)] if has_rows(leaf, batch) else leaf

    return tree_map(select, as_tree(inputs))


def as_tree(inputs: Inputs) -> Inputs:
    """Any mapping (transformers' BatchFeature is no dict) as a dict, which PyTorch looks into."""
    return dict(inputs) if isinstance(inputs, Mapping) else inputs

"""Methods around a method: the base makes maps, the wrapper decides of what or joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor, renamed_targets
from pytorch_grad_cam.engine.differentiability import check_differentiable
from pytorch_grad_cam.engine.inputs import Inputs
from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.grad_cam import GradCAM

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


def attribute_of(owner: str, name: str) -> Any:
    """A property: the attribute `name` of the object that `self.<owner>` is."""

    def read(self: Any) -> Any:
        return getattr(getattr(self, owner), name)

    def write(self: Any, value: Any) -> None:
        setattr(getattr(self, owner), name, value)

    return property(read, write)


class MetaCAM:
    """Called, used with `with` and asked for `outputs` like the base method that it wraps.

    The attributes of every BaseCAM are read from and set on the base method; what only some have, as `batch_size`, is
    found on `base_cam`.
    """

    uses_layers = is_differentiable = True
    joins_maps = False  # of the base method, which are in [0, 1] then
    default_base_method: Callable[..., Any] = GradCAM

    model = attribute_of("base_cam", "model")
    device = attribute_of("base_cam", "device")
    target_layers = attribute_of("base_cam", "target_layers")
    location = attribute_of("base_cam", "location")
    rectifiers = attribute_of("base_cam", "rectifiers")
    reshape_transform = attribute_of("base_cam", "reshape_transform")
    output_transform = attribute_of("base_cam", "output_transform")
    spatial_from = attribute_of("base_cam", "spatial_from")
    check_place = attribute_of("base_cam", "check_place")
    call_index = attribute_of("base_cam", "call_index")
    align = attribute_of("base_cam", "align")
    registrations = attribute_of("base_cam", "registrations")
    compute_input_gradient = attribute_of("base_cam", "compute_input_gradient")
    uses_gradients = attribute_of("base_cam", "uses_gradients")
    uses_targets = attribute_of("base_cam", "uses_targets")
    tta_transforms = attribute_of("base_cam", "tta_transforms")
    detach = attribute_of("base_cam", "detach")
    outputs = attribute_of("base_cam", "outputs")
    predictions = attribute_of("base_cam", "predictions")
    activations_and_grads = attribute_of("base_cam", "activations_and_grads")
    aggregate_multi_layers = attribute_of("base_cam", "aggregate_multi_layers")
    batch_size = attribute_of("base_cam", "batch_size")
    compile = attribute_of("base_cam", "compile")

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        base_method: Callable[..., Any] | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        """Nothing is run yet.

        model, target_layers, reshape_transform: see `BaseCAM.__init__`.
        base_method: a BaseCAM subclass or another MetaCAM; None is the class's own choice. Further options go to it:
        those of BaseCAM; what only it has, in a `functools.partial` of it, which a type checker can follow.
        """
        check_differentiable(self, options.get("detach", True))
        given = sorted(options.keys() & {"relu", "normalize", "fuse"})
        if self.joins_maps and given:
            raise ValueError(f"{type(self).__name__} joins maps in [0, 1]: it takes no {given[0]}=")
        self.base_cam = (base_method or type(self).default_base_method)(
            model, target_layers, reshape_transform, **options
        )

    @overload
    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = ...,
        eigen_smooth: bool = ...,
        *,
        aug_smooth: bool = ...,
        as_tensor: Literal[False] = ...,
    ) -> np.ndarray: ...
    @overload
    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = ...,
        eigen_smooth: bool = ...,
        *,
        aug_smooth: bool = ...,
        as_tensor: Literal[True],
    ) -> torch.Tensor: ...
    @overload
    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = ...,
        eigen_smooth: bool = ...,
        *,
        aug_smooth: bool = ...,
        as_tensor: bool,
    ) -> np.ndarray | torch.Tensor: ...
    def __call__(self, input_tensor: Inputs, targets: Targets = None, *args: Any, **named: Any) -> Any:
        """One heat map an image, see `forward`, which subclasses may override as in grad-cam 1.5."""
        if "target_category" in named:
            targets = renamed_targets(targets, {"target_category": named.pop("target_category")})
        return self.forward(input_tensor, targets, *args, **named)

    def forward(
        self,
        input_tensor: Inputs,
        targets: Targets = None,
        eigen_smooth: bool = False,
        *options: Any,
        aug_smooth: bool = False,
        **named: Any,
    ) -> Any:
        """One heat map an image; arguments, result and errors are those of `BaseCAM.__call__`.

        By position, as in grad-cam 1.5: `eigen_smooth` comes third, then the method's own options.
        """
        return self.explain(input_tensor, targets, *options, aug_smooth=aug_smooth, eigen_smooth=eigen_smooth, **named)

    def explain(self, input_tensor: Inputs, targets: Targets, **options: Any) -> Any:
        """What the call returns: the base method's maps, if a subclass does nothing else."""
        return self.base_cam(input_tensor, targets, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.base_cam.__exit__(*exception)

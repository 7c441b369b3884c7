"""Methods around a method: the base makes maps, the wrapper decides of what or joins them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pytorch_grad_cam.compat.old_spellings import old_call, old_constructor
from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.grad_cam import GradCAM


class MetaCAM:
    """Called, used with `with` and asked for `outputs` like the base method that it wraps.

    base_method: a BaseCAM subclass or another MetaCAM; None is the class's own choice. Further options go to it.
    What is not defined here (`outputs`, `model`, `target_layers`, `batch_size`, ...) is read from and set on the base
    method.
    """

    uses_layers = True
    own_attributes: tuple[str, ...] = ("base_cam",)
    default_base_method: Callable[..., Any] = GradCAM

    @old_constructor
    def __init__(
        self,
        model: torch.nn.Module,
        target_layers: Any = None,
        reshape_transform: Callable | None = None,
        base_method: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        self.base_cam = (base_method or type(self).default_base_method)(
            model, target_layers, reshape_transform, **options
        )

    @old_call
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One heat map an image, see `forward`, which subclasses may override as in grad-cam 1.5."""
        return self.forward(*args, **kwargs)

    def forward(
        self,
        input_tensor: torch.Tensor,
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

    def explain(self, input_tensor: torch.Tensor, targets: Targets, **options: Any) -> Any:
        """What the call returns: the base method's maps, if a subclass does nothing else."""
        return self.base_cam(input_tensor, targets, **options)

    def _owners(self) -> list[Any]:
        """The objects that attributes are looked up on and set on, besides this one."""
        return [self.__dict__["base_cam"]] if "base_cam" in self.__dict__ else []

    def __getattr__(self, name: str) -> Any:
        for owner in self._owners():
            if hasattr(owner, name):
                return getattr(owner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        for owner in () if name in self.own_attributes else self._owners():
            if hasattr(owner, name):
                setattr(owner, name, value)
                return
        super().__setattr__(name, value)

    def __enter__(self) -> MetaCAM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.base_cam.__exit__(*exception)

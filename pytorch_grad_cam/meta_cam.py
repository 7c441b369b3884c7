"""Methods around a method: the base makes maps, the wrapper decides of what or joins them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.grad_cam import GradCAM
from pytorch_grad_cam.old_spellings import old_call, old_constructor
from pytorch_grad_cam.target_scores import Targets


class MetaCAM:
    """Called, used with `with` and asked for `outputs` like the base method that it wraps.

    base_method: a BaseCAM subclass or another MetaCAM; None is the class's own choice. Further options go to it.
    What is not defined here (`outputs`, `model`, `target_layers`, `device`, ...) is the base method's.
    """

    uses_layers = True
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
        self.base_cam: BaseCAM | MetaCAM = (base_method or type(self).default_base_method)(
            model, target_layers, reshape_transform, **options
        )

    @old_call
    def __call__(
        self,
        input_tensor: torch.Tensor,
        targets: Targets = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
        **options: Any,
    ) -> Any:
        """One heat map an image; arguments, result and errors are those of `BaseCAM.__call__`."""
        return self.explain(input_tensor, targets, aug_smooth=aug_smooth, eigen_smooth=eigen_smooth, **options)

    def forward(
        self,
        input_tensor: torch.Tensor,
        targets: Targets = None,
        eigen_smooth: bool = False,
        *options: Any,
        **named: Any,
    ) -> Any:
        """The call in the argument order of grad-cam 1.5, where the method's own options follow `eigen_smooth`."""
        return self.explain(input_tensor, targets, *options, eigen_smooth=eigen_smooth, **named)

    def explain(self, input_tensor: torch.Tensor, targets: Targets, **options: Any) -> Any:
        """What the call returns: the base method's maps, if a subclass does nothing else."""
        return self.base_cam(input_tensor, targets, **options)

    @property
    def batch_size(self) -> int:
        """How much the base method computes at a time, where it says so."""
        return self._batched().batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._batched().batch_size = size

    def _batched(self) -> Any:
        return self.base_cam

    @property
    def aggregate_multi_layers(self) -> Callable:
        """How the base method joins the maps of its layers."""
        return self.base_cam.aggregate_multi_layers

    @aggregate_multi_layers.setter
    def aggregate_multi_layers(self, aggregate: Callable) -> None:
        self.base_cam.aggregate_multi_layers = aggregate  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        if name == "base_cam":  # the base method's constructor failed
            raise AttributeError(name)
        return getattr(self.base_cam, name)

    def __enter__(self) -> MetaCAM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.base_cam.__exit__(*exception)

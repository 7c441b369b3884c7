"""RefineCAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.cam_warning import warn_where_apart
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.grad_cam_plusplus import GradCAMPlusPlus
from pytorch_grad_cam.meta_cam import MetaCAM

if TYPE_CHECKING:
    from typing_extensions import Unpack


def product_of_layers(cam_per_target_layer: list[torch.Tensor]) -> torch.Tensor:
    r"""$L = \prod_l L_l$ of the layers' maps (N, 1, *spatial) in [0, 1], scaled to [0, 1]: (N, *spatial).

    A CamWarning says where the layers have nothing in common.
    """
    maps = torch.cat([torch.as_tensor(cam) for cam in cam_per_target_layer], dim=1).relu()
    product = min_max(min_max(maps.flatten(0, 1)).reshape(maps.shape).prod(1))
    warn_where_apart(maps, product, len(maps), "no position is high in the maps of all layers")
    return product


class RefineCAM(MetaCAM):
    """Where the maps of all layers agree: deep layers say what, early layers say where.

    When to take it: for a sharp map of an object's outline from deep and early layers together. Not where the
    layers disagree: the product is blank there.
    Cost: that of one call of the base method with all layers, Grad-CAM++ unless told otherwise.
    Paper: https://arxiv.org/abs/2605.14641.
    """

    joins_maps = True
    default_base_method = GradCAMPlusPlus

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        base_method: Callable[..., Any] | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, base_method, **options)
        self.base_cam.aggregate_multi_layers = product_of_layers

"""Maps of seeded models: run by `parity` once with this library and once with grad-cam 1.5.7, by the same calls."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import timm
import torch
import torchvision
from torch import nn

from pytorch_grad_cam import (
    AblationCAM,
    AblationLayerVit,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform

GRADIENT_METHODS = (GradCAM, XGradCAM, LayerCAM, GradCAMPlusPlus)
EIGEN_METHODS = (EigenCAM, EigenGradCAM)
CATEGORIES = (7, 3)
# 1.5.7 adds 1e-7 to the range of a map before it divides and 1e-6 to squared gradients. Scores of this scale make both
# negligible, so that the formulas are compared and not the epsilons.
SCORE_SCALE = 1e4


class Case(NamedTuple):
    """A seeded model, its target layers by name, an input and a reshape_transform."""

    model: nn.Module
    layers: list[str]
    x: torch.Tensor
    reshape_transform: Callable | None = None


def cases() -> Iterator[tuple[str, Case]]:
    torch.manual_seed(0)
    photo, strip = torch.rand(2, 3, 224, 160), torch.rand(2, 3, 64, 96)
    yield "resnet18", Case(torchvision.models.resnet18(), ["layer4"], photo)
    yield "resnet18, 3 layers", Case(torchvision.models.resnet18(), ["layer2", "layer3", "layer4"], photo)
    yield "resnet50", Case(torchvision.models.resnet50(), ["layer4"], strip)
    yield "vgg11", Case(torchvision.models.vgg11(), ["features"], strip)
    vit = timm.create_model("vit_small_patch16_224", img_size=(224, 160))
    yield "vit_small", Case(vit, ["blocks.11.norm1"], photo, partial(vit_reshape_transform, height=14, width=10))
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=(224, 168))
    # 1.5.7's own swinT_reshape_transform does not read the (N, H, W, C) that timm's Swin returns.
    yield "swin_tiny", Case(swin, ["layers.3.blocks.1.norm1"], torch.rand(2, 3, 224, 168), lambda t: t.movedim(-1, 1))


def maps_of(case: Case, method: type, targets: list | None) -> np.ndarray:
    """The method's maps of the case, by the calls of 1.5."""
    layers = [case.model.get_submodule(name) for name in case.layers]
    options = {"ablation_layer": AblationLayerVit()} if method is AblationCAM and case.reshape_transform else {}
    with method(case.model, layers, reshape_transform=case.reshape_transform, **options) as cam:
        return cam(case.x, targets)


def components_of(case: Case, method: type) -> np.ndarray:
    """The signed first principal component, before one half of it becomes the map: called with NumPy arrays."""
    kept: list[torch.Tensor] = []
    layer = case.model.get_submodule(case.layers[-1])
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = case.model(case.x)[:, CATEGORIES[0]].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    reshape = case.reshape_transform or (lambda tensor: tensor)
    arrays = [np.ascontiguousarray(reshape(tensor).detach().numpy()) for tensor in (kept[0], gradient)]
    with method(case.model, [layer]) as cam:
        return cam.get_cam_image(case.x, layer, None, *arrays, False)


class Scaled(nn.Module):
    """A model with its scores multiplied by SCORE_SCALE."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return SCORE_SCALE * self.model(x)


def main(path: str) -> None:
    maps = {}
    for name, case in cases():
        case.model.eval()
        scaled = case._replace(model=Scaled(case.model), layers=[f"model.{layer}" for layer in case.layers])
        for method in GRADIENT_METHODS:
            maps[f"{name}|{method.__name__}"] = maps_of(scaled, method, list(map(ClassifierOutputTarget, CATEGORIES)))
        for method in EIGEN_METHODS:
            maps[f"{name}|{method.__name__}"] = components_of(scaled, method)
        for method in (ScoreCAM, AblationCAM):
            if len(case.layers) == 1:
                one = case if name == "resnet18" else case._replace(x=case.x[:1])  # 1.5.7 needs minutes an image
                # The highest class: its score is positive, and 1.5.7's AblationCAM inverts the map where it is not.
                maps[f"{name}|{method.__name__}"] = maps_of(one, method, None)
    np.savez(path, **maps)


if __name__ == "__main__":
    main(sys.argv[1])

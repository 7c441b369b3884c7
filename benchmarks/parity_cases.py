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
    FEM,
    KPCA_CAM,
    SESS,
    AblationCAM,
    AblationLayerVit,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    RefineCAM,
    ScoreCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
from pytorch_grad_cam.metrics.arcc import Complexity, batch_pearson_coherency
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADLeastRelevantFirst, ROADMostRelevantFirst
from pytorch_grad_cam.utils.image import (
    deprocess_image,
    preprocess_image,
    scale_accross_batch_and_channels,
    show_cam_on_image,
)
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    FinerWeightedTarget,
    SemanticSegmentationTarget,
)
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform, vit_reshape_transform

GRADIENT_METHODS = (
    GradCAM,
    HiResCAM,
    GradCAMElementWise,
    XGradCAM,
    LayerCAM,
    SegEigenCAM,
    RefineCAM,
    GradCAMPlusPlus,
)
EIGEN_METHODS = (EigenCAM, EigenGradCAM, KPCA_CAM)
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


def maps_of(case: Case, method: Callable, targets: list | None) -> np.ndarray:
    """The method's maps of the case, by the calls of 1.5."""
    layers = [] if method is FullGrad else [case.model.get_submodule(name) for name in case.layers]
    options = {"ablation_layer": AblationLayerVit()} if method is AblationCAM and case.reshape_transform else {}
    return method(case.model, layers, reshape_transform=case.reshape_transform, **options)(case.x, targets)


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


def pieces() -> dict[str, np.ndarray]:
    """What is not a map: metrics, targets, images, factorisation."""
    torch.manual_seed(0)
    model, x = torchvision.models.resnet18().eval(), torch.randn(2, 3, 64, 96)
    cams = torch.rand(2, 64, 96).numpy()
    targets = list(map(ClassifierOutputTarget, CATEGORIES))
    logits, scores = torch.randn(6, 10), torch.randn(5, 12, 16)
    picture = np.random.default_rng(0).random((12, 16, 3)).astype(np.float32)
    removing = {
        "ROADMostRelevantFirst": ROADMostRelevantFirst(60),
        "ROADLeastRelevantFirst": ROADLeastRelevantFirst(60),
    }
    for metric in removing.values():
        metric.perturbation.imputer.noise = 0
    levels = {"0": torch.randn(1, 4, 16, 24), "1": torch.randn(1, 4, 8, 12), "pool": torch.randn(1, 4, 4, 6)}
    return {
        "NoisyLinearImputer(noise=0)": NoisyLinearImputer(noise=0)(x[0], torch.rand(64, 96).gt(0.7).float()).numpy(),
        **{name: metric(x, cams, targets, model) for name, metric in removing.items()},
        "DropInConfidence": DropInConfidence()(x, cams, list(map(ClassifierOutputSoftmaxTarget, CATEGORIES)), model),
        "Complexity": Complexity()(cams),
        "batch_pearson_coherency": batch_pearson_coherency(cams, cams**2 - 0.3 * cams[::-1]),
        "dff": np.concatenate([part.ravel() for part in dff(np.random.default_rng(0).random((2, 8, 5, 6)), 3)]),
        "ClassifierOutputReST": ClassifierOutputReST(3)(logits).numpy(),
        "FinerWeightedTarget": FinerWeightedTarget(3, [1, 5], 0.7)(logits).numpy(),
        "SemanticSegmentationTarget": SemanticSegmentationTarget(2, np.float32(picture[..., 0] > 0.5))(scores).numpy(),
        "fasterrcnn_reshape_transform": fasterrcnn_reshape_transform(levels).numpy(),
        "preprocess_image": preprocess_image(picture).numpy(),
        "deprocess_image": deprocess_image(picture) / 255,
        "show_cam_on_image": show_cam_on_image(picture, picture[..., 0], use_rgb=True) / 255,
        "scale_accross_batch_and_channels": scale_accross_batch_and_channels(picture[None], (8, 24)),
    }


def main(path: str) -> None:
    maps = {f"pieces|{name}": np.asarray(value) for name, value in pieces().items()}
    targets = list(map(ClassifierOutputTarget, CATEGORIES))
    for name, case in cases():
        case.model.eval()
        scaled = case._replace(model=Scaled(case.model), layers=[f"model.{layer}" for layer in case.layers])
        for method in GRADIENT_METHODS:
            maps[f"{name}|{method.__name__}"] = maps_of(scaled, method, targets)
        if case.reshape_transform is None:  # 1.5.7 fails with one
            maps[f"{name}|FullGrad"] = maps_of(scaled, FullGrad, targets)
        if len(case.layers) == 1 and case.reshape_transform is None:  # or with two layers
            maps[f"{name}|ShapleyCAM"] = maps_of(scaled, ShapleyCAM, targets)
        for method in EIGEN_METHODS:
            maps[f"{name}|{method.__name__}"] = components_of(scaled, method)
        maps[f"{name}|FEM"] = maps_of(case, FEM, targets)
        maps[f"{name}|FinerCAM"] = maps_of(case, FinerCAM, None)
        if case.reshape_transform is None:  # the grids of the others fit one size of input
            maps[f"{name}|SESS"] = maps_of(case, partial(SESS, num_scales=2), targets)
        for method in (ScoreCAM, AblationCAM):
            if len(case.layers) == 1:
                one = case if name == "resnet18" else case._replace(x=case.x[:1])  # 1.5.7 needs minutes an image
                # The highest class: its score is positive, and 1.5.7's AblationCAM inverts the map where it is not.
                maps[f"{name}|{method.__name__}"] = maps_of(one, method, None)
    np.savez(path, **maps)


if __name__ == "__main__":
    main(sys.argv[1])

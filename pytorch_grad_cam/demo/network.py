"""The small residual network of the demo, its weights and its preprocessing."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, conv1x1

MEAN, STD = 0.5, 0.25
_DATA = Path(__file__).parent

M = TypeVar("M", bound=nn.Module)


class DigitsNet(nn.Module):
    """A small ResNet from images (N, 3, 64, 64) to one logit for each digit (N, 10); 308,826 parameters.

    Four stages of one BasicBlock (16, 32, 64, 128 channels) with a stride of 8 in all: `layer4` gives (N, 128, 8, 8).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.layer4 = _stage(64, 128, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut))


def with_own_weights(model: M, file: Path) -> M:
    """A model in evaluation mode with the weights of a file, beside those that it has from `load_digits_net`."""
    with file.open("rb") as opened:
        model.load_state_dict(torch.load(opened, weights_only=True), strict=False)
    return model.eval()


def load_digits_net() -> DigitsNet:
    """The trained network, on the CPU, in evaluation mode. The weights (float16 on disk) come with the package."""
    model = DigitsNet()
    with (_DATA / "digits.pt").open("rb") as file:
        state = torch.load(file, weights_only=True)
    model.load_state_dict(state)
    return model.eval()


def example_scene() -> np.ndarray:
    """The bundled held-out scene, uint8 RGB (64, 64, 3)."""
    from PIL import Image

    with (_DATA / "scene.png").open("rb") as file:
        return np.array(Image.open(file).convert("RGB"))


def preprocess_scene(images: np.ndarray) -> torch.Tensor:
    """The network's input, float32 (N, 3, 64, 64) in [-2, 2], from uint8 RGB scenes (64, 64, 3) or (N, 64, 64, 3)."""
    batch = torch.from_numpy(np.array(images)).reshape(-1, *images.shape[-3:])
    return (batch.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD

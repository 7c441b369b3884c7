"""A small U-Net that segments the digits of a scene, on the stages of the demo network.

The weights of its decoder come with the package, those of the encoder with `load_digits_net`; `train_segmenter` made
them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from pytorch_grad_cam.demo.network import load_digits_net, with_own_weights
from pytorch_grad_cam.demo.scenes import CLASSES, Scene

BACKGROUND = CLASSES
CATEGORIES = [*map(str, range(CLASSES)), "background"]
WEIGHTS = Path(__file__).parent / "segmenter.pt"


class DigitsUNet(nn.Module):
    """Logits (N, 11, H, W) from images (N, 3, H, W), as `preprocess_scene` gives them; sides are multiples of 8.

    Class 7 is the digit 7, class 10 the background. The encoder is the demo network, with a stride of 8, the decoder
    doubles the size three times: `up3` gives 64 channels, `up2` 32, `up1` 16 at the image's size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = load_digits_net().requires_grad_(False)
        del self.encoder.avgpool, self.encoder.fc
        self.up3, self.up2, self.up1 = _Up(128, 64, 64), _Up(64, 32, 32), _Up(32, 16, 16)
        self.head = nn.Conv2d(16, CLASSES + 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        body = self.encoder
        first = body.layer1(body.relu(body.bn1(body.conv1(images))))
        second = body.layer2(first)
        third = body.layer3(second)
        decoded = self.up1(self.up2(self.up3(body.layer4(third), third), second), first)
        logits: torch.Tensor = self.head(decoded)
        return logits


class _Up(nn.Module):
    """A map at twice its size, convolved with one of the encoder's."""

    def __init__(self, below: int, beside: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(below + beside, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, below: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([interpolate(below, scale_factor=2.0), beside], dim=1)
        convolved: torch.Tensor = self.relu(self.bn(self.conv(joined)))
        return convolved


def load_digits_segmenter() -> DigitsUNet:
    """The trained U-Net, on the CPU, in evaluation mode."""
    return with_own_weights(DigitsUNet(), WEIGHTS)


def decoder_of(model: DigitsUNet) -> dict[str, torch.Tensor]:
    """The weights without those of the encoder, in half precision."""
    state = model.state_dict()
    return {name: value.half() for name, value in state.items() if not name.startswith("encoder.")}


def classes_of(scene: Scene) -> np.ndarray:
    """The class of each pixel, int64 (64, 64): where two digits overlap, the later one, which is drawn over it."""
    classes = np.full(scene.masks.shape[1:], BACKGROUND)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        classes[mask] = label
    return classes

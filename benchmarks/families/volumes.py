"""Classifiers of volumes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.families.question import Case, Question, of_class

CLASSES = 5


def monai_cases() -> Iterator[Case]:
    resnet = r"layer4(\.\d+)?"
    small = {"spatial_dims": 3, "in_channels": 1}
    bottlenecks = {"groups": 1, "reduction": 4, "inplanes": 8, "input_3x3": False, "downsample_kernel_size": 1}
    for name, options, sensible in (
        ("DenseNet", {**small, "out_channels": CLASSES, "init_features": 8, "growth_rate": 4,
                      "block_config": (2, 2, 2, 2)},
         r"features(\.(denseblock4(\..+)?|norm5))?|class_layers\.relu"),
        ("ResNet", {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 32, 64], "n_input_channels": 1,
                    "spatial_dims": 3, "num_classes": CLASSES, "conv1_t_stride": 2}, resnet),
        ("SENet", {**small, **bottlenecks, "block": "se_resnet_bottleneck", "layers": (1, 1, 1, 1),
                   "num_classes": CLASSES}, resnet),
        ("ViT", {"in_channels": 1, "img_size": (96, 96, 128), "patch_size": 16, "hidden_size": 48, "mlp_dim": 64,
                 "num_layers": 3, "num_heads": 4, "classification": True, "num_classes": CLASSES},
         r"blocks\.2(\.norm\d)?|norm"),
    ):  # fmt: skip
        yield (
            f"monai {name} 3-D",
            partial(_monai, name, options, sensible),
        )


def _monai(name: str, options: dict[str, Any], sensible: str) -> Question:
    from monai.networks import nets

    return Question(getattr(nets, name)(**options), torch.randn(1, 1, 96, 96, 128), of_class(), sensible)

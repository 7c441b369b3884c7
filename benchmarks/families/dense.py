"""Networks that give one value a pixel, a depth: its mean over the image, and over a part of it."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.families.question import Case, Question, Target
from benchmarks.families.segmentation import NECK

SIDE = 128
SMALL = {"image_size": SIDE, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL_NECK = {"neck_hidden_sizes": [8, 16, 16, 32], "fusion_hidden_size": 16}


def transformers_cases() -> Iterator[Case]:
    for name, build in (
        ("DPT", _dpt),
        ("DepthAnything", _depth_anything),
        ("GLPN", _glpn),
        ("ZoeDepth", _zoe_depth),
    ):
        yield f"transformers {name} depth", build


def _dpt() -> Question:
    import transformers

    config = transformers.DPTConfig(**SMALL, **SMALL_NECK, intermediate_size=64, backbone_out_indices=[0, 1, 2, 3])
    sensible = rf"dpt(\.encoder(\.layer(s)?\.3(\..+)?)?|\.layernorm|\.layers\.3(\..+)?)?|{NECK}|head\.head\.[0-3]"
    return _depth(transformers.DPTForDepthEstimation(config), sensible)


def _dinov2() -> Any:
    import transformers

    return transformers.Dinov2Config(
        **SMALL, mlp_ratio=2, patch_size=16, out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )  # fmt: skip


def _depth_anything() -> Question:
    import transformers

    config = transformers.DepthAnythingConfig(
        backbone_config=_dinov2(), patch_size=16, reassemble_hidden_size=32, head_hidden_size=8, **SMALL_NECK
    )
    sensible = rf"backbone(\.beit)?(\.encoder|\.layernorm)?(\.layers?\.3(\..+)?)?|{NECK}|head\.(conv[12]|activation1)"
    return _depth(transformers.DepthAnythingForDepthEstimation(config), sensible)


def _glpn() -> Question:
    import transformers

    config = transformers.GLPNConfig(
        hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16
    )
    return _depth(
        transformers.GLPNForDepthEstimation(config),
        r"glpn(\..+)?\.3(\..+)?|decoder(?!\.stages\.[1-3]\.convolution)(\..+)?|head\.head\.[01]",
    )


def _zoe_depth() -> Question:
    import transformers

    backbone = transformers.BeitConfig(
        **SMALL, intermediate_size=64, out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone, backbone_hidden_size=32, **SMALL_NECK, bottleneck_features=16,
        num_relative_features=8, bin_embedding_dim=16,
        num_attractors=[4, 2, 2, 1], bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
    )  # fmt: skip
    sensible = rf"backbone(\.beit)?(\.encoder|\.layernorm)?(\.layers?\.3(\..+)?)?|{NECK}|relative_head\.(conv[12])"
    return _depth(
        transformers.ZoeDepthForDepthEstimation(config),
        sensible + r"|metric_head\.(conv2|seed|projectors|attractors).*",
    )


def _depth(model: Any, sensible: str) -> Question:
    return Question(model, torch.randn(1, 3, SIDE, SIDE), _depths, sensible)


def _depths(output: Any) -> dict[str, Target]:
    height, width = (size // 2 for size in output.predicted_depth.shape[1:])
    return {
        "mean": Target(lambda depth: depth.mean(), lambda output: output.predicted_depth[0].mean()),
        "a corner": Target(
            lambda depth: depth[:height, :width].mean(),
            lambda output: output.predicted_depth[0, :height, :width].mean(),
        ),
    }

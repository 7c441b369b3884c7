"""Classifiers of videos, (N, channels, frames, H, W) in torchvision, (N, frames, channels, H, W) in transformers."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.families.question import Case, Question, of_class

CLASSES = 5
SMALL = {
    "image_size": 64, "num_frames": 8, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 64, "num_labels": CLASSES,
}  # fmt: skip


def torchvision_cases() -> Iterator[Case]:
    resnet = r"layer4(\.\d+)?"
    for name, side, frames, sensible in (
        ("r3d_18", 64, 24, resnet),
        ("mc3_18", 64, 8, resnet),
        ("r2plus1d_18", 64, 24, resnet),
        # Of 14 frames there are two cells in time, which with random weights see all frames alike: weighted by their
        # answers, their centres lie 0.004 frames apart. No judge can tell them from each other.
        ("s3d", 224, 32, r"features(\.1[3-5](\..+)?)?"),
        ("swin3d_t", 96, 8, r"features(\.6(\..+)?)?|norm"),  # 4 x 3 x 3 cells, of 64 pixels it were 4 x 2 x 2
    ):
        yield (
            f"torchvision {name}",
            partial(_torchvision, name, side, frames, sensible),
        )
    yield "torchvision mvit_v1", lambda: _mvit(second_version=False)
    yield "torchvision mvit_v2", lambda: _mvit(second_version=True)


def _torchvision(name: str, side: int, frames: int, sensible: str) -> Question:
    from torchvision.models import video

    model = getattr(video, name)(weights=None, num_classes=CLASSES)
    return Question(model, torch.randn(1, 3, frames, side, side), of_class(), sensible)


def _mvit(second_version: bool) -> Question:
    """Four blocks; the third halves the grid. The second version widens in it, the first one before."""
    from torchvision.models.video import mvit

    widths = [(32, 32), (32, 32), (32, 64), (64, 64)] if second_version else [(32, 32), (32, 64), (64, 64), (64, 64)]
    blocks = [
        mvit.MSBlockConfig(
            num_heads=2, input_channels=before, output_channels=after, kernel_q=[3, 3, 3], kernel_kv=[3, 3, 3],
            stride_q=[1, 2, 2] if number == 2 else [1, 1, 1], stride_kv=[1, 2, 2],
        )
        for number, (before, after) in enumerate(widths)
    ]  # fmt: skip
    model = mvit.MViT(
        (64, 64), 8, blocks, residual_pool=second_version, residual_with_cls_embed=not second_version,
        rel_pos_embed=second_version, proj_after_attn=second_version, num_classes=CLASSES,
    )  # fmt: skip
    return Question(model, torch.randn(1, 3, 8, 64, 64), of_class(), r"blocks\.[23](\..+)?|norm")


def transformers_cases() -> Iterator[Case]:
    tokens = r"{0}(\.encoder|\.layernorm)?(\.layers?\.2(\..+)?)?|fc_norm"
    for name, options, sensible in (
        ("VideoMAE", {"patch_size": 16, "tubelet_size": 2}, tokens.format("videomae")),
        ("Vivit", {"tubelet_size": [2, 16, 16]}, tokens.format("vivit")),
        # What the last layer reads: within it only the class token is left of the cells.
        ("Timesformer", {"patch_size": 16}, tokens.format("timesformer") + r"|timesformer\.encoder\.layer\.1"),
    ):
        yield (
            f"transformers {name}",
            partial(_transformers, name, options, sensible),
        )
    yield "transformers VJEPA2", _vjepa2


def _transformers(name: str, options: dict[str, Any], sensible: str) -> Question:
    import transformers

    model = getattr(transformers, f"{name}ForVideoClassification")(
        getattr(transformers, f"{name}Config")(**SMALL, **options)
    )
    inputs = {"pixel_values": torch.randn(1, 8, 3, 64, 64)}
    return Question(model, inputs, of_class(), sensible, "pixel_values", frames_first)


def _vjepa2() -> Question:
    import transformers

    config = transformers.VJEPA2Config(
        crop_size=64, frames_per_clip=8, hidden_size=48, num_attention_heads=4, num_hidden_layers=3, mlp_ratio=2,
        num_pooler_layers=1, pred_hidden_size=48, pred_num_attention_heads=4, pred_num_hidden_layers=1,
        num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.VJEPA2ForVideoClassification(config)
    inputs = {"pixel_values_videos": torch.randn(1, 8, 3, 64, 64)}
    pooler = r"|pooler\.(self_attention_layers\.0|cross_attention_layer\.layer_norm1)"
    sensible = r"vjepa2(\.encoder(\.layer\.2(\..+)?|\.layernorm)?)?" + pooler
    return Question(model, inputs, of_class(), sensible, "pixel_values_videos", frames_first)


def frames_first(video: torch.Tensor) -> torch.Tensor:
    """(N, frames, channels, H, W) as (N, channels, frames, H, W)."""
    return video.transpose(1, 2)

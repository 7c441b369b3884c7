"""Models of images and texts: the similarity of an image with the second of three texts."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.families.question import Case, Question, Target

SIDE = 64
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SMALL, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXTS = torch.tensor([[1, 5, 8, 9, 2], [1, 7, 7, 4, 2], [1, 30, 31, 6, 2]])
LAST_BLOCK = r"vision_model(\.encoder(\.layers\.2(\..+)?)?|\.post_layernorm)?"


def transformers_cases() -> Iterator[Case]:
    vision = {**SMALL, "image_size": SIDE, "patch_size": 8}
    for name, text, more in (
        ("CLIP", TEXT, {"projection_dim": 32}),
        ("Siglip", TEXT, {}),
        ("ChineseCLIP", {**TEXT, "max_position_embeddings": 32}, {"projection_dim": 32}),
        ("AltCLIP", {**TEXT, "project_dim": 32, "max_position_embeddings": 32}, {"projection_dim": 32}),
        ("MetaClip2", TEXT, {"projection_dim": 32}),
        ("Blip", {**TEXT, "projection_dim": 32}, {"projection_dim": 32}),
        ("CLIPSeg", TEXT, {"projection_dim": 32}),
    ):
        yield (
            f"transformers {name}",
            partial(_transformers, name, text, vision, more, LAST_BLOCK),
        )
    yield "transformers Align", _align
    yield "transformers Siglip2", _siglip2


def _transformers(name: str, text: dict, vision: dict, more: dict, sensible: str, **inputs: Any) -> Question:
    import transformers

    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, **more)
    model = getattr(transformers, f"{name}Model")(config)
    image = {"pixel_values": torch.randn(1, 3, SIDE, SIDE), **inputs}
    texts = {"input_ids": TEXTS, "attention_mask": torch.ones_like(TEXTS)}
    return Question(model, {**image, **texts}, _second_text, sensible, "pixel_values")


def _align() -> Question:
    vision = {
        "image_size": 2 * SIDE, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 64,
        "num_block_repeats": [1] * 7,
    }  # fmt: skip
    text = {**SMALL, "vocab_size": 50}
    sensible = r"vision_model(\.encoder(\.blocks\.[67](\..+)?|\.top_\w+)?)?"
    image = torch.randn(1, 3, 2 * SIDE, 2 * SIDE)
    return _transformers("Align", text, vision, {"projection_dim": 160}, sensible, pixel_values=image)


def _siglip2() -> Question:
    """The image comes as patches, (N, patches, numbers in a patch), with the shape of their grid."""
    rows, columns, side = 6, 10, 8
    question = _transformers(
        "Siglip2", TEXT, {**SMALL, "patch_size": side, "num_patches": 64}, {}, LAST_BLOCK,
        pixel_values=torch.randn(1, rows * columns, 3 * side * side),
        pixel_attention_mask=torch.ones(1, rows * columns, dtype=torch.long),
        spatial_shapes=torch.tensor([[rows, columns]]),
    )  # fmt: skip
    question.reading = lambda patches: patches.unflatten(1, (rows, columns)).movedim(-1, 1)
    question.cells = side
    return question


def _second_text(output: Any) -> dict[str, Target]:
    return {
        "text": Target(1, lambda output: output.logits_per_image[0, 1]),
        "similarity": Target(lambda logits: logits[1] - logits[0], _more_than_the_first),
    }


def _more_than_the_first(output: Any) -> torch.Tensor:
    return output.logits_per_image[0, 1] - output.logits_per_image[0, 0]


def open_clip_cases() -> Iterator[Case]:
    text = {"context_length": 5, "vocab_size": 50, "width": 32, "heads": 4, "layers": 2}
    for name, vision, sensible in (
        ("ViT", {"image_size": 128, "patch_size": 16, "width": 32, "head_width": 8, "layers": 3},
         r"visual\.(transformer(\.resblocks(\.2(\..+)?)?)?|ln_post)"),
        ("ResNet", {"image_size": 128, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
         r"visual\.layer4(\.\d+)?"),
        ("timm", {"image_size": 128, "timm_model_name": "convnext_atto", "timm_model_pretrained": False,
                  "timm_pool": "", "timm_proj": "linear"}, r"visual\.trunk(\.stages(\.3(\..+)?)?)?"),
    ):  # fmt: skip
        yield f"open_clip {name}", _open_clip(vision, text, sensible)


def _open_clip(vision: dict, text: dict, sensible: str) -> Callable[[], Question]:
    """A tuple of the features of images and texts, and the scale of their similarity."""

    def build() -> Question:
        from open_clip.model import CLIP

        model = CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text)

        def similarities(output: Any) -> torch.Tensor:
            images, texts, scale = output
            return scale * images @ texts.T

        def targets(output: Any) -> dict[str, Target]:
            return {"similarity": Target(1, lambda output: similarities(output)[0, 1])}

        inputs = (torch.randn(1, 3, 128, 128), TEXTS)
        return Question(model, inputs, targets, sensible, 0, options={"output_transform": similarities})

    return build

"""Models that look at an image and write: the next token, as the only thing to explain and among all positions."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.families.question import Case, Question, Target, of_class
from benchmarks.families.video import frames_first

SIDE = 64
IMAGE = 90  # the token in whose place a patch's embedding comes
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
LANGUAGE = {
    **SMALL, "num_hidden_layers": 2, "num_key_value_heads": 4, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
VISION = {**SMALL, "image_size": SIDE, "patch_size": 8}
PATCHES = (SIDE // 8) ** 2
# The patches keep their places among the words up to what the last attention reads, as those of a ViT do.
BEFORE_LAST_ATTENTION = r"model\.language_model\.layers\.(0|1\.input_layernorm)"


def transformers_cases() -> Iterator[Case]:
    tower = (
        r"model\.vision_\w+(\.vision_model)?(\.encoder(\.layers\.[12](\..+)?)?|\.post_layernorm|\.layers\.[12](\..+)?)?"
    )
    projected = rf"{tower}|model\.(multi_modal_projector|connector)(\..+)?"
    projected += rf"|{BEFORE_LAST_ATTENTION}"
    for name, build, sensible in (
        ("Llava", _llava, projected),
        ("PaliGemma", _paligemma, projected),
        ("Idefics3", _idefics3, projected),
        (
            "Git",
            _git,
            r"git\.image_encoder(\..+)?\.2(\..+)?|git\.visual_projection(\..+)?|git\.image_encoder.*post_layernorm",
        ),
        ("Blip", _blip, r"vision_model(\.encoder(\.layers\.2(\..+)?)?|\.post_layernorm)?"),
        (
            "VisionEncoderDecoder",
            _encoder_decoder,
            r"encoder(\.encoder(\.layer(s)?\.2(\..+)?)?|\.layernorm|\.layers\.2(\..+)?)?",
        ),
    ):
        yield f"transformers {name} text", partial(build, sensible)
    yield "transformers Qwen2VL text", _qwen2_vl
    yield "transformers Vilt answer", _vilt


def _llava(sensible: str) -> Question:
    import transformers

    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION), text_config=transformers.LlamaConfig(**LANGUAGE),
        image_token_index=IMAGE, image_seq_length=PATCHES,
    )  # fmt: skip
    return _next_token(transformers.LlavaForConditionalGeneration(config), _with_image_tokens(PATCHES), sensible)


def _paligemma(sensible: str) -> Question:
    import transformers

    config = transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(**VISION, projection_dim=32),
        text_config=transformers.GemmaConfig(**LANGUAGE, head_dim=8),
        image_token_index=IMAGE, projection_dim=32, hidden_size=32, vocab_size=100,
    )  # fmt: skip
    return _next_token(transformers.PaliGemmaForConditionalGeneration(config), _with_image_tokens(PATCHES), sensible)


def _idefics3(sensible: str) -> Question:
    """Images come in several tiles, each of which has a map."""
    import transformers

    config = transformers.Idefics3Config(
        vision_config=transformers.Idefics3VisionConfig(**VISION), text_config=transformers.LlamaConfig(**LANGUAGE),
        image_token_id=IMAGE, scale_factor=2, pad_token_id=0,
    )  # fmt: skip
    inputs = _with_image_tokens(2 * PATCHES // 4)
    inputs["pixel_values"] = torch.randn(1, 2, 3, SIDE, SIDE)
    question = _next_token(transformers.Idefics3ForConditionalGeneration(config), inputs, sensible)
    question.reading = frames_first
    return question


def _git(sensible: str) -> Question:
    import transformers

    config = transformers.GitConfig(
        vision_config=VISION, **SMALL, vocab_size=100, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    return _next_token(transformers.GitForCausalLM(config), _with_image_tokens(0), sensible)


def _blip(sensible: str) -> Question:
    import transformers

    text = {**SMALL, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 2}
    config = transformers.BlipConfig(
        text_config={**text, "encoder_hidden_size": 32}, vision_config={**VISION, "initializer_range": 0.02}
    )
    return _next_token(transformers.BlipForConditionalGeneration(config), _with_image_tokens(0), sensible)


def _encoder_decoder(sensible: str) -> Question:
    import transformers

    decoder = transformers.BertConfig(
        **{**SMALL, "num_hidden_layers": 2}, vocab_size=100, is_decoder=True, add_cross_attention=True, pad_token_id=0
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION), decoder
    )
    inputs = {"pixel_values": torch.randn(1, 3, SIDE, SIDE), "decoder_input_ids": torch.tensor([[1, 5, 7]])}
    return _next_token(transformers.VisionEncoderDecoderModel(config), inputs, sensible)


def _qwen2_vl() -> Question:
    """The image comes as patches, (patches, numbers in a patch), two by two, with the shape of their grid."""
    import transformers

    rows, columns, side = 6, 8, 8
    config = transformers.Qwen2VLConfig(
        vision_config={
            "depth": 3, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": side, "mlp_ratio": 2,
        },
        text_config={**LANGUAGE, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}},
        image_token_id=IMAGE, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93,
    )  # fmt: skip
    inputs = _with_image_tokens(rows * columns // 4)
    inputs["pixel_values"] = torch.randn(rows * columns, 3 * 2 * side * side)
    inputs["image_grid_thw"] = torch.tensor([[1, rows, columns]])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    sensible = rf"model\.visual(\.blocks\.2(\..+)?|\.merger(\..+)?)?|{BEFORE_LAST_ATTENTION}"
    question = _next_token(transformers.Qwen2VLForConditionalGeneration(config), inputs, sensible)

    def as_image(patches: torch.Tensor) -> torch.Tensor:
        blocks = patches.reshape(rows // 2, columns // 2, 2, 2, -1)
        return blocks.permute(4, 0, 2, 1, 3).reshape(1, -1, rows, columns)

    question.reading = as_image
    question.cells = side
    return question


def _vilt() -> Question:
    import transformers

    config = transformers.ViltConfig(**VISION, vocab_size=100, num_labels=5)
    model = transformers.ViltForQuestionAnswering(config)
    # Behind it the model draws the order of the patches, anew in each forward: no later map lies in place.
    sensible = r"vilt\.embeddings\.patch_embeddings"
    return Question(model, _with_image_tokens(0), of_class(), sensible, "pixel_values")


def _with_image_tokens(count: int) -> dict[str, torch.Tensor]:
    text = torch.tensor([[1, *[IMAGE] * count, 5, 8, 9]])
    return {"pixel_values": torch.randn(1, 3, SIDE, SIDE), "input_ids": text, "attention_mask": torch.ones_like(text)}


def _next_token(model: Any, inputs: dict[str, torch.Tensor], sensible: str) -> Question:
    return Question(model, inputs, _tokens, sensible, "pixel_values")


def _tokens(output: Any) -> dict[str, Target]:
    token = int(output.logits[0, -1].argmax())
    return {"next token": Target(lambda logits: logits[-1, token], lambda output: output.logits[0, -1, token])}

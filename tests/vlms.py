"""Tiny vision-language models of transformers with random weights, and what their processors would give them."""

from typing import Any

import pytest
import torch

IMAGE, VIDEO, FAKE, OVERVIEW, NEWLINE, FIRST_TILE = 60, 61, 40, 39, 38, 20
TILE_COLUMNS = 3
_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_QWEN_VISION = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
_QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": 58,
    "vision_end_token_id": 59,
}
_PINPOINTS = [[32, 64], [64, 32], [64, 64]]


class TileTokenizer:
    """Names the tokens in front of tiles, as Idefics3's does."""

    def decode(self, ids):
        return "".join(map(self._named, map(int, ids)))

    @staticmethod
    def _named(token):
        if FIRST_TILE <= token < FIRST_TILE + 2 * TILE_COLUMNS:
            row, column = divmod(token - FIRST_TILE, TILE_COLUMNS)
            return f"<row_{row + 1}_col_{column + 1}>"
        return {FAKE: "<fake>", OVERVIEW: "<global-img>", NEWLINE: "\n", IMAGE: "<image>"}.get(token, "a")


def model_called(name: str) -> Any:
    """The model in evaluation mode, seeded."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}ForConditionalGeneration", getattr(transformers, f"{name}ForCausalLM", None))
    if made is None:
        pytest.skip(f"this transformers has no {name}")
    model = made(getattr(transformers, f"{name}Config")(**_configuration(name, transformers))).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # Gemma 3 projects its image by zeros at first
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def _configuration(name: str, transformers: Any) -> dict[str, Any]:
    clip = transformers.CLIPVisionConfig(**_VISION, projection_dim=16)
    siglip = transformers.SiglipVisionConfig(**_VISION, vision_use_head=False)
    llama = transformers.LlamaConfig(**_TEXT)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
    match name:
        case "Llava":
            return {"vision_config": clip, "text_config": llama, "image_token_index": IMAGE, "vision_feature_layer": -1}
        case "LlavaNext":
            return {**_configuration("Llava", transformers), "image_grid_pinpoints": _PINPOINTS}
        case "LlavaOnevision":
            tokens = {"image_token_index": IMAGE, "video_token_index": VIDEO}
            text = transformers.Qwen2Config(**_TEXT)
            return {"vision_config": siglip, "text_config": text, **tokens, "image_grid_pinpoints": _PINPOINTS}
        case "Qwen2VL":
            vision = {**_QWEN_VISION, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
        case "Qwen2_5_VL":
            sizes = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "window_size": 16}
            vision = {**_QWEN_VISION, **sizes, "fullatt_block_indexes": [1]}
        case "Qwen3VL":
            sizes = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_position_embeddings": 64}
            vision = {**_QWEN_VISION, **sizes, "deepstack_visual_indexes": [0]}
        case "PaliGemma":
            text = {**_TEXT, "head_dim": 8, "model_type": "gemma"}
            sizes = {"projection_dim": 32, "hidden_size": 32}
            return {"vision_config": siglip, "text_config": text, "image_token_index": IMAGE, **sizes}
        case "SmolVLM" | "Idefics3":
            vision = {**_VISION, "patch_size": 4}
            text = {**_TEXT, "model_type": "llama"}
            return {"vision_config": vision, "text_config": text, "image_token_id": IMAGE, "scale_factor": 2}
        case "InternVL":
            vision = {**_VISION, "image_size": [32, 32], "patch_size": [4, 4]}
            text = {**_TEXT, "model_type": "qwen2"}
            return {"vision_config": vision, "text_config": text, "image_token_id": IMAGE, "downsample_ratio": 0.5}
        case "Gemma3":
            text = {**_TEXT, "head_dim": 8}
            of_image = {"mm_tokens_per_image": 4, "image_token_index": IMAGE}
            return {"vision_config": _VISION, "text_config": text, **of_image}
        case "Idefics2":
            heads = {"resampler_n_heads": 2, "resampler_head_dim": 8, "num_key_value_heads": 2}
            perceiver = {"hidden_size": 32, "resampler_n_latents": 16, "resampler_depth": 1, **heads}
            text = {**_TEXT, "model_type": "mistral"}
            of_image = {"vision_config": _VISION, "perceiver_config": perceiver, "image_token_id": IMAGE}
            return {**of_image, "text_config": text}
        case "Mllama":
            ratios = {"max_num_tiles": 2, "supported_aspect_ratios": [[1, 1], [1, 2]]}
            heads = {"attention_heads": 2, "num_global_layers": 1, "intermediate_layers_indices": [0, 1]}
            vision = {**_VISION, **heads, **ratios, "vision_output_dim": 96}
            rope = {"rope_type": "default", "rope_theta": 1e4}
            text = {**_TEXT, "cross_attention_layers": [1], "rope_parameters": rope}
            return {"vision_config": vision, "text_config": text, "image_token_index": IMAGE}
        case "Fuyu":
            text = {key: value for key, value in _TEXT.items() if key != "num_key_value_heads"}
            rope = {"rope_type": "default", "rope_theta": 1e4}
            return {**text, "image_size": 32, "patch_size": 8, "image_token_id": IMAGE, "rope_parameters": rope}
        case "Blip":
            text = {**_TEXT, "encoder_hidden_size": 32, "sep_token_id": 2, "is_decoder": True}
            return {"vision_config": _VISION, "text_config": text, "projection_dim": 16}
        case _:
            raise ValueError(name)
    text = {**_TEXT, "head_dim": 8, "rope_parameters": rope}
    return {"vision_config": vision, "text_config": text, **_QWEN_TOKENS}


def _prompt(*parts: int | list[int], **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[token for part in parts for token in (part if isinstance(part, list) else [part])]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}


def _of_types(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = inputs["input_ids"]
    return {**inputs, "mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == VIDEO).int()}


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _tiled() -> dict[str, torch.Tensor]:
    """Six tiles in two rows, and the overview behind them."""
    parts: list[int | list[int]] = [1]
    for row in range(2):
        for column in range(TILE_COLUMNS):
            parts += [FAKE, FIRST_TILE + TILE_COLUMNS * row + column, [IMAGE] * 16]
        parts.append(NEWLINE)
    seen = torch.ones(1, 7, 32, 32, dtype=torch.bool)
    return _prompt(
        *parts,
        *(NEWLINE, FAKE, OVERVIEW, [IMAGE] * 16, FAKE, 5, 6, 7),
        pixel_values=_random(1, 7, 3, 32, 32),
        pixel_attention_mask=seen,
    )


def _qwen() -> dict[str, torch.Tensor]:
    """Two images, of 4 x 6 and 2 x 4 tokens."""
    grids = torch.tensor([[1, 8, 12], [1, 4, 8]])
    patches = _random(8 * 12 + 4 * 8, 3 * 2 * 4 * 4)
    ids = (1, 58, [IMAGE] * 24, 59, 58, [IMAGE] * 8, 59, 5, 6, 7)
    return _of_types(_prompt(*ids, pixel_values=patches, image_grid_thw=grids))


def _qwen_video(apart: bool) -> dict[str, torch.Tensor]:
    """Two frames of 4 x 4 tokens; apart: with text between them."""
    frames = (58, [VIDEO] * 16, 59, 9, 58, [VIDEO] * 16, 59) if apart else (58, [VIDEO] * 32, 59)
    inputs = {"pixel_values_videos": _random(128, 96), "video_grid_thw": torch.tensor([[2, 8, 8]])}
    return _of_types(_prompt(1, *frames, 5, 6, 7, **inputs))


_WHOLE = torch.ones(1, 1, 32, 32, dtype=torch.bool)
CASES: dict[str, tuple[str, dict[str, torch.Tensor], list[tuple[int, ...]]]] = {
    "LLaVA": ("Llava", _prompt(1, [IMAGE] * 16, 5, 6, 7, pixel_values=_random(1, 3, 32, 32)), [(4, 4)]),
    "LLaVA, two images": (
        "Llava",
        _prompt(1, [IMAGE] * 16, 9, [IMAGE] * 16, 5, 6, pixel_values=_random(2, 3, 32, 32)),
        [(4, 4), (4, 4)],
    ),
    "LLaVA-NeXT": (  # 40 x 70 in tiles of 2 x 2, of whose 8 rows 4 are no padding
        "LlavaNext",
        _prompt(1, [IMAGE] * 52, 5, 6, pixel_values=_random(1, 5, 3, 32, 32), image_sizes=torch.tensor([[40, 70]])),
        [(4, 8)],
    ),
    "LLaVA-OneVision": (
        "LlavaOnevision",
        _prompt(1, [IMAGE] * 52, 5, 6, pixel_values=_random(1, 5, 3, 32, 32), image_sizes=torch.tensor([[40, 70]])),
        [(4, 8)],
    ),
    "LLaVA-OneVision, two images": (
        "LlavaOnevision",
        _prompt(
            *(1, [IMAGE] * 17, 9, [IMAGE] * 17, 5, 6),
            pixel_values=_random(2, 1, 3, 32, 32),
            image_sizes=torch.tensor([[20, 70], [30, 30]]),
            batch_num_images=torch.tensor([2]),
        ),
        [(4, 4), (4, 4)],
    ),
    "LLaVA-OneVision, video": (
        "LlavaOnevision",
        _prompt(1, [VIDEO] * 13, 5, 6, pixel_values_videos=_random(1, 3, 3, 32, 32)),
        [(3, 2, 2)],
    ),
    "Qwen2-VL, two images": ("Qwen2VL", _qwen(), [(4, 6), (2, 4)]),
    "Qwen2.5-VL, two images": ("Qwen2_5_VL", _qwen(), [(4, 6), (2, 4)]),
    "Qwen3-VL, two images": ("Qwen3VL", _qwen(), [(4, 6), (2, 4)]),
    "Qwen2-VL, video": ("Qwen2VL", _qwen_video(apart=False), [(2, 4, 4)]),
    "Qwen2.5-VL, video": ("Qwen2_5_VL", _qwen_video(apart=False), [(2, 4, 4)]),
    "Qwen3-VL, video": ("Qwen3VL", _qwen_video(apart=True), [(2, 4, 4)]),
    "InternVL": ("InternVL", _prompt(1, [IMAGE] * 16, 5, 6, pixel_values=_random(1, 3, 32, 32)), [(4, 4)]),
    "Gemma3": (
        "Gemma3",
        _prompt(
            *(1, [IMAGE] * 4, 5, 6),
            pixel_values=_random(1, 3, 32, 32),
            token_type_ids=torch.tensor([[0, 1, 1, 1, 1, 0, 0]]),
        ),
        [(2, 2)],
    ),
    "PaliGemma": (
        "PaliGemma",
        _prompt(
            [IMAGE] * 16,
            1,
            5,
            6,
            pixel_values=_random(1, 3, 32, 32),
            token_type_ids=torch.zeros(1, 19, dtype=torch.long),
        ),
        [(4, 4)],
    ),
    "SmolVLM": (
        "SmolVLM",
        _prompt(1, [IMAGE] * 16, 5, 6, pixel_values=_random(1, 1, 3, 32, 32), pixel_attention_mask=_WHOLE),
        [(4, 4)],
    ),
    "Idefics3, tiles": ("Idefics3", _tiled(), [(8, 12)]),
    "SmolVLM, tiles": ("SmolVLM", _tiled(), [(8, 12)]),
    "Fuyu": (
        "Fuyu",
        _prompt(*[[IMAGE] * 6, NEWLINE] * 3, 1, 5, 6, image_patches=_random(1, 18, 8 * 8 * 3)),
        [(3, 6)],
    ),
}

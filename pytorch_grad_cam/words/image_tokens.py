"""Which tokens of a prompt are the cells of which image."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

View = torch.Tensor
"""The places of tokens in the prompt, as they lie in a picture (h, w), or in the frames of a video (frames, h, w)."""

_TILE = re.compile(r"row_(\d+)_col_(\d+)>\s*$")
_TAG = 16  # tokens in front of a tile, which say where it lies, at most


def image_tokens(model: nn.Module, inputs: Mapping[str, Any], tokenizer: Any = None) -> list[list[View]]:
    """For each image of one conversation, and then for each video, its views; each is of the whole picture.

    An image that is shown as a whole and in tiles has two: the tiles are put together. What the processor gave says
    where tokens lie: `image_grid_thw` and `video_grid_thw` (Qwen-VL), `image_sizes` (LLaVA-NeXT and -OneVision, whose
    own packing is asked), else the pictures of `pixel_values`, each of as many tokens. tokenizer: of models whose tiles
    lie apart in the prompt and are named there (Idefics3, SmolVLM).

    Raises ValueError for several conversations, for encoders and decoders, and where there are no image tokens, or they
    are no grid.
    """
    config: Any = model.config
    if "input_ids" not in inputs or getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} answers by a decoder that looks at the image, whose tokens are not in front of "
            f"the words: {_BY_GRADIENTS}"
        )
    if len(inputs["input_ids"]) != 1:
        raise ValueError(f"there are {len(inputs['input_ids'])} conversations: pass one at a time")
    ids = inputs["input_ids"][0]
    for resampler in ("perceiver_config", "qformer_config"):
        if getattr(config, resampler, None) is not None:
            raise ValueError(
                f"the image tokens of {type(model).__name__} are learned queries ({resampler}), no cells of the image: "
                f"{_BY_GRADIENTS}"
            )
    of_images, of_videos = (_places(ids, config, kind) for kind in ("image", "video"))
    if not len(of_images) + len(of_videos):
        raise ValueError(f"the prompt of {type(model).__name__} has no image tokens: {_BY_GRADIENTS}")
    found: list[list[View]] = []
    if len(of_images):
        found += _of_images(model, inputs, of_images, tokenizer)
    if len(of_videos):
        found += [[video] for video in _of_videos(model, inputs, of_videos)]
    return found


_BY_GRADIENTS = "explain its words by TokenTarget and a method with gradients, such as LayerCAM"
_OF_ONE_PICTURE = (
    "explain its words by TokenTarget and LayerCAM of a module that puts one picture (N, C, H, W) among these inputs "
    "and calls the model"
)


def _places(ids: torch.Tensor, config: Any, kind: str) -> torch.Tensor:
    names = (f"{kind}_token_id", f"{kind}_token_index")
    token = next((value for name in names if (value := getattr(config, name, None)) is not None), None)
    return ids.new_empty(0) if token is None else (ids == token).nonzero()[:, 0]


def _of_images(model: Any, inputs: Mapping[str, Any], places: torch.Tensor, tokenizer: Any) -> list[list[View]]:
    if "image_grid_thw" in inputs:
        return [[view[0]] for view in _by_grids(model, inputs["image_grid_thw"], places)]
    packing = next(
        (each for each in (getattr(model, "model", None), model) if hasattr(each, "pack_image_features")), None
    )
    if "image_sizes" in inputs and packing is not None:
        return _packed(packing, inputs, places)
    if "image_patches" in inputs:
        return [[_in_rows(places)]]
    if "pixel_values" not in inputs:
        raise ValueError(
            f"the inputs of {type(model).__name__}, {', '.join(inputs)}, have no pixel_values: {_BY_GRADIENTS}"
        )
    return _pictures(inputs, places, tokenizer)


def _of_videos(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> list[View]:
    if "video_grid_thw" in inputs:
        return _by_grids(model, inputs["video_grid_thw"], places)
    frames = inputs["pixel_values_videos"]
    videos, count, *_, height, width = frames.shape
    of_each = _split(places, [len(places) // videos] * videos)
    # A token behind the frames may end a video.
    return [
        each[: len(each) // count * count].reshape(count, *_grid(len(each) // count, height, width)) for each in of_each
    ]


def _by_grids(model: Any, grids: torch.Tensor, places: torch.Tensor) -> list[View]:
    """Of patches (frames, rows, columns), of which squares of `spatial_merge_size` are a token."""
    merged = model.config.vision_config.spatial_merge_size
    sizes = [(frames, rows // merged, columns // merged) for frames, rows, columns in grids.tolist()]
    of_each = _split(places, [math.prod(size) for size in sizes])
    return [each.reshape(size) for each, size in zip(of_each, sizes, strict=True)]


def _packed(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> list[list[View]]:
    """By the model's own packing of the cells' numbers: tiles lose what they are padded with, rows end with a token."""
    from transformers.image_processing_utils import select_best_resolution

    config = model.config
    pictures, side = inputs["pixel_values"], config.vision_config.image_size
    cells = side // config.vision_config.patch_size
    sizes = inputs["image_sizes"]
    are_whole = pictures.ndim != 5 or len(sizes) > 1 and "batch_num_images" in inputs  # noqa: RUF021
    features = []
    for size in sizes.tolist():
        height, width = (side, 0) if are_whole else select_best_resolution(size, config.image_grid_pinpoints)
        count = 1 + (height // side) * (width // side)
        features.append(torch.zeros(count, cells * cells, 1))
    others = {
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "vision_aspect_ratio": getattr(config, "vision_aspect_ratio", None),
    }
    accepted = inspect.signature(model.pack_image_features).parameters
    asked = {name: value for name, value in others.items() if name in accepted}
    ends = torch.full((1,), torch.nan)
    packed, lengths = model.pack_image_features(features, sizes.cpu(), image_newline=ends, **asked)
    found = []
    for values, each in zip(packed, _split(places, torch.as_tensor(lengths).tolist()), strict=True):
        overview, rest, is_end = each[: cells * cells], each[cells * cells :], values[cells * cells :, 0].isnan()
        views = [overview.reshape(cells, cells)]
        if len(rest) > 1:
            rows = int(is_end.sum())
            views.append(rest[~is_end.to(rest.device)].reshape(rows, -1))
        found.append(views)
    return found


def _pictures(inputs: Mapping[str, Any], places: torch.Tensor, tokenizer: Any) -> list[list[View]]:
    """Of pictures (..., C, H, W) of as many tokens each; those that the text in front calls tiles are put together."""
    pixels = inputs["pixel_values"]
    *batch, _, height, width = pixels.shape
    count = math.prod(batch)
    if len(places) < count:
        raise ValueError(
            f"the prompt has {len(places)} image tokens for {count} pictures, whose cells are none of its tokens (does "
            f"the model look at them by cross-attention?): {_OF_ONE_PICTURE}"
        )
    mask = inputs.get("pixel_attention_mask")
    if mask is not None and not bool(mask.all()):
        raise ValueError("pictures of the prompt are padded to one size: pass images of one size, or one image")
    views = [each.reshape(_grid(len(each), height, width)) for each in _split(places, [len(places) // count] * count)]
    if len(batch) == 1 or count == 1:
        return [[view] for view in views]
    if tokenizer is None:
        raise ValueError(f"an image is shown in {count} pictures, whose places the prompt says: pass the processor")
    tiles: list[tuple[int, int, View]] = []
    found = []
    for view in views:
        first = int(view[0, 0])
        text = tokenizer.decode(inputs["input_ids"][0, max(0, first - _TAG) : first])
        if named := _TILE.search(text):
            tiles.append((int(named[1]), int(named[2]), view))
            continue
        found.append([view, *_together(tiles)])
        tiles = []
    if tiles:
        raise ValueError(f"{len(tiles)} tiles are no whole image: the prompt ends without its overview")
    return found


def _together(tiles: Sequence[tuple[int, int, View]]) -> list[View]:
    if not tiles:
        return []
    rows = max(row for row, _, _ in tiles)
    return [torch.cat([torch.cat([view for at, _, view in tiles if at == row], 1) for row in range(1, rows + 1)], 0)]


def _in_rows(places: torch.Tensor) -> View:
    """Of one image, whose rows of tokens another token ends, as Fuyu's prompt has them."""
    begins = (places.diff(prepend=places[:1] - 2) > 1).nonzero()[:, 0]
    lengths = begins.diff(append=begins.new_tensor([len(places)]))
    if lengths.unique().numel() > 1:
        raise ValueError(f"the rows of image tokens are {lengths.tolist()} long: pass one image, or images of one size")
    return places.reshape(len(lengths), -1)


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    rows = round(math.sqrt(tokens * height / width))
    if rows == 0 or tokens % rows or abs(tokens // rows * height - rows * width) > 1e-6 * rows * width:
        raise ValueError(
            f"{tokens} image tokens are no grid of a picture of {height} x {width} pixels: {_BY_GRADIENTS}"
        )
    return rows, tokens // rows


def _split(places: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    if sum(sizes) != len(places):
        raise ValueError(f"the prompt has {len(places)} image tokens, and what the processor says of them {sum(sizes)}")
    return list(places.split(sizes))

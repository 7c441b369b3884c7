"""The forms in which segmenters return masks that are not those of all classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pytorch_grad_cam.engine.segmentation.segments import Prompted, Queries


def queries_in(outputs: Any) -> list[Queries] | None:
    """'class_queries_logits' (N, Q, C + 1) and 'masks_queries_logits' (N, Q, h, w), as transformers' Mask2Former,
    MaskFormer, OneFormer and EoMT give them; None in other outputs.
    """
    classes, masks = (_tensor(outputs, name, ndim) for name, ndim in _QUERIES)
    if classes is None or masks is None:
        return None
    return [Queries(*of_image) for of_image in zip(classes, masks, strict=True)]


def prompts_in(outputs: Any) -> list[Prompted] | None:
    """'pred_masks' (N, B, M, h, w) and 'iou_scores' (N, B, M) for B prompts, as transformers' SAM gives them; None in
    other outputs.
    """
    masks, quality = (_tensor(outputs, name, ndim) for name, ndim in _PROMPTS)
    if masks is None or quality is None:
        return None
    return [Prompted(*of_image) for of_image in zip(masks, quality, strict=True)]


_QUERIES = ("class_queries_logits", 3), ("masks_queries_logits", 4)
_PROMPTS = ("pred_masks", 5), ("iou_scores", 3)


def _tensor(outputs: Any, name: str, ndim: int) -> torch.Tensor | None:
    entry = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    return entry if isinstance(entry, torch.Tensor) and entry.ndim == ndim else None

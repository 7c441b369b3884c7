"""The forms in which detectors return boxes: of each an adapter to `Predictions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from pytorch_grad_cam.engine.detections.predictions import (
    Detected,
    Keypoints,
    Masks,
    Predictions,
    Suppression,
    corners_of,
    of_probabilities,
)
from pytorch_grad_cam.engine.detections.raw_predictions import raw_predictions_of

Size = tuple[int, int]

# What the libraries' own predictors do unless they are told otherwise.
_OF_CELLS = Suppression(min_score=0.25, max_iou=0.7, most=300)
_OF_ONE_TO_ONE = Suppression(min_score=0.25, most=300)
_OF_QUERIES = Suppression(min_score=0.5)
_NUMBERS_WITH_LOGIT = _BATCH_NDIM = 3
_REPORTED = ("boxes", "scores", "labels")


class DetectionForm(Protocol):
    """From a model's output to its predictions; None where it has another form."""

    def __call__(self, model: nn.Module, outputs: Any, size: Size) -> Detected | None:
        """size: (height, width) of the images."""


def detected(model: nn.Module, outputs: Any, size: Size) -> Detected | None:
    """The predictions in a detector's output by the first form that fits; None where none does."""
    forms: Sequence[DetectionForm] = (as_reported, in_dicts, in_batches, in_queries, in_decoded_queries, in_cells)
    return next((found for form in forms if (found := form(model, outputs, size)) is not None), None)


def as_reported(model: nn.Module, outputs: Any, size: Size) -> Detected | None:
    """What a detector like torchvision's, or a module around one, says of each image in any form, with its raw
    predictions: `raw_predictions_of` knows them by the scores that are reported. Of one image all is the sample's.
    """
    found = raw_predictions_of(outputs)
    if isinstance(outputs, list) and len(outputs) == len(found) > 0:
        return Detected(outputs, found)
    return Detected([outputs], found) if len(found) == 1 else None


def in_dicts(model: nn.Module, outputs: Any, size: Size) -> Detected | None:
    """A list with a dict of 'boxes' (D, 4), 'scores' (D,) and 'labels' (D,) for each image, as torchvision's detectors.

    Their scores are probabilities: the logit is the log-odds. No more is known than what is reported.
    """
    if not isinstance(outputs, list | tuple) or not outputs or not all(map(_is_dict_of_boxes, outputs)):
        return None
    reported = [
        of_probabilities(output["boxes"], output["scores"], output["labels"], size, Suppression()) for output in outputs
    ]
    return Detected(outputs, reported)


def _is_dict_of_boxes(output: Any) -> bool:
    return isinstance(output, Mapping) and {*_REPORTED} <= output.keys()


def in_batches(model: nn.Module, outputs: Any, size: Size) -> Detected | None:
    """'boxes' (N, D, 4), 'scores' (N, D) and 'labels' (N, D) of all images in a dict, or in this order in a tuple with
    integers as labels: networks that are exported with suppression, or need none. Read as `in_dicts` does.
    """
    if _is_dict_of_boxes(outputs):
        tensors = [outputs[key] for key in _REPORTED]
    elif isinstance(outputs, tuple) and len(outputs) == len(_REPORTED):
        tensors = [*outputs]
    else:
        return None
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return None
    boxes, scores, labels = tensors
    are_batches = boxes.ndim == _BATCH_NDIM and boxes.shape[2] == 4 and scores.shape == labels.shape == boxes.shape[:2]
    if not are_batches or labels.is_floating_point():
        return None
    return in_dicts(
        model, [dict(zip(_REPORTED, of_image, strict=True)) for of_image in zip(*tensors, strict=True)], size
    )


def has_boxes_of_other_rows(outputs: Any, images: int) -> bool:
    """Whether a tensor (D, 4) stands beside one (D,), and D is not the number of images, or (N, D, 4) beside (N, D):
    boxes and their scores, as a module around a detector may return them. No class scores.
    """
    entries = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    shapes = {tuple(entry.shape) for entry in entries if isinstance(entry, torch.Tensor) and entry.is_floating_point()}
    of_boxes = [shape[:-1] for shape in shapes if len(shape) > 1 and shape[-1] == 4]
    return any(rows in shapes and rows != (images,) for rows in of_boxes)


def in_queries(model: nn.Module, outputs: Any, size: Size) -> Detected | None:
    """'logits' (N, Q, C) and 'pred_boxes' (N, Q, 4): centre, width and height in shares of the image, as transformers'
    DETR family gives them.

    The scores are a sigmoid of each class, or, where there is one logit more than the model's configuration has labels,
    a softmax, with the last one for no object. Of models that read texts the classes are these.
    """
    logits, boxes = (_entry(outputs, name) for name in ("logits", "pred_boxes"))
    if not isinstance(logits, torch.Tensor) or not isinstance(boxes, torch.Tensor) or boxes.shape[-1] != 4:
        return None
    config = getattr(model, "config", None)
    has_no_object = getattr(config, "num_labels", None) == logits.shape[-1] - 1 and not hasattr(config, "text_config")
    scores = logits.detach().softmax(-1)[..., :-1] if has_no_object else logits.detach().sigmoid()
    return Detected(logits, _in_shares(boxes, logits[..., : scores.shape[-1]], scores, size))


def _entry(outputs: Any, name: str) -> Any:
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


def in_decoded_queries(model: nn.Module, outputs: Any, size: Size) -> Detected | None:
    """The best (N, K, 6), and behind them the boxes (layers, N, Q, 4) and logits (layers, N, Q, C) that each layer of
    the decoder gave, as ultralytics' RT-DETR returns them.
    """
    if not isinstance(outputs, tuple) or len(outputs) != 2 or not isinstance(outputs[1], tuple):
        return None
    best, (boxes, logits, *_) = outputs[0], (*outputs[1], None, None)
    if not isinstance(boxes, torch.Tensor) or not isinstance(logits, torch.Tensor):
        return None
    if boxes.ndim != 4 or logits.ndim != 4 or boxes.shape[-1] != 4:
        return None
    of_last = boxes[-1], logits[-1], logits[-1].detach().sigmoid()
    return Detected(best, _in_shares(*of_last, size, _OF_ONE_TO_ONE))


def _in_shares(
    boxes: torch.Tensor, logits: torch.Tensor, scores: torch.Tensor, size: Size, suppression: Suppression = _OF_QUERIES
) -> list[Predictions]:
    corners = corners_of(boxes) * boxes.new_tensor(size[::-1]).repeat(2)
    labels = _columns(logits)
    return [Predictions(*of_image, labels, size, suppression) for of_image in zip(corners, logits, scores, strict=True)]


def _columns(logits: torch.Tensor) -> torch.Tensor:
    return torch.arange(logits.shape[-1], device=logits.device)[None]


def in_cells(model: nn.Module, outputs: Any, size: Size) -> Detected | None:
    """The decoded predictions, and a dict of the heads' raw ones: 'scores' (N, C, cells), logits; 'boxes' (N, 4 * bins,
    cells), the distances from the cell to the sides in cells; 'feats', the maps (N, channels, h, w) with these cells;
    of some 'angle', 'kpts' or 'mask_coefficient' with prototypes beside the decoded ones: ultralytics' YOLOs.

    Of two heads, 'one2many' and 'one2one', the one that was decoded: the latter is sorted, so that it is not (N,
    numbers, cells). The box of an oriented one is the upright box around it.
    """
    if not isinstance(outputs, tuple) or len(outputs) != 2 or not isinstance(outputs[1], Mapping):
        return None
    (decoded, *prototypes), heads = outputs[0] if isinstance(outputs[0], tuple) else outputs[:1], outputs[1]
    is_sorted = False
    if "one2one" in heads:
        is_sorted = decoded.shape[-1] != heads["one2one"]["scores"].shape[-1]
        heads = heads["one2one" if is_sorted else "one2many"]
    if not {"boxes", "scores", "feats"} <= heads.keys():
        return None
    logits = heads["scores"].mT
    centres, strides = _cells(heads["feats"], size)
    boxes = _boxes_of_cells(heads["boxes"], centres, strides, heads.get("angle"))
    labels, suppression = _columns(logits), _OF_ONE_TO_ONE if is_sorted else _OF_CELLS
    masks = _masks(heads.get("mask_coefficient"), prototypes, len(boxes))
    keypoints = _keypoints(model, heads["kpts"], len(boxes)) if "kpts" in heads else [None] * len(boxes)
    angles = [None] * len(boxes) if "angle" not in heads else heads["angle"][:, 0]
    return Detected(
        decoded,
        [
            Predictions(of_boxes, of_logits, of_logits.detach().sigmoid(), labels, size, suppression, *others)
            for of_boxes, of_logits, *others in zip(boxes, logits, masks, keypoints, angles, strict=True)
        ],
    )


def _cells(levels: Sequence[torch.Tensor], size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """The centres (cells, 2) of all levels' cells, x and y in cells, and how many pixels (cells, 2) one has."""
    centres, strides = [], []
    for level in levels:
        rows, columns = (torch.arange(length, device=level.device) + 0.5 for length in level.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1).flatten(0, 1).to(level.dtype)
        stride = [length / cells for length, cells in zip(size, level.shape[2:], strict=True)][::-1]
        centres.append(grid)
        strides.append(grid.new_tensor(stride).expand_as(grid))
    return torch.cat(centres), torch.cat(strides)


def _boxes_of_cells(
    distances: torch.Tensor, centres: torch.Tensor, strides: torch.Tensor, angle: torch.Tensor | None
) -> torch.Tensor:
    """Boxes (N, cells, 4) in pixels. distances: (N, 4 * bins, cells), with bins as logits of 0, 1, 2 and so on."""
    of_sides = distances.mT.unflatten(-1, (4, -1))
    if of_sides.shape[-1] > 1:
        steps = torch.arange(of_sides.shape[-1], device=distances.device, dtype=distances.dtype)
        sides = of_sides.softmax(-1) @ steps
    else:
        sides = of_sides[..., 0]
    before, behind = sides[..., :2], sides[..., 2:]
    if angle is None:
        return torch.cat([(centres - before) * strides, (centres + behind) * strides], dim=-1)
    cosine, sine = angle.mT.cos(), angle.mT.sin()
    x, y = ((behind - before) / 2).split(1, dim=-1)
    centre = centres + torch.cat([x * cosine - y * sine, x * sine + y * cosine], dim=-1)
    width, height = (before + behind).split(1, dim=-1)
    across = torch.cat([width * cosine.abs() + height * sine.abs(), width * sine.abs() + height * cosine.abs()], dim=-1)
    return corners_of(torch.cat([centre, across], dim=-1)) * strides.repeat(1, 2)


def _masks(coefficients: torch.Tensor | None, prototypes: Sequence[Any], images: int) -> Sequence[Masks | None]:
    if coefficients is None or not prototypes or not isinstance(prototypes[0], torch.Tensor):
        return [None] * images
    return [Masks(*of_image) for of_image in zip(coefficients.mT, prototypes[0], strict=True)]


def _keypoints(model: nn.Module, raw: torch.Tensor, images: int) -> Sequence[Keypoints | None]:
    """Of (N, K * numbers, cells) with x, y and a logit; none without the last, which a module's `kpt_shape` says."""
    shape: Any = next((module.kpt_shape for module in model.modules() if hasattr(module, "kpt_shape")), None)
    if shape is None or shape[1] < _NUMBERS_WITH_LOGIT:
        return [None] * images
    return [Keypoints(of_image) for of_image in raw.unflatten(1, tuple(shape))[:, :, -1].mT]

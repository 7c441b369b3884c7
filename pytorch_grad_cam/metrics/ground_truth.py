"""Where the object is, as masks and boxes in every form in which they are given; and maps to hold against them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.engine.maps import full_precision

Maps = np.ndarray | torch.Tensor
Truth = np.ndarray | torch.Tensor | Sequence[Any]
"""The true place in each of N images, see `masks_of`."""

_OF_A_BOX = 4


def finite_maps(maps: Maps) -> torch.Tensor:
    """Maps (N, *spatial) as a tensor where they are, float32 or better.

    Raises ValueError for no maps, for maps without pixels or without spatial axes, and for values that are not finite.
    """
    found = torch.as_tensor(maps).detach()
    if found.ndim < 2 or not found.numel():
        raise ValueError(f"the maps have shape {tuple(found.shape)}, expected (N, *spatial), at least one map")
    found = full_precision(found) if found.is_floating_point() else found.float()
    if not found.isfinite().all():
        raise ValueError("the maps are not finite")
    return found


def masks_of(truth: Truth, maps: torch.Tensor) -> torch.Tensor:
    """The pixels of the object in each image: bool (N, *spatial), on the device of the maps (N, *spatial).

    truth: masks of the maps' shape, not 0 where the object is; or boxes (x0, y0, x1, y1), of which a pixel is inside
    when its centre is, so that upper bounds of whole numbers are exclusive: (N, 4), (N, K, 4) for K of them an image,
    or a list of N arrays (K, 4) or (4,). What has the maps' shape is taken for masks. What lies outside the image does
    not count.
    Raises ValueError for other shapes, and where an image has no pixel of the object.
    """
    given = _as_tensor(truth, maps)
    if given.shape == (len(maps), 1, *maps.shape[1:]):
        given = given[:, 0]
    inside = given != 0 if given.shape == maps.shape else _filled(_boxes(given, maps), maps)
    empty = ~inside.flatten(1).any(1)
    if empty.any():
        raise ValueError(
            f"the ground truth of image {int(empty.int().argmax())} has no pixel inside {tuple(maps.shape[1:])}: leave "
            "the image out, or see whether its boxes are x0, y0, x1, y1 in pixels of the map"
        )
    return inside


def boxes_in(truth: Truth, maps: torch.Tensor) -> list[np.ndarray]:
    """The boxes of each image, float64 (K, 4), clipped to the maps (N, H, W); of a mask the box around it.

    truth: see `masks_of`, which says what is raised.
    """
    inside = masks_of(truth, maps)
    given = _as_tensor(truth, maps)
    if given.shape in (maps.shape, (len(maps), 1, *maps.shape[1:])):
        return [_around(mask) for mask in inside.cpu().numpy()]
    height, width = maps.shape[1:]
    limits = torch.tensor([width, height, width, height], dtype=torch.float64)
    clipped = _boxes(given, maps).cpu().double().clamp(min=0).minimum(limits)
    return [boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)].numpy() for boxes in clipped]


def _as_tensor(truth: Truth, maps: torch.Tensor) -> torch.Tensor:
    if isinstance(truth, np.ndarray | torch.Tensor):
        return torch.as_tensor(truth).to(maps.device)
    entries = [torch.as_tensor(entry) for entry in truth]
    if entries and all(entry.shape == maps.shape[1:] for entry in entries):
        return torch.stack(entries).to(maps.device)
    rows = [entry.reshape(1, -1) if entry.ndim == 1 else entry for entry in entries]
    if not rows or any(row.ndim != 2 or row.shape[1] != _OF_A_BOX for row in rows):
        raise ValueError(_unusable([tuple(entry.shape) for entry in entries], maps))
    return torch.nn.utils.rnn.pad_sequence([row.float() for row in rows], batch_first=True).to(maps.device)


def _boxes(given: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    boxes = given[:, None] if given.ndim == 2 else given
    if maps.ndim != 3 or boxes.ndim != 3 or len(boxes) != len(maps) or boxes.shape[2] != _OF_A_BOX:
        raise ValueError(_unusable(tuple(given.shape), maps))
    return boxes


def _filled(boxes: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    rows, columns = (torch.arange(length, device=maps.device) + 0.5 for length in maps.shape[1:])
    left, top, right, bottom = boxes[..., None].unbind(2)
    across = (columns >= left) & (columns < right)
    down = (rows >= top) & (rows < bottom)
    return (down[..., None] & across[..., None, :]).any(1)


def _around(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)


def _unusable(shape: Any, maps: torch.Tensor) -> str:
    expected = f"masks {tuple(maps.shape)}, or boxes (N, 4), (N, K, 4) or a list of N arrays (K, 4) for maps (N, H, W)"
    return f"the ground truth has shape {shape}, expected {expected}"

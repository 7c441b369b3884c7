"""The files that are made from a map."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pytorch_grad_cam.folder.whole_files import write_whole
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.regions import boxes_of, otsu_mask


def save_results(
    folder: Path, name: str, picture: np.ndarray, cam_map: np.ndarray, kinds: Sequence[str]
) -> dict[str, Any]:
    """Write the files of the given kinds; return their names, and the boxes (left, top, right, bottom).

    name: what the files' names begin with. picture: (H, W, 3) in [0, 1], what the model was shown; masks and boxes are
    in its pixels, because preprocessing has resized and cropped the image. cam_map: (H, W) in [0, 1].
    """
    files = {kind: f"{name}.{kind}{_FILES[kind][0]}" for kind in kinds if kind in _FILES}
    for kind, file in files.items():
        write_whole(folder / file, _FILES[kind][1](picture, cam_map))
    boxes = {"boxes": boxes_of(otsu_mask(cam_map))} if "boxes" in kinds else {}
    return {"files": files, **boxes}


def _overlay(picture: np.ndarray, cam_map: np.ndarray) -> bytes:
    return _encoded(show_cam_on_image(picture, cam_map, use_rgb=True), "JPEG", quality=95)


def _map(_: np.ndarray, cam_map: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, cam_map)
    return file.getvalue()


def _mask(_: np.ndarray, cam_map: np.ndarray) -> bytes:
    return _encoded(255 * otsu_mask(cam_map).astype(np.uint8), "PNG")


def _encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


_FILES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], bytes]]] = {
    "overlay": (".jpg", _overlay),
    "map": (".npy", _map),
    "mask": (".png", _mask),
}
KINDS = (*_FILES, "boxes")

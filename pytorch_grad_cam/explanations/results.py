"""The files that are made from the maps of an image."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pytorch_grad_cam.folder.whole_files import write_whole
from pytorch_grad_cam.utils.regions import boxes_of, otsu_mask

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.image_maps import ImageMaps
    from pytorch_grad_cam.explanations.panel import Panel


def save_results(explanation: ImageMaps, folder: Path, name: str, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Write the files of the given kinds; of each panel what the manifest says of it, with their names and the boxes.

    name: what the files' names begin with. Masks are of the picture that the model was shown, because preprocessing has
    resized and cropped the image; so are 'boxes' (left, top, right, bottom); 'boxes_in_original' are in the pixels of
    the image itself, None where nobody knows. What a panel explains, 'explained_boxes' or the outlines of
    'explained_region', is in these as far as they are known.
    """
    described = []
    names = names_of_files(name, explanation.panels)
    for position, (panel, beginning) in enumerate(zip(explanation.panels, names, strict=True)):
        files = {kind: f"{beginning}{_FILES[kind][0]}" for kind in kinds if kind in _FILES}
        for kind, file in files.items():
            write_whole(folder / file, _FILES[kind][1](explanation, position))
        entry = _described(explanation, panel) | {"files": files}
        if "boxes" in kinds:
            boxes = boxes_of(otsu_mask(panel.map))
            entry |= {"boxes": boxes, "boxes_in_original": explanation.in_original(boxes)}
        described.append(entry)
    return described


def record_of(
    path: str, explanation: ImageMaps, said: dict[str, Any], targets: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The manifest's line of an image that was explained. said: what the model says of it; targets: of its panels."""
    return {
        "path": path,
        "size": list(explanation.picture.shape[:2]),
        "original_size": explanation.original_size and list(explanation.original_size),
        **said,
        "targets": targets,
        "warnings": explanation.warnings,
        "assumptions": explanation.assumptions,
    }


def names_of_files(name: str, panels: Sequence[Panel]) -> list[str]:
    """What the names of each panel's files begin with: `<image>.<method>.<class>`, of several layers with theirs.

    A target that is no class is named by its name, and one of several with one name by its number too.
    """
    layers = {(panel.method, panel.layer) for panel in panels}
    several = len(layers) > len({panel.method for panel in panels})
    names: list[str] = []
    for panel in panels:
        of_class = _plain(panel.name) if panel.category is None else str(panel.category)
        parts = [name, panel.method.lower().replace("_", ""), *([_plain(panel.layer)] if several else []), of_class]
        joined = ".".join(parts)
        count = sum(each == joined or each.startswith(f"{joined}~") for each in names)
        names.append(f"{joined}~{count + 1}" if count else joined)
    return names


def _plain(text: str) -> str:
    return "-".join(re.findall(r"[^\W_]+", text))[:_LONGEST] or "target"


def _described(explanation: ImageMaps, panel: Panel) -> dict[str, Any]:
    probability = None if panel.probability is None else round(panel.probability, 6)
    named = {"class": panel.category, "name": panel.name, "probability": probability}
    explained: dict[str, Any] = {"explained_boxes": [each._asdict() for each in panel.boxes]} if panel.boxes else {}
    outlines = explanation.outlines(panel)
    if outlines:
        explained = {"explained_region": [[(round(x, 1), round(y, 1)) for x, y in line] for line in outlines]}
    return named | {"method": panel.method, "layer": panel.layer} | explained


def _overlay(explanation: ImageMaps, panel: int) -> bytes:
    return _encoded(explanation.overlay(panel), "JPEG", quality=95)


def _map(explanation: ImageMaps, panel: int) -> bytes:
    file = io.BytesIO()
    np.save(file, explanation.panels[panel].map)
    return file.getvalue()


def _mask(explanation: ImageMaps, panel: int) -> bytes:
    return _encoded(255 * otsu_mask(explanation.panels[panel].map).astype(np.uint8), "PNG")


def _encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


_LONGEST = 60  # characters of a name in a file's name
_FILES: dict[str, tuple[str, Callable[[ImageMaps, int], bytes]]] = {
    "overlay": (".jpg", _overlay),
    "map": (".npy", _map),
    "mask": (".png", _mask),
}
KINDS = (*_FILES, "boxes")

"""A page to look through maps in a browser: one HTML file that holds all it shows."""

import base64
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from pytorch_grad_cam.explanations.colours import DIVERGING, colour_table
from pytorch_grad_cam.explanations.data_url import data_url
from pytorch_grad_cam.utils.overlays import flattened, montage_columns
from pytorch_grad_cam.utils.regions import Box, boxes_of, otsu_mask, outlines_of

if TYPE_CHECKING:
    from jinja2 import Template

    from pytorch_grad_cam.explanations.image_maps import ImageMaps
    from pytorch_grad_cam.explanations.panel import Panel

_COLOUR_MAPS = ("magma", "viridis", "jet", "grey")
_SCRIPTS = (  # one module; the last one begins
    "elements",
    "images",
    "maps",
    "colours",
    "choice",
    "sentence",
    "figures",
    "boxes",
    "zoom",
    "slices",
    "list",
    "link",
    "download",
    "controls",
)
_MIDDLE = 127  # the level of 0 in a signed map, see maps.js
_THUMBNAIL = 96  # the longer side, in pixels


def write_report(explanations: Iterable["ImageMaps"], file: str | Path) -> Path:
    """Write a page with the explanations, in their order, and return its path; a missing folder is made.

    The file needs no other file and no network. Pictures are kept as JPEG, maps in 256 steps; of volumes and clips the
    page shows one slice after the other, or all side by side. Each explanation is encoded and written as it comes, so a
    generator is never in memory as a whole. A file at the path is replaced when the page is complete.

    Raises ValueError where there is no explanation or no panel, and for a map of another size than its picture or with
    values outside [0, 1], of signed maps [-1, 1].
    """
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / "report.html"
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as page:
            page.writelines(_page(explanations))
        os.replace(unfinished, path)
    return path


def _page(explanations: Iterable["ImageMaps"]) -> Iterator[str]:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    loader = PackageLoader("pytorch_grad_cam.explanations", "templates")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    sources = (loader.get_source(environment, f"script/{name}.js")[0] for name in _SCRIPTS)
    script, style = Markup("\n".join(sources)), Markup(loader.get_source(environment, "report.css")[0])
    template: Template = environment.get_template("report.html")
    return template.generate(
        images=_images(explanations),
        colours={name: _colours(name) for name in _COLOUR_MAPS} | {"signed": _colours(DIVERGING)},
        script=script,
        script_hash=_hash(script),
        style=style,
        style_hash=_hash(style),
    )


def _hash(text: str) -> str:
    """The name of a text in a Content-Security-Policy, which lets the browser run no other script."""
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"


def _images(explanations: Iterable["ImageMaps"]) -> Iterator[dict[str, Any]]:
    count = 0
    for count, explanation in enumerate(explanations, start=1):
        title = explanation.title or f"Image {count}"
        picture = explanation.shown()
        yield {
            "title": title,
            "facts": _facts(explanation),
            "thumbnail": _thumbnail(picture),
            "data": _data(title, picture, explanation),
        }
    if count == 0:
        raise ValueError("there are no explanations, expected one or more")


def _facts(explanation: "ImageMaps") -> dict[str, str]:
    """What the list of images is filtered and sorted by, as attributes."""
    ((_, _, probability),) = explanation.top(1)
    predicted = explanation.said
    facts = {"data-predicted": predicted, "data-probability": str(probability if math.isfinite(probability) else 0)}
    if explanation.truth is not None:
        facts |= {"data-truth": explanation.truth, "class": "right" if explanation.truth == predicted else "wrong"}
    return facts | ({"data-warned": ""} if explanation.warnings else {})


def _data(title: str, picture: np.ndarray, explanation: "ImageMaps") -> dict[str, Any]:
    if not explanation.panels:
        raise ValueError(f"the explanation of {title} has no panels, expected one or more")
    return {
        "width": picture.shape[1],
        "height": picture.shape[0],
        "picture": data_url(picture, "jpeg", quality=95, subsampling=0),
        "slices": _slices(explanation.picture),
        "panels": [_panel(title, panel, explanation) for panel in explanation.panels],
        "predicted": explanation.said,
        "sentence": list(explanation.sentence),
        "truth": explanation.truth,
        "about": dict(explanation.about),
        "versions": dict(explanation.versions),
        "assumptions": [str(assumption) for assumption in explanation.assumptions],
    }


def _regions(cam_map: np.ndarray) -> list[Box]:
    """Boxes around where a map is high, of a volume in each slice, where it lies beside the others."""
    if cam_map.ndim != 3:
        return boxes_of(otsu_mask(flattened(cam_map[..., None])[..., 0]))
    count, height, width = cam_map.shape
    columns = montage_columns(count)
    regions = []
    masks = otsu_mask(cam_map.reshape(-1, width)).reshape(cam_map.shape)
    for number, mask in enumerate(masks):
        row, column = divmod(number, columns)
        x, y = column * width, row * height
        regions += [(left + x, top + y, right + x, bottom + y) for left, top, right, bottom in boxes_of(mask)]
    return regions


def _slices(picture: np.ndarray) -> dict[str, int] | None:
    """How the slices of a volume lie side by side; None for pictures and signals."""
    if picture.ndim != 4:
        return None
    count, height, width, _ = picture.shape
    return {"count": count, "columns": montage_columns(count), "width": width, "height": height}


def _panel(title: str, panel: "Panel", explanation: "ImageMaps") -> dict[str, Any]:
    lowest, highest = panel.map.min(), panel.map.max()
    bottom = -1 if explanation.is_signed else 0
    size = explanation.picture.shape[:-1]
    if panel.map.shape != size or not (lowest >= bottom and highest <= 1):
        raise ValueError(
            f"the map of {title} by {panel.method} has shape {panel.map.shape} and values from {lowest:.3g} to "
            f"{highest:.3g}, expected {size}, the picture's, and [{bottom}, 1]"
        )
    heat = flattened(panel.map[..., None])[..., 0]
    levels = _MIDDLE * (heat + 1) if explanation.is_signed else 255 * heat
    return {
        "method": panel.method,
        "layer": panel.layer,
        "category": None if panel.category is None else int(panel.category),
        "name": panel.name,
        "probability": _finite(panel.probability),
        "map": data_url(np.rint(levels).astype(np.uint8), "png"),
        "slice": int(np.abs(panel.map).max((1, 2)).argmax()) if panel.map.ndim == 3 else None,  # that is shown first
        "signed": explanation.is_signed,
        "warnings": list(panel.warnings),
        "regions": [] if explanation.is_signed else _regions(panel.map),
        "boxes": [
            {"name": name, "score": _finite(score), "box": [float(edge) for edge in explanation.seen(box)]}
            for name, score, box in panel.boxes
        ]
        + _around(panel),
    }


def _around(panel: "Panel") -> list[dict[str, Any]]:
    """The box and the outlines of the region that a map explains."""
    if panel.region is None or panel.region.ndim != 2:
        return []
    rows, columns = (np.flatnonzero(panel.region.any(axis)) for axis in (1, 0))
    box = [float(edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
    return [{"name": panel.name, "score": None, "box": box, "outlines": outlines_of(panel.region)}]


def _finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None


def _thumbnail(picture: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return data_url(np.asarray(image), "jpeg", quality=80)


def _colours(name: str) -> str:
    return _base64(colour_table(name).tobytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

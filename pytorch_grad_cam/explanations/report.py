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

from pytorch_grad_cam.explanations.colours import colour_table
from pytorch_grad_cam.explanations.data_url import data_url

if TYPE_CHECKING:
    from jinja2 import Template

    from pytorch_grad_cam.explanations.explanation import Explanation, Panel

_COLOUR_MAPS = ("jet", "viridis", "magma", "grey")
_THUMBNAIL = 96  # the longer side, in pixels


def write_report(explanations: Iterable["Explanation"], file: str | Path) -> Path:
    """Write a page with the explanations, in their order, and return its path; a missing folder is made.

    The file needs no other file and no network. Pictures are kept as JPEG, maps in 256 steps. Each explanation is
    encoded and written as it comes, so a generator is never in memory as a whole. A file at the path is replaced when
    the page is complete.

    Raises ValueError where there is no explanation or no panel, and for a map of another size than its picture or with
    values outside [0, 1].
    """
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / "report.html"
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as page:
            page.writelines(_page(explanations))
        os.replace(unfinished, path)
    return path


def _page(explanations: Iterable["Explanation"]) -> Iterator[str]:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    loader = PackageLoader("pytorch_grad_cam.explanations", "templates")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    script, style = (Markup(loader.get_source(environment, name)[0]) for name in ("report.js", "report.css"))
    template: Template = environment.get_template("report.html")
    return template.generate(
        images=_images(explanations),
        colours={name: _base64(colour_table(name).tobytes()) for name in _COLOUR_MAPS},
        script=script,
        script_hash=_hash(script),
        style=style,
        style_hash=_hash(style),
    )


def _hash(text: str) -> str:
    """The name of a text in a Content-Security-Policy, which lets the browser run no other script."""
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"


def _images(explanations: Iterable["Explanation"]) -> Iterator[dict[str, Any]]:
    count = 0
    for count, explanation in enumerate(explanations, start=1):
        title = explanation.title or f"Image {count}"
        yield {"title": title, "thumbnail": _thumbnail(explanation.picture), "data": _data(title, explanation)}
    if count == 0:
        raise ValueError("there are no explanations, expected one or more")


def _data(title: str, explanation: "Explanation") -> dict[str, Any]:
    picture = explanation.picture
    if not explanation.panels:
        raise ValueError(f"the explanation of {title} has no panels, expected one or more")
    return {
        "width": picture.shape[1],
        "height": picture.shape[0],
        "picture": data_url(picture, "jpeg", quality=95, subsampling=0),
        "panels": [_panel(title, panel, picture.shape[:2]) for panel in explanation.panels],
        "warnings": [str(warning) for warning in explanation.warnings],
        "versions": dict(explanation.versions),
        "assumptions": [str(assumption) for assumption in explanation.assumptions],
    }


def _panel(title: str, panel: "Panel", size: tuple[int, ...]) -> dict[str, Any]:
    lowest, highest = panel.map.min(), panel.map.max()
    if panel.map.shape != size or not (lowest >= 0 and highest <= 1):
        raise ValueError(
            f"the map of {title} by {panel.method} has shape {panel.map.shape} and values from {lowest:.3g} to "
            f"{highest:.3g}, expected {size}, the picture's, and [0, 1]"
        )
    probability = panel.probability
    return {
        "method": panel.method,
        "layer": panel.layer,
        "category": None if panel.category is None else int(panel.category),
        "name": panel.name,
        "probability": float(probability) if probability is not None and math.isfinite(probability) else None,
        "map": data_url(np.rint(255 * panel.map).astype(np.uint8), "png"),
    }


def _thumbnail(picture: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return data_url(np.asarray(image), "jpeg", quality=80)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

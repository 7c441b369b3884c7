"""The right class of an image, as far as somebody says it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_grad_cam.explanations.explainer import numbered
from pytorch_grad_cam.folder.image_list import ListedImage
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.explanation import Explanation
    from pytorch_grad_cam.explanations.typed import Truth

FOLDERS = "folders"
"""What the command line calls the names of the images' folders."""

_EXAMPLE = 'a CSV file with a line "photos/a.jpg,tabby" for each image, or JSON such as {"photos/a.jpg": "tabby"}'


def tell(explanation: Explanation, truth: Truth | None, position: int = 0, name: str = "") -> None:
    """Write down the right class of an image, if it is said.

    truth: a class by number or name, or one for each image: in their order, or by their names. name: the image's, such
    as its path in its folder; of a longer name its end is enough. Raises ValueError and IndexError for a class that
    does not exist.
    """
    right: Any = truth
    if isinstance(truth, Mapping):
        right = _by_name(truth, name or explanation.title)
    elif isinstance(truth, Sequence) and not isinstance(truth, str):
        right = truth[position]
    if right is not None:
        explanation.truth = explanation.names[numbered(right, explanation.names)]


def _by_name(truth: Mapping[str, Any], name: str) -> Any:
    """What is said of the image by the longest end of its name."""
    parts = Path(name).parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((truth[end] for end in ends if end in truth), None)


def read_truth(file: str) -> dict[str, int | str]:
    """The classes in a file, by the images' names: two columns of CSV, or a JSON object. A class is its number or name.

    Raises UnusableInput where there is no such file, or something else in it.
    """
    if not Path(file).is_file():
        raise UnusableInput(f"there is no file {file}: the right classes are {_EXAMPLE}")
    text = Path(file).read_text(encoding="utf-8-sig")
    try:
        found: dict[str, Any] = json.loads(text) if text.lstrip().startswith("{") else _rows(text)
    except ValueError as error:
        raise UnusableInput(f"{file} is not {_EXAMPLE} ({error})") from error
    wrong = [name for name, right in found.items() if isinstance(right, bool) or not isinstance(right, int | str)]
    if wrong:
        raise UnusableInput(f"{file} says {found[wrong[0]]!r} of {wrong[0]}, expected a class by number or name")
    return found


def _rows(text: str) -> dict[str, str]:
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    other = [row for row in rows if len(row) != 2]
    if other:
        raise ValueError(f"a line has {len(other[0])} entries: {','.join(other[0])[:60]}")
    return dict(rows)


def classes_of_folders(images: Sequence[ListedImage]) -> dict[str, int | str]:
    """The name of the folder that each image lies in, as its class. Raises UnusableInput where they lie in none."""
    outside = [image.path for image in images if len(Path(image.name).parts) < 2]
    if outside:
        raise UnusableInput(f"{outside[0]} lies in no folder of a class: pass the folder above them, or --truth FILE")
    return {image.name: Path(image.name).parts[-2] for image in images}

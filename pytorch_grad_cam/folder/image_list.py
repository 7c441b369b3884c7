"""The images that a folder, a glob or a list means, and the names of the files made of them."""

import glob
import os
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pytorch_grad_cam.zoo.unusable_input import UnusableInput

_WILDCARDS = frozenset("*?[")


class ListedImage(NamedTuple):
    """An image's path, and the beginning of the names of the files made of it, which no other image has."""

    path: str
    name: str


def means_several(path: str) -> bool:
    """Whether a path is a folder, a list (.txt), or a glob that matches something."""
    if os.path.isfile(path):
        return path.lower().endswith(".txt")
    return os.path.isdir(path) or next(glob.iglob(path, recursive=True), None) is not None


def images_in(path: str, output_dir: Path | None) -> list[ListedImage]:
    """The images that a folder, a glob or a list means, each once.

    A folder means all files with a suffix that Pillow reads, in its sub-folders too; a glob all files that match; both
    sorted and without files in the output folder. A list has one path a line, and keeps its order. Names are relative
    to the folder, to the part of the glob before its wildcards, or to the folder that all paths of the list share.
    Raises UnusableInput where there are no images, or where the results would lie among them.
    """
    if os.path.isfile(path):
        lines = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        listed = [line.strip() for line in lines if line.strip()]
        images = _named(listed, os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in listed] or [""]))
    else:
        root, files = _files_of(path)
        images = sorted(
            _named(files if output_dir is None else _outside(output_dir, root, files), root),
            key=lambda image: image.name,
        )
    if not images:
        raise UnusableInput(f"there are no images in {path}")
    return images


def _files_of(path: str) -> tuple[str, list[str]]:
    """The folder that names are relative to, and the files that a folder or a glob means."""
    if os.path.isdir(path):
        suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
        return path, [str(file) for file in Path(path).rglob("*") if file.suffix.lower() in suffixes]
    fixed = takewhile(lambda part: not _WILDCARDS & set(part), Path(path).parts)
    return str(Path(*fixed)), glob.glob(path, recursive=True)


def _outside(output_dir: Path, root: str, files: list[str]) -> list[str]:
    """The files that are not results of an earlier run."""
    output, images = Path(os.path.abspath(output_dir)), Path(os.path.abspath(root))
    if output == images:
        raise UnusableInput(f"the results would lie among the images in {root}: pass another --output-dir")
    if not output.is_relative_to(images):
        return files
    return [file for file in files if not Path(os.path.abspath(file)).is_relative_to(output)]


def _named(files: list[str], root: str) -> list[ListedImage]:
    names = {Path(os.path.relpath(file, root)).as_posix(): file for file in files if not os.path.isdir(file)}
    return [ListedImage(path, name) for name, path in names.items()]

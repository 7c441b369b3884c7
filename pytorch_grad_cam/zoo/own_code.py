"""A user's own code by name: `file.py:name` or `package.module:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from pytorch_grad_cam.zoo.unusable_input import UnusableInput


def is_own_code(text: str) -> bool:
    """Whether a text means something in a file or a module, and is no path of Windows."""
    place, separator, name = text.rpartition(":")
    return bool(separator) and name.replace(".", "").isidentifier() and (place.endswith(".py") or _is_dotted(place))


def own_code(text: str) -> Any:
    """What a text names. The file's folder is where it imports from; a module is looked for in the working folder too.

    Raises UnusableInput where there is no such file, module or name; what the code itself raises is raised on.
    """
    place, _, name = text.rpartition(":")
    module = _of_file(Path(place)) if place.endswith(".py") else _of_module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each in vars(module) if not each.startswith("_")]
            raise UnusableInput(f"{place} has no {name!r}, but {', '.join(known[:12]) or 'nothing'}")
        found = getattr(found, part)
    return found


def _of_file(file: Path) -> Any:
    if not file.is_file():
        raise UnusableInput(f"there is no file {file}")
    specification = importlib.util.spec_from_file_location(file.stem, file)
    if specification is None or specification.loader is None:
        raise UnusableInput(f"{file} is no Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(file.stem, module)  # worker processes, and what the file pickles, look for it there
    _look_in(file.parent)
    specification.loader.exec_module(module)
    return module


def _of_module(name: str) -> Any:
    _look_in(Path())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise UnusableInput(
            f"there is no module {name}: name one that Python finds, or a file, file.py:name"
        ) from error


def _look_in(folder: Path) -> None:
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.insert(0, place)


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))

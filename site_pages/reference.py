"""The reference: a page for each public module, and one of the names in the package's root."""

import importlib
import inspect
import json
from functools import cache
from typing import Any

from mkdocs.structure.files import File

from site_pages import ROOT

PACKAGE = "pytorch_grad_cam"
SURFACE = ROOT / "tests/data/surface-2.0.json"


@cache
def surface() -> dict[str, dict[str, Any]]:
    """The public names of each public module."""
    return json.loads(SURFACE.read_text(encoding="utf-8"))


def files(config: Any) -> list[File]:
    """All pages of the reference."""
    return [
        File.generated(config, page_of(module), content=_page(module, names)) for module, names in surface().items()
    ]


def navigation() -> list[dict[str, Any]]:
    """The pages, those of a room below its name."""
    entries: list[dict[str, Any]] = []
    rooms: dict[str, list[dict[str, Any]]] = {}
    for module in surface():
        room, _, rest = module.removeprefix(f"{PACKAGE}.").partition(".")
        if module == PACKAGE:
            continue
        entry = {module.removeprefix(f"{PACKAGE}."): page_of(module)}
        is_room = rest or any(other.startswith(f"{module}.") for other in surface())
        (rooms.setdefault(room, []) if is_room else entries).append(entry)
    return [*({f"{room}": pages} for room, pages in rooms.items()), {"The methods' modules": entries}]


def page_of(module: str) -> str:
    """Where the module's page is."""
    return "reference/index.md" if module == PACKAGE else f"reference/{module.removeprefix(f'{PACKAGE}.')}.md"


def home_of(value: Any) -> str:
    """The public module that a class or function is defined in; "" if there is none."""
    home = getattr(value, "__module__", "")
    return home if getattr(value, "__name__", None) in surface().get(home, ()) else ""


def _page(module: str, names: dict[str, Any]) -> str:
    loaded = importlib.import_module(module)
    values = {name: getattr(loaded, name) for name in names}
    own = [name for name, value in values.items() if home_of(value) == module and module != PACKAGE]
    parts = [f"# {module}" if module != PACKAGE else "# API reference", inspect.getdoc(loaded) or ""]
    if module == PACKAGE:
        parts.append(
            "The names of the package's root: `from pytorch_grad_cam import ...`. The modules are at the left."
        )
    parts.append("\n".join(_entry(module, name, values[name]) for name in names if name not in own))
    parts += [f"::: {module}.{name}" for name in own]
    parts += [
        f"::: {value.__module__}.{value.__name__}\n    options:\n      inherited_members: true"
        for value in _only_here(module, values)
    ]
    return "\n\n".join(part for part in parts if part)


def _entry(module: str, name: str, value: Any) -> str:
    anchor = f'<a id="{module}.{name}"></a>'
    home = home_of(value)
    if home:
        target = f"{page_of(home).removeprefix('reference/')}#{home}.{value.__name__}"
        depth = "../" * (page_of(module).count("/") - 1)
        return f"- {anchor}[`{name}`]({depth}{target}): {_first_line(value)}"
    if module == PACKAGE and callable(value):
        return f"- {anchor}[`{name}`](#{value.__module__}.{value.__name__}): {_first_line(value)}"
    return f"- {anchor}`{name}`: {_first_line(value) if callable(value) else f'a {type(value).__name__}'}"


def _only_here(module: str, values: dict[str, Any]) -> list[Any]:
    """What the root has from a room that is not public: it is told of on the root's page, with what it inherits."""
    return [value for value in values.values() if module == PACKAGE and callable(value) and not home_of(value)]


def _first_line(value: Any) -> str:
    return (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")

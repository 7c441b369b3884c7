"""What is public in 2.0: names and arguments, read from the package. `python tests/surface.py` writes them down."""

import importlib
import inspect
import json
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_grad_cam

FILE = Path(__file__).parent / "data/surface-2.0.json"
# Rooms whose names may change from one version to the next.
INTERNAL = (
    "engine",
    "attention",
    "compat",
    "perturbation",
    "folder",
    "cli",
    "zoo",
    "explanations",
    "evaluation",
    "__main__",
    "demo.train",
    "demo.train_detectors",
)


@cache
def public_surface() -> dict[str, dict[str, Any]]:
    """For each public module its names, each with its kind and its arguments, those of a class by method."""
    names = [pytorch_grad_cam.__name__]
    names += [found.name for found in pkgutil.walk_packages(pytorch_grad_cam.__path__, "pytorch_grad_cam.")]
    return {name: _names_of(importlib.import_module(name)) for name in sorted(names) if not _is_internal(name)}


def _is_internal(module: str) -> bool:
    room = module.removeprefix("pytorch_grad_cam.")
    return any(room == internal or room.startswith(f"{internal}.") for internal in INTERNAL)


def _names_of(module: Any) -> dict[str, Any]:
    listed = getattr(module, "__all__", None)
    if listed is None:
        listed = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
    return {name: _described(getattr(module, name)) for name in sorted(listed)}


def _described(value: Any) -> Any:
    if inspect.isclass(value):
        methods = {
            name: _arguments(function)
            for name, function in inspect.getmembers(value, inspect.isfunction)
            if (not name.startswith("_") or name in ("__init__", "__call__")) and _is_ours(function)
        }
        return {"class": methods}
    if inspect.ismodule(value):
        return "module"
    return {"function": _arguments(value)} if callable(value) else type(value).__name__


def _is_ours(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith(pytorch_grad_cam.__name__)


def _arguments(function: Any) -> str:
    arguments = []
    for argument in inspect.signature(function).parameters.values():
        star = {argument.VAR_POSITIONAL: "*", argument.VAR_KEYWORD: "**"}.get(argument.kind, "")
        optional = "?" if argument.default is not argument.empty else ""
        keyword = "=" if argument.kind is argument.KEYWORD_ONLY else ""
        arguments.append(f"{star}{argument.name}{optional}{keyword}")
    return ", ".join(arguments)


if __name__ == "__main__":
    FILE.write_text(json.dumps(public_surface(), indent=1) + "\n")

"""Keywords of `explain`: those of the methods' constructors, and what a misspelt one means."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.meta_cam import MetaCAM

# What other libraries and grad-cam 1.x call it.
_MEANT = {
    "method": "methods",
    "target": "targets",
    "target_category": "targets",
    "layer": "layers",
    "target_layer": "layers",
    "target_layers": "layers",
    "image_processor": "processor",
    "transform": "preprocess",
    "class_names": "categories",
    "labels": "categories",
}
_ELSEWHERE = {
    **dict.fromkeys(("cmap", "alpha", "title"), "it is an argument of what is shown: overlay, grid, compare"),
    **dict.fromkeys(("device", "use_cuda"), "maps are made where the model is, so move that: model.to(device)"),
}
_FIRST = ("self", "model", "target_layers")


def accepted_by(method: Any) -> set[str]:
    """The keywords that the constructor of a method takes, of a `functools.partial` those of what it calls."""
    function = getattr(method, "func", method)
    names: set[str] = set()
    for owner in function.__mro__ if isinstance(function, type) else [function]:
        constructor = vars(owner).get("__init__") if isinstance(owner, type) else owner
        if constructor is None:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        names |= {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    if isinstance(function, type) and issubclass(function, MetaCAM):
        names |= set(CamOptions.__annotations__)
    return names - {*_FIRST}


def for_constructor(method: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that the method's constructor takes."""
    accepted = accepted_by(method)
    return {name: value for name, value in options.items() if name in accepted}


def check_keywords(names: Iterable[str], methods: Sequence[Any], own: Iterable[str]) -> None:
    """Raise TypeError for a keyword that no method takes, with what is meant. own: the caller's other keywords."""
    accepted = set[str]().union(*map(accepted_by, methods))
    for name in names:
        if name in accepted:
            continue
        if name in _ELSEWHERE:
            raise TypeError(f"explain takes no {name!r}: {_ELSEWHERE[name]}")
        close = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, {*accepted, *own}, n=2)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ", and neither do the methods"
        raise TypeError(f"explain takes no {name!r}{hint}")

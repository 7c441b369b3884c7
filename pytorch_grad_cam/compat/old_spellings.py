"""The argument names and orders of grad-cam 1.0 to 1.4."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

Arguments = ParamSpec("Arguments")
ENDS_IN = "3.0"  # the next major version, see docs/contribute/versions.md


def old_constructor(init: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Accept `target_layer=` for `target_layers=`, and `use_cuda` as a keyword or as the third positional argument."""

    @functools.wraps(init)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        itself, *args = args  # type: ignore[assignment]
        if "target_layer" in kwargs:
            _warn("target_layer=", "target_layers=[layer]")
            kwargs["target_layers"] = kwargs.pop("target_layer")
        use_cuda = None
        if len(args) > 2 and isinstance(args[2], bool):
            use_cuda, args = args[2], (*args[:2], *args[3:])
        elif "use_cuda" in kwargs:
            use_cuda = kwargs.pop("use_cuda")
        if use_cuda is not None:
            _warn("use_cuda", "a model that is on its device already")
        if use_cuda:
            model = args[0] if args else kwargs["model"]
            model.cuda()
        init(itself, *args, **kwargs)

    return wrapper


def renamed_targets(targets: Any, old: dict[str, Any]) -> Any:
    """The targets of a call, which may be `target_category=`. Raises TypeError for other keywords."""
    if old.keys() != {"target_category"}:
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(old.keys() - {'target_category'}))}")
    if targets is not None:
        raise TypeError("targets and target_category are given: they are two spellings of one argument")
    _warn("target_category=", "targets=")
    return old["target_category"]


def _warn(old: str, new: str) -> None:
    said = f"{old} is the spelling of grad-cam before 1.5 and ends in {ENDS_IN}; pass {new}"
    warnings.warn(said, DeprecationWarning, stacklevel=3)

"""The methods by their names."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pytorch_grad_cam
from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.cam import CAM
from pytorch_grad_cam.eigen_cam import EigenCAM
from pytorch_grad_cam.grad_cam import GradCAM
from pytorch_grad_cam.hirescam import HiResCAM
from pytorch_grad_cam.is_cam import ISCAM
from pytorch_grad_cam.layer_cam import LayerCAM
from pytorch_grad_cam.meta_cam import MetaCAM
from pytorch_grad_cam.ss_cam import SSCAM
from pytorch_grad_cam.volumes.sliding_window_cam import SlidingWindowCAM
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

_GROUP = "grad_cam.methods"
_PLUSPLUS = "plusplus"


@dataclass(frozen=True)
class DefaultMethods:
    """The methods where nobody names one: of a model with scores of classes, and of a detector.

    A method with one weight for a channel marks all objects that look alike, so that a detector has others.
    """

    of_scores: Sequence[Any]
    of_boxes: Sequence[Any]

    @property
    def all(self) -> list[Any]:
        """Those of either."""
        return [*self.of_scores, *self.of_boxes]


ONE_METHOD = DefaultMethods([GradCAM], [LayerCAM])
SIDE_BY_SIDE = DefaultMethods([GradCAM, LayerCAM, EigenCAM], [LayerCAM, HiResCAM])


def available_methods() -> dict[str, Any]:
    """The methods by the names of their classes in lower case, without underscores; with ++ for plusplus, too.

    Installed packages add methods by the entry points `grad_cam.methods`.

    >>> available_methods()["kpcacam"].__name__
    'KPCA_CAM'
    """
    exported = [getattr(pytorch_grad_cam, name) for name in pytorch_grad_cam.__all__]
    classes = [c for c in exported if isinstance(c, type) and issubclass(c, BaseCAM | MetaCAM)]
    methods = {_plain(c.__name__): c for c in classes if c not in (BaseCAM, MetaCAM)}
    with_signs = {name.replace(_PLUSPLUS, "++"): method for name, method in methods.items() if name.endswith(_PLUSPLUS)}
    return {**_installed(), **methods, **with_signs}


def method_called(name: str) -> Any:
    """The method of a name, in any case, with or without hyphens, underscores and spaces: 'gradcam', 'Grad-CAM++'.

    Raises UnusableInput for others, with those that are meant.
    """
    known = available_methods()
    plain = _plain(name)
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(plain, known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else f": choose from {', '.join(sorted(known))}, or all"
    raise UnusableInput(f"no method is called {name!r}{hint}")


# Those that need attention, one linear head or windows, and those that take many times as long as all others together.
_NOT_OF_ALL = (AttentionCAM, CAM, ISCAM, SSCAM, SlidingWindowCAM)


def requested(methods: Any) -> list[Any] | DefaultMethods:
    """Those of `methods_of`; for None the default ones, which depend on the model, and so do those that are given."""
    if methods is None:
        return ONE_METHOD
    return methods if isinstance(methods, DefaultMethods) else methods_of(methods)


def methods_of(methods: Any) -> list[Any]:
    """The methods that are meant by classes and names, one or several, or 'all': all but `_NOT_OF_ALL`."""
    several = several_methods(methods)
    if "all" in several:
        of_any = [each for each in available_methods().values() if not issubclass(each, _NOT_OF_ALL)]
        return list(dict.fromkeys(of_any))
    return [method_called(method) if isinstance(method, str) else method for method in several]


def several_methods(methods: Any) -> Sequence[Any]:
    """Methods that are given as one or several."""
    return methods if isinstance(methods, list | tuple) else [methods]


def name_of_method(method: Any) -> str:
    """The name by which `method_called` finds a class of a method, or what a `functools.partial` calls."""
    return _plain(getattr(method, "func", method).__name__)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_ ")


@cache
def _installed() -> dict[str, Any]:
    return {_plain(found.name): found.load() for found in entry_points(group=_GROUP)}

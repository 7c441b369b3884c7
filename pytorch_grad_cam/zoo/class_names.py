"""What the classes of a model are called, and which one a text means."""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_grad_cam.zoo.unusable_input import UnusableInput


def names_of(count: int, categories: Sequence[str] | None, model: Any) -> tuple[Sequence[str], str]:
    """The names of `count` classes, and whose they are.

    categories: those that are known; None takes those of a transformers configuration, else ImageNet's for 1,000
    classes, else numbers. Raises ValueError for fewer categories than classes.
    """
    if categories is not None:
        if len(categories) < count:
            raise ValueError(f"categories has {len(categories)} names, expected one for each of {count} classes")
        return categories, "the given ones"
    configured = _configured(model, count)
    if configured is not None:
        return configured, "those of the configuration"
    imagenet = imagenet_names()
    if count == len(imagenet):
        return imagenet, "ImageNet's, for there are 1,000 classes (assumed)"
    return [f"class {index}" for index in range(count)], "numbers"


def names_of_single(categories: Sequence[str] | None) -> tuple[Sequence[str], str]:
    """The names of the two classes of one output, which speaks for the second: of one category what it is and is not.

    Raises ValueError for more than two categories.
    """
    if categories is None:
        return ["class 0", "class 1"], "numbers; the one output speaks for class 1 and against class 0"
    if len(categories) > 2:
        raise ValueError(f"categories has {len(categories)} names, but the model has one output, for two classes")
    both = categories if len(categories) == 2 else [f"not {categories[0]}", categories[0]]
    return both, f"the given ones; the one output speaks for {both[1]} and against {both[0]}"


def read_categories(file: str) -> list[str]:
    """The names in a file: one a line, or in JSON a list of them or a mapping from numbers to them.

    Raises UnusableInput where there is no such file, or none in it.
    """
    if not Path(file).is_file():
        raise UnusableInput(f"there is no file of categories {file}")
    text = Path(file).read_text(encoding="utf-8-sig")
    names: Any = [line.strip() for line in text.splitlines() if line.strip()]
    if text.lstrip().startswith(("[", "{")):
        try:
            names = json.loads(text)
        except json.JSONDecodeError as error:
            raise UnusableInput(f"{file} is no JSON ({error})") from error
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UnusableInput(f"{file} maps {', '.join(list(names)[:5])} to names, expected 0 to {len(names) - 1}")
        names = [names[str(index)] for index in range(len(names))]
    if not names:
        raise UnusableInput(f"{file} has no names")
    return [str(name) for name in names]


def imagenet_names() -> list[str]:
    """Those of ImageNet's 1,000 classes."""
    from torchvision.models import ResNet50_Weights

    names: list[str] = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    return names


def category_called(text: str, categories: Sequence[str]) -> int:
    """The class that a text means: by its name, its number, its name in any case, or a part of it, in this order.

    Raises UnusableInput where the text means no class, or several.
    """
    part, lowered = text.lower(), [name.lower() for name in categories]
    called = [index for index, name in enumerate(categories) if name == text]
    if not called and re.fullmatch("-?[0-9]+", text):
        if not 0 <= int(text) < len(categories):
            raise UnusableInput(f"class {text}: the model's classes are 0 to {len(categories) - 1}")
        return int(text)
    called = called or [index for index, name in enumerate(lowered) if name == part]
    called = called or [index for index, name in enumerate(lowered) if part in name]
    if len(called) == 1:
        return called[0]
    close = called[:8] or [lowered.index(name) for name in difflib.get_close_matches(part, lowered, n=5)]
    named = [f"{categories[index]} ({index})" for index in close]
    hint = f"; did you mean {', '.join(named)}?" if named else ""
    raise UnusableInput(f"no single class is called {text!r}{hint}: pass a number")


def _configured(model: Any, count: int) -> list[str] | None:
    """The names in a transformers configuration; None for its placeholders."""
    labels = getattr(getattr(model, "config", None), "id2label", None)
    placeholders = {index: f"LABEL_{index}" for index in range(count)}
    if not isinstance(labels, dict) or labels == placeholders or labels.keys() != placeholders.keys():
        return None
    return [labels[index] for index in placeholders]

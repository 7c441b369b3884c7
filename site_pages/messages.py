"""Every text of a warning or an error that the package can show, read from its source."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from site_pages import ROOT

PACKAGE = ROOT / "pytorch_grad_cam"
# What a call by one of these names shows; other exceptions are those that are raised.
_WARNINGS = {"CamWarning": "CamWarning", "warn": "UserWarning", "warn_of_blank": "CamWarning"}
_NOT_SHOWN = ("AttributeError", "NotImplementedError", "StopIteration")
ROOMS = {
    "Which layer": ("locate",),
    "Where a cell looks": ("registration",),
    "Targets, scores and detections": ("engine/targets", "engine/scores", "engine/classes", "engine/detections"),
    "Inputs, models and maps": ("engine", "base_cam", "meta_cam", "utils"),
    "Spellings and classes of 1.x": ("compat", "ablation_layer", "activations_and_gradients"),
    "Attention": ("attention",),
    "`explain`, pictures and models by name": ("explanations", "zoo"),
    "Metrics and `evaluate`": ("metrics", "evaluation"),
    "The command line and folders": ("cli", "folder", "demo"),
    "Methods": ("",),
}


class Message(NamedTuple):
    """kind: its class. text: with '...' for what depends on the call. file: within the package, without its ending."""

    kind: str
    text: str
    file: str


def messages() -> list[Message]:
    """All of them, in the order of the files, each once."""
    found: dict[Message, None] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        constants = dict(_constants(tree))
        name = file.relative_to(PACKAGE).with_suffix("").as_posix()
        for kind, argument in _shown(tree):
            text = re.sub(r"(\.\.\.\s*){2,}", "... ", _text(argument, constants)).strip()
            if re.search(r"[a-z]{3,}", text.replace("...", "")):
                found[Message(kind, text, name)] = None
    return list(found)


def page() -> str:
    """The messages as Markdown, by what they are about."""
    rest = messages()
    parts = []
    for heading, rooms in ROOMS.items():
        here = [message for message in rest if message.file.startswith(rooms)]
        rest = [message for message in rest if message not in here]
        lines = [f"- **{message.kind}**: {_escaped(message.text)}" for message in sorted(here)]
        parts += [f"### {heading}", "\n".join(lines)]
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>|\[\]$`])", r"\\\1", text)


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _shown(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            kind = _name(node.exc.func)
            if kind not in _NOT_SHOWN and kind[:1].isupper():
                yield kind, node.exc.args[0]
        elif isinstance(node, ast.Call) and _name(node.func) in _WARNINGS and node.args:
            yield _WARNINGS[_name(node.func)], node.args[2 if _name(node.func) == "warn_of_blank" else 0]


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _text(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    """What the expression says: '...' for what is known only in a call."""
    if isinstance(node, ast.Constant):
        return re.sub(r"\{[^{}]*\}", "...", str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, constants) for value in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, constants) + _text(node.right, constants)
    if isinstance(node, ast.Call) and _name(node.func) == "format":
        return _text(node.func.value, constants)
    if isinstance(node, ast.FormattedValue):
        node = node.value
    if isinstance(node, ast.Name) and node.id in constants:
        return _text(constants[node.id], {name: value for name, value in constants.items() if name != node.id})
    return "..."

"""Docstrings as Markdown: examples become code, an argument or a remark such as its cost a line of its own."""

import re
from typing import Any

import griffe

_ARGUMENT = re.compile(r"^(\*{0,2}[a-z]\w*(?:, [a-z]\w*)*): ")
_REMARK = re.compile(r"^(Cost|Paper|Memory|Returns|Raises|When to take it|When not to|When not|D-RISE)(:?) ")


def as_markdown(docstring: str) -> str:
    """The docstring (without indentation) as Markdown."""
    lines: list[str] = []
    in_example = False
    for line in docstring.splitlines():
        if line.startswith(">>> ") and not in_example:
            lines += ["", "```pycon"]
            in_example = True
        elif in_example and not line:
            lines.append("```")
            in_example = False
        if not in_example:
            line = _marked(line, lines)
        lines.append(line)
    return "\n".join([*lines, "```"] if in_example else lines)


def _marked(line: str, before: list[str]) -> str:
    """The line; where it begins with an argument's name or a remark, set off from the lines before."""
    if argument := _ARGUMENT.match(line):
        if not (before and before[-1].startswith("- ")):
            before.append("")
        return f"- `{argument[1]}`: {line[argument.end() :]}"
    if remark := _REMARK.match(line):
        before.append("")
        return f"**{remark[1]}{remark[2]}** {line[remark.end() :]}"
    return line


class AsMarkdown(griffe.Extension):
    """Makes Markdown of every docstring that griffe reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

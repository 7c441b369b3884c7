"""Lines on standard output."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from pytorch_grad_cam.explanations.explanation import Explanation

_TOP_CLASSES = 5


def say(line: str) -> None:
    """Write one line, by the first of several processes; characters that the encoding lacks are escaped."""
    if os.environ.get("RANK", "0") == "0":
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def say_classes(explanation: Explanation) -> None:
    """Say which classes are likely, and which one is right, where that is known."""
    for category, name, probability in explanation.top(_TOP_CLASSES):
        say(f"{probability:7.2%}  {name} ({category})")
    if explanation.truth is not None:
        say(f"truth: {explanation.truth}")


def say_how(cams: Iterable[Any], assumptions: Iterable[str]) -> None:
    """Say what nobody gave: how numbers were made, the layers that were found, and where cells were drawn."""
    for line in assumptions:
        say(line)
    found = dict.fromkeys(f"target layer: {cam.location}" for cam in cams if getattr(cam, "location", None))
    drawn = dict.fromkeys(
        f"registered, --align cell undoes it: {registration}"
        for cam in cams
        for registration in cam.registrations.values()
    )
    for line in (*found, *drawn):
        say(line)

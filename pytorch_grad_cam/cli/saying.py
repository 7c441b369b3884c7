"""Lines on standard output."""

import os
import sys
from typing import Any


def say(line: str) -> None:
    """Write one line, by the first of several processes; characters that the encoding lacks are escaped."""
    if os.environ.get("RANK", "0") == "0":
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def say_registrations(cam: Any) -> None:
    """Say where a method drew its cells, and how to get even tiles."""
    for registration in cam.registrations.values():
        say(f"registered, --align cell undoes it: {registration}")

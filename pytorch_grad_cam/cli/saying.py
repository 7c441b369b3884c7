"""What the command line says."""

import os
import sys
from typing import Any


def say(line: str) -> None:
    """One line on standard output, by one of several processes; what its encoding has not is escaped."""
    if os.environ.get("RANK", "0") == "0":
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def say_registrations(cam: Any) -> None:
    """Where a method drew its cells, and how to have even tiles."""
    for registration in cam.registrations.values():
        say(f"registered, --align cell undoes it: {registration}")

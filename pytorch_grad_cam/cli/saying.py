"""What the command line says."""

import os
import sys
from typing import Any


def say(line: str) -> None:
    """One line on standard output, by one of several processes."""
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(line + "\n")


def say_registrations(cam: Any) -> None:
    """Where a method drew its cells, and how to have even tiles."""
    for registration in cam.registrations.values():
        say(f"registered, --align cell undoes it: {registration}")

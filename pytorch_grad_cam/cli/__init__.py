"""The command line: `python cam.py` in a checkout, `python -m pytorch_grad_cam` anywhere."""

import argparse
import functools
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from pytorch_grad_cam.cli import comparison, one_image, options, several_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain one image or several; return the exit status: 0, or 2 after one line on standard error."""
    parser = options.parser()
    chosen = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = functools.partial(_warn, parser.prog)
        try:
            run(chosen)
        except (ValueError, IndexError, OSError) as error:
            sys.stderr.write(f"{parser.prog}: {error}\n")
            return 2
    return 0


def run(chosen: argparse.Namespace) -> None:
    """Load, explain, write the pictures, and say what was done."""
    several_methods = len(chosen.methods) > 1 or "all" in chosen.methods
    if (several_methods or chosen.comparison or chosen.report) and not chosen.preview_model:
        comparison.run(chosen)
    elif options.asks_for_several(chosen):
        several_images.run(chosen)
    else:
        one_image.run(chosen)


def _warn(program: str, message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"{program}: {message}\n")

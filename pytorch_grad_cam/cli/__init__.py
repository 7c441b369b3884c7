"""The command line: `grad-cam` where it is installed, `python cam.py` in a checkout, `python -m pytorch_grad_cam`."""

import argparse
import functools
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from pytorch_grad_cam.cli import answers, comparison, evaluation, one_image, options, several_images
from pytorch_grad_cam.zoo.unusable_input import UnusableInput


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain one image or several, or evaluate methods over several ("evaluate" first); return the exit status.

    0; 1 where images could not be explained; 2 after one line on standard error for what cannot be done; 130 where it
    was interrupted.
    """
    given = sys.argv[1:] if arguments is None else [*arguments]
    is_evaluation = given[:1] == ["evaluate"]
    parser = evaluation.parser() if is_evaluation else options.parser()
    if not is_evaluation:
        options.add_truth(parser)
    chosen = parser.parse_args(given[is_evaluation:])
    with warnings.catch_warnings():
        warnings.showwarning = functools.partial(_warn, parser.prog)
        try:
            failures = evaluation.run(chosen) if is_evaluation else run(chosen)
        except (ValueError, IndexError, OSError, ImportError) as error:
            sys.stderr.write(f"{parser.prog}: {error}\n")
            return 2
        except KeyboardInterrupt:
            again = "; the same command makes what is missing" if several_images.are_asked_for(chosen) else ""
            sys.stderr.write(f"{parser.prog}: interrupted{again}\n")
            return 128 + signal.SIGINT
    return 1 if failures else 0


def run(chosen: argparse.Namespace) -> int:
    """Load, explain, write the pictures, and say what was done; return how many images could not be explained."""
    if chosen.prompt is not None:
        return answers.run(chosen)
    if options.OF_WORDS in (chosen.methods or []):
        raise UnusableInput(f"{options.OF_WORDS} explains the words of an answer: pass --prompt")
    if several_images.are_asked_for(chosen):
        return several_images.run(chosen)
    methods = chosen.methods or []
    several_methods = len(methods) > 1 or "all" in methods
    if (several_methods or chosen.comparison or chosen.report) and not chosen.preview_model:
        return comparison.run(chosen)
    one_image.run(chosen)
    return 0


def _warn(program: str, message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"{program}: {message}\n")

"""`cam.py evaluate`: a table of how good the maps of methods are, over a folder, a glob or a list."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from pytorch_grad_cam.cli import options
from pytorch_grad_cam.cli.saying import say
from pytorch_grad_cam.evaluation.evaluating import evaluate
from pytorch_grad_cam.evaluation.metrics import available_metrics, metric_called
from pytorch_grad_cam.folder.image_list import images_in
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

_METRICS_HELP = f"one or several (default: deletion insertion ROAD): {', '.join(available_metrics())}"
_TRUTH_HELP = "boxes, a JSON object from file names to lists of boxes [x0, y0, x1, y1] in pixels of the picture"
# They are of maps of single images, and no evaluation asks for them.
_OF_MAPS = ("save", "workers", "comparison", "report", "preview_model", "aug_smooth", "eigen_smooth")


def parser() -> argparse.ArgumentParser:
    """The parser of the options behind "evaluate": those of the models and methods, --metrics and --truth."""
    found = options.parser()
    found.prog = f"{found.prog} evaluate"
    found.description = "Measure how good the maps of methods are over several images, with intervals and baselines."
    found.add_argument("--metrics", nargs="+", default=["deletion", "insertion", "ROAD"], help=_METRICS_HELP)
    found.add_argument("--truth", type=Path, metavar="FILE", help=_TRUTH_HELP)
    return found


def run(chosen: argparse.Namespace) -> int:
    """Say the table and write it to evaluation.csv, .tex and .png in the output folder; return 0."""
    unused = [name for name in _OF_MAPS if getattr(chosen, name)]
    if unused:
        raise UnusableInput(f"--{unused[0].replace('_', '-')} does not go with evaluate")
    if chosen.image_path is None:
        raise UnusableInput("evaluate needs --image-path: a folder, a glob or a list of paths (.txt)")
    paths = [image.path for image in images_in(chosen.image_path, chosen.output_dir)]
    classifier = options.classifier_of(chosen)
    found = evaluate(
        classifier,
        paths,
        chosen.methods or "gradcam",
        [metric_called(name) for name in chosen.metrics],
        targets=_targets(chosen.target_category, len(paths)),
        truth=None if chosen.truth is None else _truth(chosen.truth, paths),
        layers=chosen.target_layers,
        align=chosen.align,
        batch_size=chosen.batch_size,
    )
    say(str(found))
    chosen.output_dir.mkdir(parents=True, exist_ok=True)
    for name, write in (("csv", found.to_csv), ("tex", found.to_latex), ("png", found.figure().savefig)):
        file = chosen.output_dir / f"evaluation.{name}"
        write(file)
        say(f"wrote {file}")
    return 0


def _targets(categories: list[str], images: int) -> list[Any] | None:
    """A class of each image: one for all, or as many as there are images, in the order of their names."""
    numbered = [int(each) if each.lstrip("-").isdigit() else each for each in categories]
    if len(numbered) not in (0, 1, images):
        raise UnusableInput(f"--target-category has {len(numbered)} classes for {images} images: one, or one for each")
    return None if not numbered else numbered * (images if len(numbered) == 1 else 1)


def _truth(file: Path, paths: list[str]) -> list[np.ndarray]:
    """The boxes of each image. Raises UnusableInput for a file that is no such object, or lacks an image."""
    try:
        boxes = json.loads(file.read_text(encoding="utf-8"))
        return [np.array(boxes[Path(path).name], dtype=np.float64).reshape(-1, 4) for path in paths]
    except KeyError as error:
        raise UnusableInput(f"{file} has no boxes for {error}") from error
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise UnusableInput(f'{file} is no JSON such as {{"a.jpg": [[10, 20, 110, 90]]}} ({error})') from error

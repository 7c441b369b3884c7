"""Folder mode beside the bare model over the same loader: `python -m benchmarks.folder`.

A ResNet-50 with random weights, JPEGs of 500 x 375, in turn: the bare model's inference over the images decoded and
preprocessed by the same loader in the same batches, and what `cam.py` does with a folder, with all that it writes.
Images a second, and the median of the rounds' ratios with the lowest and the highest. Each round is said when it was
measured, with the processors' time, which a machine that is shared disturbs less. Then the peak of the process after a
tenth of many images and after all.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.report import suffix_of, table, write_report
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.engine.chunks import images_at_a_time
from pytorch_grad_cam.explanations.explainer import Explainer, Request
from pytorch_grad_cam.explanations.results import KINDS
from pytorch_grad_cam.explanations.run import Run
from pytorch_grad_cam.folder.batches import decoded, plan
from pytorch_grad_cam.folder.image_list import ListedImage, images_in
from pytorch_grad_cam.folder.processes import default_workers
from pytorch_grad_cam.zoo.classifiers import Classifier, load_classifier

IMAGES, ROUNDS, MANY, WIDTH, HEIGHT = 192, 5, 5000, 500, 375
RESULTS = {"overlay": ["overlay"], " ".join(KINDS): KINDS}
KILOBYTES = 1024


class Race:
    """Both sides over the same images, on one model."""

    def __init__(self, classifier: Classifier, device: torch.device) -> None:
        self.classifier, self.device = classifier, device
        self.model = classifier.model.to(device)
        self.explainer = Explainer(
            classifier, Request([GradCAM], layers="layer4", options={"align": "receptive_field"})
        )
        self.batch_size, self.workers = images_at_a_time(device), default_workers()

    def bare(self, images: Sequence[ListedImage]) -> float:
        """Seconds of the model alone."""
        start = time.perf_counter()
        batches = plan(len(images), self.batch_size)
        pinned = self.device.type == "cuda"
        with torch.inference_mode():
            paths = [image.path for image in images]
            for batch in decoded(paths, self.classifier.preprocess, batches, self.workers, pinned):
                for _, x, *_ in batch.groups:
                    self.model(x.to(self.device, non_blocking=True)).argmax(1).cpu()
        return time.perf_counter() - start

    def folder(self, images: Sequence[ListedImage], kinds: Sequence[str]) -> float:
        """Seconds of the folder mode."""
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            run = Run(self.explainer, images, Path(output), kinds, self.batch_size, self.workers)
            deque(run.explanations(), maxlen=0)
            return time.perf_counter() - start


def photographs(folder: Path, count: int) -> list[ListedImage]:
    """JPEGs as large as photographs of this size are: smooth shapes with some noise."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=float)
        noisy = smooth + rng.normal(0, 8, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index:05}.jpg", quality=90)
    return images_in(str(folder), folder / "output")


def raced(race: Race, images: Sequence[ListedImage], rounds: int) -> dict[str, dict[str, str]]:
    """The rows of the results, after a first round that does not count; what each round took is said at once."""
    sides = {"bare": race.bare, **{name: partial(race.folder, kinds=kinds) for name, kinds in RESULTS.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            before = _processor_seconds()
            took, of_processor = side(images), _processor_seconds() - before
            _say(f"round {number}, {name}: {took:.2f} s, {of_processor:.2f} s of processors")
            if number:
                seconds[name].append(took)
    rows = {name: _row(seconds["bare"], seconds[name], len(images)) for name in RESULTS}
    _say(table(rows))
    return rows


def _processor_seconds() -> float:
    """Of this process and of those that have decoded for it."""
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()  # a file, too, has it before the run ends


def _row(bare: list[float], folder: list[float], images: int) -> dict[str, str]:
    ratios = [of_bare / own for of_bare, own in zip(bare, folder, strict=True)]
    return {
        "bare model, images a second": f"{images / statistics.median(bare):.1f}",
        "folder, images a second": f"{images / statistics.median(folder):.1f}",
        "folder over bare": f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
    }


def peaks(race: Race, images: Sequence[ListedImage]) -> dict[str, str]:
    """The process's peak after a tenth of the images and after all."""
    tenth = len(images) // 10
    race.folder(images[:tenth], KINDS)
    first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    race.folder(images, KINDS)
    rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first
    return {
        f"peak after {tenth:,}": f"{first / KILOBYTES:,.0f} MB",
        f"rise to {len(images):,}": f"{rise / KILOBYTES:.1f} MB",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--without-memory", action="store_true", help="say the race's rows and write nothing")
    options = parser.parse_args()
    race = Race(load_classifier("resnet50", "none"), torch.device(options.device))
    with tempfile.TemporaryDirectory() as folder:
        images = photographs(Path(folder), options.images)
        rows = raced(race, images, options.rounds)
        if options.without_memory:
            return
        links = Path(folder) / "many"
        links.mkdir()
        for index in range(MANY):
            os.link(images[index % len(images)].path, links / f"{index:05}.jpg")
        rows["memory"] = peaks(race, images_in(str(links), links / "output"))
    suffix = suffix_of(options.device)
    notes = f"ResNet-50, batch {race.batch_size}, {race.workers} workers, JPEGs of {WIDTH} x {HEIGHT}"
    write_report(f"folder{suffix}", rows, notes)


if __name__ == "__main__":
    main()

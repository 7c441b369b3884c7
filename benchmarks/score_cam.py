"""What makes ScoreCAM faster, and what that does to its map: `python -m benchmarks.score_cam`.

Time on one image and ResNet-50 with random weights, as a share of the time of as many bare forwards, one by one, as it
has channels; and of a masked image, over that of an image in the fastest of the model's own forwards, of any number of
images in any layout, in the same run. The map's difference to the default's on held-out scenes of the demo network.
`--floor` measures only the second, of the default, in two minutes: the model's own forwards before and behind the map,
so that a machine that is not quiet shows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.contestants.networks import COMPARED, RACED, Work, work
from benchmarks.report import write_report
from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.demo import preprocess_scene
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.engine.torch_quirks.memory_layout import _as_they_come

SCENES = 24
SIZES = (4, 8, 16, 32)
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "batch_size 1": {"batch_size": 1},
    "batch_size 32": {"batch_size": 32},
    "not channels-last": {"contiguous": True},
    "in torch.autocast, bfloat16": {"autocast": True},
    "share_of_energy=0.999": {"share_of_energy": 0.999},
    "share_of_energy=0.99": {"share_of_energy": 0.99},
    "share_of_energy=0.95": {"share_of_energy": 0.95},
}


@contextmanager
def variant(
    done: Work, batch_size: int | None = None, contiguous: bool = False, autocast: bool = False, **options: Any
) -> Iterator[ScoreCAM]:
    with ExitStack() as stack:
        if autocast:
            stack.enter_context(torch.autocast(done.images.device.type, torch.bfloat16))
        if contiguous:
            _as_they_come.add(done.model)
            stack.callback(_as_they_come.discard, done.model)
        cam = stack.enter_context(ScoreCAM(done.model, done.network.layers[0], **options))
        cam.batch_size = batch_size
        yield cam


class Forwards:
    """Within: how many images each forward of a model got, and how long they took together."""

    def __init__(self, model: nn.Module) -> None:
        self.images: list[int] = []
        self.seconds = self._started = 0.0
        self._handles = [model.register_forward_pre_hook(self._begin), model.register_forward_hook(self._end)]

    def __enter__(self) -> Forwards:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, model: nn.Module, inputs: tuple) -> None:
        self.images.append(len(inputs[0]))
        self._started = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._started


def seconds(done: Work, **options: Any) -> tuple[float, Forwards]:
    """Of one map, and the model's forwards for it."""
    with variant(done, **options) as cam, Forwards(done.model) as forwards:
        started = time.perf_counter()
        cam(done.images, done.categories)
        spent = time.perf_counter() - started
    return spent, forwards


def bare_seconds(done: Work, repeats: int = 15) -> float:
    times = []
    with torch.inference_mode():
        for _ in range(repeats):
            started = time.perf_counter()
            done.model(done.images)
            times.append(time.perf_counter() - started)
    return float(np.median(times))


def best_bare_seconds(done: Work, autocast: bool = False, repeats: int = 3, **_: Any) -> float:
    """Of an image, in the fastest forwards of the model alone: so many images in either layout."""
    return min(bare_ways(done, autocast, repeats))


def bare_ways(done: Work, autocast: bool = False, repeats: int = 3) -> list[float]:
    """The seconds of an image in each way: the median of so many forwards, in turn."""
    ways = [(size, layout) for size in SIZES for layout in (torch.contiguous_format, torch.channels_last)]
    found: list[list[float]] = [[] for _ in ways]
    with torch.inference_mode(), torch.autocast(done.images.device.type, torch.bfloat16, enabled=autocast):
        for _ in range(repeats):
            for of_way, (size, layout) in zip(found, ways, strict=True):
                images = done.images[:1].repeat(size, 1, 1, 1).contiguous(memory_format=layout)
                started = time.perf_counter()
                done.model(images)
                of_way.append((time.perf_counter() - started) / size)
    return [float(np.median(of_way)) for of_way in found]


def floor(done: Work, name: str) -> dict[str, Any]:
    """What the masked images of a default map cost over the model's own fastest forwards before and behind it."""
    before = bare_ways(done)
    spent, forwards = seconds(done)
    after = bare_ways(done)
    best = min(map(np.mean, zip(before, after, strict=True)))
    scored = sum(forwards.images)
    return {
        f"{name}, time of an image over the fastest": f"{spent / scored / best:.3f}",
        "of it in the model": f"{forwards.seconds / scored / best:.3f}",
        "the fastest, ms an image": f"{1e3 * best:.2f}",
        "behind over before": f"{min(after) / min(before):.2f}",
        "images scored": scored,
        "forwards": len(forwards.images),
        "images in most": max(forwards.images, key=forwards.images.count),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=RACED, default="ResNet-50")
    parser.add_argument("--floor", action="store_true", help="only the default over the model's own fastest forwards")
    options = parser.parse_args()
    large = work(RACED[options.network], 1)
    if options.floor:
        notes = "one image, in one process, each way the median of 3 forwards before and 3 behind the map"
        write_report("score_cam_floor", {"default": floor(large, options.network)}, notes)
        return
    rng = np.random.default_rng(3)
    scenes = [make_scene(rng) for _ in range(SCENES)]
    images = preprocess_scene(np.stack([scene.image for scene in scenes]))
    small = work(COMPARED["digits"], images, [int(scene.labels[0]) for scene in scenes])
    with variant(small) as cam:
        expected = cam(images, small.categories)
    rows = {}
    for name, chosen in VARIANTS.items():
        with variant(small, **chosen) as cam:
            apart = np.abs(cam(images, small.categories) - expected)
        bare = bare_seconds(large)
        spent, forwards = seconds(large, **chosen)
        _, of_small = seconds(small, **chosen)
        best = best_bare_seconds(large, **chosen)
        rows[name] = {
            f"{options.network}, time of an image over the fastest": f"{spent / sum(forwards.images) / best:.2f}",
            f"{options.network}, time in forwards a channel": f"{spent / bare / large.network.channels:.2f}",
            f"{options.network}, images scored": sum(forwards.images),
            "digits, images scored": f"{sum(of_small.images) / SCENES:.0f}",
            "digits, map's mean difference": f"{apart.mean():.1e}",
            "largest": f"{apart.max():.1e}",
        }
    write_report("score_cam", rows, "one image; a bare forward is one of one image")


if __name__ == "__main__":
    main()

"""What makes ScoreCAM faster, and what that does to its map: `python -m benchmarks.score_cam`.

Time on one image and ResNet-50 with random weights, as a share of the time of as many bare forwards, one by one, as it
has channels; and of a masked image, over that of an image in the fastest of the model's own forwards, of any number of
images in any layout, in the same run. The map's difference to the default's on held-out scenes of the demo network.
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


def seconds(done: Work, **options: Any) -> tuple[float, int]:
    """Of one map, and how many images the model scored."""
    scored = 0

    def count(model: nn.Module, inputs: tuple) -> None:
        nonlocal scored
        scored += len(inputs[0])

    with variant(done, **options) as cam:
        handle = done.model.register_forward_pre_hook(count)
        started = time.perf_counter()
        cam(done.images, done.categories)
        spent = time.perf_counter() - started
        handle.remove()
    return spent, scored


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
    ways = [(size, layout) for size in SIZES for layout in (torch.contiguous_format, torch.channels_last)]
    found = []
    with torch.inference_mode(), torch.autocast(done.images.device.type, torch.bfloat16, enabled=autocast):
        for _ in range(repeats):
            for size, layout in ways:
                images = done.images[:1].repeat(size, 1, 1, 1).contiguous(memory_format=layout)
                started = time.perf_counter()
                done.model(images)
                found.append((time.perf_counter() - started) / size)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=RACED, default="ResNet-50")
    options = parser.parse_args()
    large = work(RACED[options.network], 1)
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
        spent, scored = seconds(large, **chosen)
        _, scored_small = seconds(small, **chosen)
        best = best_bare_seconds(large, **chosen)
        rows[name] = {
            f"{options.network}, time of an image over the fastest": f"{spent / scored / best:.2f}",
            f"{options.network}, time in forwards a channel": f"{spent / bare / large.network.channels:.2f}",
            f"{options.network}, images scored": scored,
            "digits, images scored": f"{scored_small / SCENES:.0f}",
            "digits, map's mean difference": f"{apart.mean():.1e}",
            "largest": f"{apart.max():.1e}",
        }
    write_report("score_cam", rows, "one image; a bare forward is one of one image")


if __name__ == "__main__":
    main()

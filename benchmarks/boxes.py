"""What maps of one box and of ten cost beside the detector alone: `python -m benchmarks.boxes`.

Detectors with random weights and, where ultralytics is installed, YOLO11n, on one image of 320 x 320; the bundled ones
on a scene of digits. In turn, in one process: inference alone, LayerCAM of the best raw prediction, LayerCAM of the ten
best at once; medians over the rounds, as multiples of inference. Forwards and backwards are counted in one call more.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks.report import table, write_report
from pytorch_grad_cam import BoxTarget, LayerCAM
from pytorch_grad_cam.demo.detectors import STYLES, load_digits_detector, preprocess_detector
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.engine.cam_warning import CamWarning

BOXES, ROUNDS, SIDE = 10, 7, 320
OF_TORCHVISION = (
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "fasterrcnn_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
)


def detectors() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Their names, and a batch of one for each."""
    scene = preprocess_detector(make_scene(np.random.default_rng(5), several=4).image)
    for style in STYLES:
        yield f"digits, {style}", load_digits_detector(style), scene
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for name in OF_TORCHVISION:
        from torchvision.models import get_model

        torch.manual_seed(0)
        size = {} if name.startswith("ssd") else {"min_size": SIDE, "max_size": SIDE}
        yield name, get_model(name, weights=None, weights_backbone=None, num_classes=5, **size).eval(), image
    if importlib.util.find_spec("ultralytics"):
        from ultralytics.nn.tasks import DetectionModel

        torch.manual_seed(0)
        yield "yolo11n", DetectionModel("yolo11n.yaml", nc=5, verbose=False).eval(), image


def row_of(model: nn.Module, image: torch.Tensor, rounds: int) -> dict[str, str]:
    """The multiples, and what ten boxes need."""
    cam = LayerCAM(model)
    cam(image, 1)
    targets = _best(cam)
    calls: dict[str, Callable[[], object]] = {
        "alone": lambda: _inference(model, image),
        "one box": lambda: cam(image, [targets[:1]]),
        "ten boxes": lambda: cam(image, [targets]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:  # the first ones look at the model
                seconds[name].append(time.perf_counter() - start)
    alone, *others = (statistics.median(each) for each in seconds.values())
    forwards, backwards = _counted(model, calls["ten boxes"])
    return {
        "inference, ms": f"{1000 * alone:.0f}",
        **{name: f"{each / alone:.2f}" for name, each in zip(("one box", "ten boxes"), others, strict=True)},
        "of ten boxes: forwards, backwards": f"{forwards}, {backwards}",
    }


def _best(cam: LayerCAM) -> list[BoxTarget]:
    """The best raw predictions that have an area."""
    (found,) = cam.predictions
    best, columns = found.scores.max(1)
    labels = found.labels.expand_as(found.scores)
    targets = []
    for row in best.argsort(descending=True).tolist():
        x0, y0, x1, y1 = found.boxes[row].tolist()
        if x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0 and x0 < found.size[1] and y0 < found.size[0]:
            targets.append(BoxTarget((x0, y0, x1, y1), int(labels[row, columns[row]])))
        if len(targets) == BOXES:
            break
    return targets


def _inference(model: nn.Module, image: torch.Tensor) -> object:
    with torch.inference_mode():
        return model(image)


def _counted(model: nn.Module, call: Callable[[], object]) -> tuple[int, int]:
    forwards: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: forwards.append(1))
    with mock.patch("torch.autograd.grad", wraps=torch.autograd.grad) as grad:
        call()
    handle.remove()
    return len(forwards), grad.call_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", help="of the detector of this name, and write nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore", CamWarning)  # random weights: maps are blank, boxes overlap little
    rows = {}
    for name, model, image in detectors():
        if options.only in (None, name):
            rows[name] = row_of(model, image, options.rounds)
            sys.stdout.write(f"{name}: {rows[name]}\n")
            sys.stdout.flush()
    if options.only is None:
        write_report("boxes", rows, f"one image of {SIDE} x {SIDE} px, of digits 64 x 64; median of {options.rounds}")
    else:
        sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()

"""What stays behind after many calls and constructions of every method: `python -m benchmarks.leaks`.

A small convolutional network, one image of 64 x 64. Between the first tenth and the last call, and construction (with
a call and without `with`): by how much the peak of the process rose, and how many more tensors, hooks of the model and
CAM objects are alive.
"""

from __future__ import annotations

import argparse
import gc
import resource
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.contestants.networks import plain
from benchmarks.report import write_report
from pytorch_grad_cam.explanations.methods import available_methods

CALLS, CONSTRUCTIONS, CHANNELS, SIZE = 1000, 200, 8, 64
KILOBYTES = 1024


def alive(model: nn.Module, cam_class: type) -> dict[str, int]:
    gc.collect()
    objects = gc.get_objects()
    return {
        "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "tensors": sum(isinstance(each, torch.Tensor) for each in objects),
        "hooks": sum(len(module._forward_hooks) for module in model.modules()),
        "objects": sum(isinstance(each, cam_class) for each in objects),
    }


def growth(model: nn.Module, cam_class: type, repeat: Callable[[], object], times: int) -> str:
    for _ in range(times // 10):
        repeat()
    before = alive(model, cam_class)
    for _ in range(times - times // 10):
        repeat()
    more = {name: count - before[name] for name, count in alive(model, cam_class).items()}
    kept = [f"{more[name]} {name}" for name in ("tensors", "hooks", "objects") if more[name]]
    return ", ".join([f"{more['kilobytes'] / KILOBYTES:.1f} MB", *kept])


def row(name: str, calls: int, constructions: int) -> dict[str, str]:
    torch.manual_seed(0)
    cam_class, model, image = available_methods()[name], plain(CHANNELS).eval(), torch.randn(1, 3, SIZE, SIZE)
    layers = ["layers.3", "layers.4"] if cam_class.uses_layers else []

    def construct() -> None:
        cam_class(model, layers)(image, 3)

    with cam_class(model, layers) as cam:
        of_calls = growth(model, cam_class, lambda: cam(image, 3), calls)
    of_constructions = growth(model, cam_class, construct, constructions)
    return {f"{calls:,} calls": of_calls, f"{constructions} constructions": of_constructions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=available_methods())
    options = parser.parse_args()
    classes = {cam_class: name for name, cam_class in available_methods().items()}
    names = options.methods or sorted(classes.values())
    rows = {available_methods()[name].__name__: row(name, CALLS, CONSTRUCTIONS) for name in names}
    write_report("leaks", rows, "rise of the process's peak and what more is alive, from the first tenth on")


if __name__ == "__main__":
    main()

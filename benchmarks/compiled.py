"""Maps of compiled models against the compiled forward: `python -m benchmarks.compiled [--device cuda]`.

Small networks on the CPU, for the compiler takes minutes for large ones on two cores. Medians of calls in turn, in one
process: of the processor's time on the CPU, of the wall clock with the device waited for elsewhere.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from benchmarks.report import suffix_of, write_report
from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM
from pytorch_grad_cam.demo import DigitsNet
from pytorch_grad_cam.engine.torch_quirks.compiled_functions import as_compiled

METHODS = {"GradCAM": GradCAM, "LayerCAM": LayerCAM, "EigenCAM": EigenCAM}
SMALL: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "DigitsNet, 16 of 64 x 64": (DigitsNet, "layer4", 64),
    "ViT-Ti/16 of 6 blocks, 16 of 96 x 96": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=96, depth=6),
        "blocks.5.norm1",
        96,
    ),
    "ViT-Ti/16, 16 of 96 x 96": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=96), "blocks.11.norm1", 96),
}
LARGE: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "ResNet-50, 16 of 224 x 224": (torchvision.models.resnet50, "layer4", 224),
    "ViT-S/16, 16 of 224 x 224": (lambda: timm.create_model("vit_small_patch16_224"), "blocks.11.norm1", 224),
}
IMAGES = 16
PARTS = "of it its forward", "and the backward"


def medians(calls: dict[str, Callable[[], Any]], device: str, rounds: int) -> dict[str, float]:
    """The median seconds of each call, made in turn, after two rounds for warming up."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            start = clock()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            spent[name].append(clock() - start)
    return {name: statistics.median(of_call[2:]) for name, of_call in spent.items()}


def parts_of_map(cam: Any, zeros: list[torch.Tensor], x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What a compiled map is made of: the forward with what is captured, and that with its backward."""
    forward = cam.capture_class.forward_of(cam.target_layers)

    def captured() -> torch.Tensor:
        with as_compiled(), torch.set_grad_enabled(cam.uses_gradients):
            return forward(zeros, x)[0]

    def differentiated() -> None:
        scores = captured()
        with as_compiled():
            torch.autograd.grad(scores[:, 3].sum(), zeros)

    return dict(zip(PARTS, (captured, differentiated) if cam.uses_gradients else (captured,), strict=False))


def row(net: nn.Module, layer: str, x: torch.Tensor, method: Any, options: argparse.Namespace) -> dict[str, str]:
    """One network and method: seconds of the bare forwards, and calls in compiled bare forwards."""
    bare_net, other = torch.compile(copy.deepcopy(net), backend=options.backend), copy.deepcopy(net)
    eager, compiled = (method(each, layer, check_place=False) for each in (net, other))
    compiled.compile(backend=options.backend)
    classes = [3] * len(x)

    def bare(model: nn.Module) -> Callable[[], Any]:
        def forward() -> None:
            with torch.inference_mode():
                model(x)

        return forward

    calls = {"eager": bare(net), "compiled": bare(bare_net)}
    for name, cam in (("eager map", eager), ("compiled map", compiled)):
        calls[name] = lambda cam=cam: cam(x, classes, as_tensor=True)
    difference = (eager(x, classes, as_tensor=True) - [calls["compiled map"]() for _ in range(2)][1]).abs().max()
    (zeros,) = compiled.capture_class.zeros.values()
    calls |= {} if zeros is None else parts_of_map(compiled, zeros, x)
    spent = medians(calls, options.device, options.rounds)
    parts = {name: f"{spent[name] / spent['compiled']:.2f}" for name in PARTS if name in spent}
    return {
        "compiled forward, ms": f"{1e3 * spent['compiled']:.1f}",
        "eager forward": f"{spent['eager'] / spent['compiled']:.2f}",
        "map of the model as it is": f"{spent['eager map'] / spent['compiled']:.2f}",
        "map, compiled": "not compiled" if zeros is None else f"{spent['compiled map'] / spent['compiled']:.2f}",
        **parts,
        "largest difference": f"{difference:.1g}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--large", action="store_true", help="ResNet-50 and ViT-S, always taken on a GPU")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    torch.manual_seed(0)
    rows = {}
    for name, (make, layer, size) in (LARGE if options.large or options.device != "cpu" else SMALL).items():
        net = make().eval().requires_grad_(False).to(options.device)
        x = torch.randn(IMAGES, 3, size, size, device=options.device)
        for method in options.methods:
            torch._dynamo.reset()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows[f"{name}, {method}"] = row(net, layer, x, METHODS[method], options)
    write_report(f"compiled{suffix_of(options.device)}", rows, "in compiled forwards, medians of calls in turn")


if __name__ == "__main__":
    main()

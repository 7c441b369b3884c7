"""What a map costs, in forwards of the same model: `python -m benchmarks.speed`.

Every number is a ratio to a bare `inference_mode` forward of the same batch, the two timed in turn in one process; the
median of the pairs and, in brackets, the middle half of them. AblationCAM: all channels of one image, in forwards of
one image. ScoreCAM: all channels of one image, the share of the model's own throughput in batches of the same size.
Memory: the peak of a process that makes one map, and its growth in the call, against those of a process that runs one
bare forward.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

import pytorch_grad_cam
from benchmarks.report import write_report
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform

METHODS = (
    "GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "ShapleyCAM", "EigenCAM", "EigenGradCAM", "KPCA_CAM",
    "FullGrad",
)  # fmt: skip
CASES: dict[str, tuple[Callable[[], nn.Module], str, Callable | None]] = {
    "ResNet-50": (torchvision.models.resnet50, "layer4", None),
    "ViT-S": (partial(timm.create_model, "vit_small_patch16_224"), "blocks.11.norm1", vit_reshape_transform),
}
MEMORY_BATCH = 32


def cam_of(case: str, method: str, model: nn.Module) -> pytorch_grad_cam.BaseCAM:
    _, layer, transform = CASES[case]
    cam_class = getattr(pytorch_grad_cam, method)
    return cam_class(model, [layer] if cam_class.uses_layers else [], transform)


def seeded(case: str, batch: int, device: str = "cpu") -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return CASES[case][0]().eval().to(device), torch.randn(batch, 3, 224, 224, device=device)


def interleaved(first: Callable, second: Callable, pairs: int, warm_up: int = 2) -> list[tuple[float, float]]:
    """Seconds of both, call by call in turn."""
    times = []
    for pair in range(warm_up + pairs):
        both = (_seconds(first), _seconds(second))
        if pair >= warm_up:
            times.append(both)
    return times


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _ratio(times: list[tuple[float, float]], scale: float = 1.0) -> str:
    ratios = [scale * second / first for first, second in times]
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f})"


def bare(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(x)


def gradient_rows(case: str, batches: list[int], pairs: int, device: str) -> dict[str, dict]:
    rows: dict[str, dict] = {}
    for batch in batches:
        model, x = seeded(case, batch, device)
        for method in METHODS:
            with cam_of(case, method, model) as cam:
                times = interleaved(partial(bare, model, x), partial(cam, x, 1, as_tensor=True), pairs)
            rows.setdefault(f"{case} {method}", {})[f"batch {batch}"] = _ratio(times)
    return rows


def ablation_row(case: str, pairs: int, device: str) -> dict:
    model, x = seeded(case, 1, device)
    with cam_of(case, "AblationCAM", model) as cam:
        times = interleaved(partial(bare, model, x), partial(cam, x, 1), pairs, warm_up=1)
    return {"batch 1": _ratio(times)}


def road_row(case: str, pairs: int, device: str) -> dict:
    model, x = seeded(case, 1, device)
    metric = ROADCombined(percentiles=[20, 40, 60, 80])
    with cam_of(case, "GradCAM", model) as cam:
        maps = cam(x, 1)
    times = interleaved(partial(bare, model, x), partial(metric, x, maps, [1], model), pairs, warm_up=1)
    return {"batch 1": _ratio(times)}


def score_row(case: str, device: str) -> dict:
    """The model's own seconds for images in the same batches, each batch timed right before ScoreCAM's own."""
    model, x = seeded(case, 1, device)
    seconds, timing = {"bare": 0.0, "images": 0}, []

    def time_the_same_batch(module: nn.Module, inputs: tuple) -> None:
        if len(inputs[0]) > 1 and not timing:
            timing.append(True)
            seconds["bare"] += _seconds(partial(bare, model, torch.randn_like(inputs[0])))
            seconds["images"] += len(inputs[0])
            timing.clear()

    with cam_of(case, "ScoreCAM", model) as cam:
        handle = model.register_forward_pre_hook(time_the_same_batch)
        total = _seconds(partial(cam, x, 1))
        handle.remove()
    share = seconds["bare"] / (total - seconds["bare"])
    return {"share of the model's throughput": f"{share:.2f}", "images scored": seconds["images"]}


def memory_of_a_call(case: str, method: str) -> tuple[int, int]:
    """KiB of the process before one call and at its peak; run in a process of its own."""
    model, x = seeded(case, MEMORY_BATCH)
    bare(model, x[:1])  # buffers of the libraries themselves
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is used now (Linux)
    before = _peak()
    if method == "bare":
        bare(model, x)
    else:
        with cam_of(case, method, model) as cam:
            cam(x, 1)
    return before, _peak()


def _peak() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def memory_rows(case: str) -> dict[str, dict]:
    def measured(method: str) -> tuple[int, int]:
        command = [sys.executable, "-m", "benchmarks.speed", "--memory-of-a-call", case, method]
        # One arena, returned at once: the peak is then what was needed, not what malloc kept.
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
        finished = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        before, peak = map(int, finished.stdout.split())
        return peak, peak - before

    peak, growth = measured("bare")
    rows = {}
    for method in METHODS:
        method_peak, method_growth = measured(method)
        rows[f"{case} {method}"] = {
            f"process peak, batch {MEMORY_BATCH}": f"{method_peak / peak:.2f}",
            "its growth in the call": f"{method_growth / growth:.2f}",
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--memory-of-a-call", nargs=2, metavar=("CASE", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of_a_call:
        sys.stdout.write("{} {}\n".format(*memory_of_a_call(*options.memory_of_a_call)))
        return
    rows: dict[str, dict] = {}
    for case in CASES:
        parts = gradient_rows(case, options.batches, options.pairs, options.device)
        if options.device == "cpu":
            for label, row in memory_rows(case).items():
                parts[label].update(row)
        parts[f"{case} AblationCAM, all channels"] = ablation_row(case, 7, options.device)
        parts[f"{case} ScoreCAM, all channels"] = score_row(case, options.device)
        parts[f"{case} ROADCombined, 4 percentiles"] = road_row(case, 7, options.device)
        rows.update(parts)
        sys.stderr.write(f"{parts}\n")
    name = "speed" if options.device == "cpu" else f"speed-{options.device}"
    write_report(name, rows, "in bare inference_mode forwards of the same batch")


if __name__ == "__main__":
    main()

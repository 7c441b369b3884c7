"""`GradCAM(model)(x)` over the model zoos, random weights: `python -m benchmarks.zero_config`.

All classifiers of torchvision, a small one of every timm family, scaled-down configurations of transformers (half of
them on wide images). A model passes when its map is finite and varies, the grid of the chosen layer is larger than
1 x 1, and it is the right way round: noise in a quarter of the image changes the activations most in that quarter, for
all four. The same is asked of the layer that torch-cam finds by itself, in a process of its own. What the
search costs is measured against bare forward passes in turn with it. Of the check of the place it is counted where it
warned though all quarters are right, and where it did not though they are not. Takes about an hour and a half on 2
cores. `--keep FILE`: what each model gave is added to FILE, and to FILE.peer for torch-cam, so that a run that was
stopped goes on.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks import zoo
from benchmarks.peers import environment_of
from benchmarks.report import write_report

IMAGES = (4, 32)
REPETITIONS = 3
CORNERS = [(rows, columns) for rows in (0, 1) for columns in (0, 1)]
QUARTERS = f"of {len(CORNERS)} quarters"


class Outcome(NamedTuple):
    """What is wrong with what was found, empty where nothing is; the search's cost where it was measured, in forwards;
    and whether the place check warned.
    """

    trouble: str
    costs: list[float]
    warned: bool

    @property
    def in_place(self) -> bool:
        """Whether the layer's map is the right way round, as far as that could be asked."""
        return QUARTERS not in self.trouble


def found_by_us(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, nn.Module, Callable, str]:
    """The map, the layer, what makes its output (N, C, H, W), and what was chosen."""
    from pytorch_grad_cam import GradCAM

    with GradCAM(model) as cam:
        maps = cam(x, as_tensor=True)
        if not maps.any():  # all evidence may be negative for one class, with random weights
            maps = cam(x, lambda scores: scores.min(), as_tensor=True)
    return maps, cam.location.layer, cam.location.as_map, str(cam.location)


def found_by_torch_cam(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, nn.Module, Callable, str]:
    from torchcam.methods import GradCAM

    with GradCAM(model, input_shape=tuple(x.shape[1:])) as cam:
        outputs = model(x)
        outputs = getattr(outputs, "logits", outputs)  # as its users have to write
        (maps,) = cam(outputs.argmax(-1).tolist(), outputs, retain_graph=True)
        if not maps.any():
            (maps,) = cam(outputs.argmin(-1).tolist(), outputs)
        (name,) = cam.target_names
    return maps, dict(model.named_modules())[name], lambda tensor: tensor, name


def trouble_with(find: Callable, model: nn.Module, x: torch.Tensor) -> tuple[str, str, bool]:
    """What is wrong with what was found, empty where nothing is; what was chosen; whether the place check warned."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            maps, layer, as_map, chosen = find(model, x)
        kept: list[torch.Tensor] = []
        handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(as_map(output)))
        for images in IMAGES:
            right = corners_right(model, x, kept, images)
            if right == len(CORNERS):
                break
        handle.remove()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}", "", False
    checks = {
        "not finite": not maps.isfinite().all(),
        "blank": maps.amax() == maps.amin(),
        f"grid {tuple(kept[0].shape[2:])}": max(kept[0].shape[2:]) == 1,
        f"{right} {QUARTERS}": right < len(CORNERS),
    }
    warned = any("may lie in the wrong place" in str(each.message) for each in said)
    return ", ".join(trouble for trouble, there in checks.items() if there), chosen, warned


def corners_right(model: nn.Module, like: torch.Tensor, kept: list[torch.Tensor], count: int) -> int:
    """For how many corners noise there changes the activations most in the same quadrant of the map.

    Random weights answer everything more strongly at some places than at others: each quadrant's answers are counted
    relative to their mean. Their chance is what more images are for.
    """
    kept.clear()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, *like.shape[1:], generator=generator)
    answers = []
    with torch.no_grad():
        model(images)
        for corner in CORNERS:
            noisy = images.clone()
            quarter = _quadrant(noisy, corner)
            quarter += torch.randn(quarter.shape, generator=generator)
            model(noisy)
            change = (kept[-1] - kept[0]).abs()
            shares = (change / change.sum((1, 2, 3), keepdim=True)).sum((0, 1))
            answers.append(torch.stack([_quadrant(shares, other).mean() for other in CORNERS]))
    relative = torch.stack(answers) / torch.stack(answers).mean(0)
    return int((relative.argmax(1) == torch.arange(len(CORNERS))).sum())


def _quadrant(tensor: torch.Tensor, corner: tuple[int, int]) -> torch.Tensor:
    height, width = (max(1, size // 2) for size in tensor.shape[-2:])
    rows, columns = (
        slice(-size, None) if last else slice(size) for last, size in zip(corner, (height, width), strict=True)
    )
    return tensor[..., rows, columns]


def cost_of_search(model: nn.Module, x: torch.Tensor) -> float:
    """The time of `locate` in that of a bare forward pass, medians."""
    from pytorch_grad_cam.locate import locate

    seconds: dict[Callable, list[float]] = {model: [], locate: []}
    for _ in range(REPETITIONS):
        for run, arguments in ((model, (x,)), (locate, (model, x))):
            with torch.set_grad_enabled(run is locate):
                started = time.perf_counter()
                run(*arguments)
                seconds[run].append(time.perf_counter() - started)
    return statistics.median(seconds[locate]) / statistics.median(seconds[model])


def outcomes(find: Callable, source: str, only: list[str], kept: Path | None = None) -> dict[str, Outcome]:
    """For each model of a source that can be built, by name, what came of it.

    kept: a file that each model's outcome is added to as soon as it is there; models in it are not asked again.
    """
    lines = kept.read_text().splitlines() if kept is not None and kept.exists() else []
    found = {name: Outcome(*outcome) for of_source, name, *outcome in map(json.loads, lines) if of_source == source}
    for name, build in zoo.SOURCES[source]():
        if name in found or (only and not any(part in name for part in only)):
            continue
        torch.manual_seed(0)
        try:
            model, x = build()
            with torch.no_grad():
                zoo.as_trained(model.eval(), x)(x)
        except Exception as error:  # noqa: BLE001
            sys.stderr.write(f"{source} {name} was not built, {type(error).__name__}: {str(error)[:120]}\n")
            continue
        started = time.perf_counter()
        trouble, chosen, warned = trouble_with(find, model, x)
        seconds = time.perf_counter() - started
        costs = [cost_of_search(model, x)] if find is found_by_us and chosen else []
        found[name] = Outcome(trouble, costs, warned)
        if kept is not None:
            with kept.open("a") as file:
                file.write(f"{json.dumps([source, name, *found[name]])}\n")
        said = " | the place check warned" if warned else ""
        sys.stderr.write(f"{source} {name} ({seconds:.0f} s): {trouble or 'ok'}{said} | {chosen} {costs}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", choices=zoo.SOURCES, nargs="+", default=list(zoo.SOURCES))
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="models whose names contain one of these")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="what there is already, and where to add the rest")
    parser.add_argument(
        "--torch-cam", type=Path, help=argparse.SUPPRESS
    )  # where the peer's process writes its outcomes
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    find = found_by_torch_cam if options.torch_cam else found_by_us
    found = {source: outcomes(find, source, options.only, options.keep) for source in options.sources}
    if options.torch_cam:
        options.torch_cam.write_text(json.dumps(found))
        return
    theirs = _by_torch_cam(sys.argv[1:], options.keep)
    rows: dict[str, dict[str, Any]] = {}
    for source, ours in found.items():
        costs = [cost for outcome in ours.values() for cost in outcome.costs]
        exceptions = [f"{name} ({outcome.trouble})" for name, outcome in ours.items() if outcome.trouble]
        warned = [name for name, outcome in ours.items() if outcome.warned and outcome.in_place]
        silent = [name for name, outcome in ours.items() if not outcome.warned and not outcome.in_place]
        rows[source] = {
            "models": len(ours),
            "here": f"{_share(ours):.1%}",
            "torch-cam 0.5": f"{_share(theirs[source]):.1%}",
            "search, in forwards": f"{statistics.median(costs):.1f} (at most {max(costs):.1f})",
            "exceptions here": "; ".join(exceptions).replace("|", "/"),
            "place check: warned in place": ", ".join(warned) or "none",
            "silent elsewhere": ", ".join(silent) or "none",
        }
    if not options.only:
        write_report(
            "zero_config", rows, "share of the models with a map that is finite, varies and is the right way round"
        )
    else:
        sys.stderr.write(f"{rows}\n")


def _by_torch_cam(arguments: list[str], kept: Path | None) -> dict[str, dict[str, Outcome]]:
    python = environment_of("torchcam==0.5.0", "--no-deps")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.json"
        command = [python, "-m", "benchmarks.zero_config", *arguments, "--torch-cam", file]
        command += [] if kept is None else ["--keep", f"{kept.absolute()}.peer"]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        read = json.loads(file.read_text())
    return {source: {name: Outcome(*each) for name, each in of.items()} for source, of in read.items()}


def _share(found: dict[str, Outcome]) -> float:
    return sum(not outcome.trouble for outcome in found.values()) / max(len(found), 1)


if __name__ == "__main__":
    main()

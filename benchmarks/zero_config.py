"""`GradCAM(model)(x)` over the model zoos, random weights: `python -m benchmarks.zero_config`.

All classifiers of torchvision, one of every timm family, scaled-down configurations of transformers. A model passes
when its map is finite and varies, the grid of the chosen layer is larger than 1 x 1, and it is the right way round:
noise in a corner of the image changes the activations most in that corner, at all four corners. The same is asked of
the layer that torch-cam finds by itself. Takes about 30 minutes on 2 cores.
"""

import argparse
import logging
import sys
import time
import warnings
from typing import NamedTuple

import torch
from torch import nn

from benchmarks import zoo
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.locate import Location, locate

CORNERS = [(slice(None, 3), slice(None, 3))]


class Outcome(NamedTuple):
    """What became of a model: the layer that was chosen, and what is wrong with it, if anything."""

    chosen: str
    trouble: str


def outcome_of(model: nn.Module, x: torch.Tensor) -> Outcome:
    try:
        location = locate(model, x)
        with GradCAM(model) as cam:
            maps = cam(x, as_tensor=True)
    except Exception as error:  # noqa: BLE001
        return Outcome("", f"{type(error).__name__}: {str(error)[:150]}")
    trouble = []
    if not maps.isfinite().all():
        trouble.append("not finite")
    if maps.amax() == maps.amin():
        trouble.append("blank")
    if min(location.layout.grid) == 1:
        trouble.append(f"grid {location.layout.grid}")
    right = corners_right(model, x, location)
    if right < 4:
        trouble.append(f"{right} of 4 corners")
    return Outcome(str(location), ", ".join(trouble))


def corners_right(model: nn.Module, x: torch.Tensor, location: Location) -> int:
    """How many corners of the image change the activations most in the same corner of the map."""
    kept: list[torch.Tensor] = []
    handle = location.layer.register_forward_hook(lambda module, inputs, output: kept.append(location.layout(output)))
    torch.manual_seed(0)
    right = 0
    try:
        with torch.no_grad():
            model(x)
            for rows in (0, 1):
                for columns in (0, 1):
                    noisy = x.clone()
                    part = _corner(noisy, rows, columns, 4)
                    part.copy_(torch.randn_like(part))
                    model(noisy)
                    change = (kept[-1] - kept[0]).abs().sum(1)[0]
                    quadrants = [_corner(change, i, j, 2).mean() for i in (0, 1) for j in (0, 1)]
                    right += int(torch.stack(quadrants).argmax() == 2 * rows + columns)
    finally:
        handle.remove()
    return right


def _corner(tensor: torch.Tensor, rows: int, columns: int, share: int) -> torch.Tensor:
    height, width = (max(1, -(-size // share)) for size in tensor.shape[-2:])
    vertical = slice(-height, None) if rows else slice(height)
    horizontal = slice(-width, None) if columns else slice(width)
    return tensor[..., vertical, horizontal]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=zoo.SOURCES, nargs="+", default=list(zoo.SOURCES))
    parser.add_argument("--only", nargs="+", help="names that contain one of these")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(True)
    rows: dict[str, dict] = {}
    for source in options.source:
        passed, exceptions = 0, {}
        models = [(n, b) for n, b in zoo.SOURCES[source]() if not options.only or any(o in n for o in options.only)]
        built = 0
        for name, build in models:
            torch.manual_seed(0)
            try:
                model, x = build()
            except Exception as error:  # noqa: BLE001
                sys.stderr.write(f"{source} {name}: not built, {type(error).__name__}: {str(error)[:150]}\n")
                continue
            built += 1
            started = time.perf_counter()
            outcome = outcome_of(model.eval(), x)
            seconds = time.perf_counter() - started
            sys.stderr.write(f"{source} {name} ({seconds:.1f} s): {outcome.trouble or 'ok'}; {outcome.chosen}\n")
            if outcome.trouble:
                exceptions[name] = outcome.trouble
            else:
                passed += 1
        rows[source] = {
            "models": built,
            "pass": passed,
            "share": f"{passed / max(built, 1):.1%}",
            "exceptions": exceptions,
        }
    sys.stderr.write(f"{rows}\n")


if __name__ == "__main__":
    main()

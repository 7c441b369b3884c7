"""Which networks look beside where their maps are usually drawn: `python -m benchmarks.registration`.

All classifiers of torchvision and a small one of every timm family, random weights, the layer that `locate` finds: by
how many pixels its cells look further down and right (positive) than the even tiles that every library draws, and the
stride. By geometry, or where that does not tell, marked by a star, by measurement. Takes about 20 minutes on 2 cores.
"""

import argparse
import logging
import sys
import warnings
from typing import Any

import torch

from benchmarks import zoo
from benchmarks.report import write_report
from pytorch_grad_cam.locate import locate
from pytorch_grad_cam.registration import Registration, registration_of


def registration(build: zoo.Build) -> Registration:
    torch.manual_seed(0)
    model, x = build()
    zoo.as_trained(model, x)
    location = locate(model, x)
    return registration_of(model, location.layer, x, location.as_map, measure=False)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    groups: dict[tuple[float, float], list[str]] = {}
    unknown = []
    for source in ("torchvision", "timm"):
        for name, build in zoo.SOURCES[source]():
            try:
                found = registration(build)
            except Exception as error:  # noqa: BLE001
                sys.stderr.write(f"{source} {name}: {type(error).__name__}: {str(error)[:120]}\n")
                continue
            sys.stderr.write(f"{source} {name}: {found}\n")
            if found.source == "tiles":
                unknown.append(name)
                continue
            measured = found.source == "measurement"
            shift = round(found.shift[1]) if measured else round(found.shift[1], 1)
            groups.setdefault((shift, round(found.step[1], 1)), []).append(name + "*" * measured)
    rows: dict[str, dict[str, Any]] = {}
    for (shift, step), names in sorted(groups.items(), key=lambda group: (-abs(group[0][0]), group[0])):
        label = f"{shift + 0.0:+g} px of {step:g}"
        rows[label] = {"in cells": f"{shift / step + 0.0:+.2f}", "models": len(names), "which": ", ".join(names)}
    count = sum(len(names) for names in groups.values())
    affected = sum(len(names) for (shift, step), names in groups.items() if abs(shift) > step / 4)
    notes = f"{affected} of {count} look more than a quarter of a cell beside; not told: {', '.join(unknown) or 'none'}"
    write_report("registration", rows, notes)


if __name__ == "__main__":
    main()

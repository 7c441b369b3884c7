"""How time grows with batch, channels, layers and image size, and memory with calls: `python -m benchmarks.growth`.

A plain network of seven convolutions; every library in its own process, in turn. Milliseconds of a call over those of
a bare forward of the same input, medians, and the slope of the line through the first and the last one on logarithmic
axes: 1 is proportional. Then 10,000 calls of one object, and by how much the process grew between the first tenth and
the last one.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys

from benchmarks.contest import HERE, LIBRARIES, Contestant, contestants
from benchmarks.report import save, table, write_report

START = {"channels": 256, "size": 224, "batch": 4}
STEPS = {
    "batch": [1, 2, 4, 8, 16, 32],
    "channels": [64, 128, 256, 512, 1024],
    "size": [112, 160, 224, 320, 448],
    "layers": [1, 2, 5],
}
LAYERED = {1: "GradCAM", 2: "GradCAM, 2 layers", 5: "GradCAM, 5 layers"}
METHODS = ("GradCAM", "EigenCAM")
ROUNDS, CALLS, TENTHS = 7, 10_000, 10
MEGABYTE = 2**20


def times(each: Contestant, along: str, value: int, method: str, rounds: int) -> tuple[float, float]:
    """Milliseconds of a call and of a bare forward."""
    shape = {**START, **({} if along == "layers" else {along: value})}
    each.prepare_growing(**shape)
    chosen = LAYERED[value] if along == "layers" else method
    pairs = [each.time([chosen])[chosen] for _ in range(rounds + 1)][1:]
    return tuple(1000 * statistics.median(column) for column in zip(*pairs, strict=True))


def slope(points: dict[int, float]) -> float:
    (low, at_low), (high, at_high) = min(points.items()), max(points.items())
    return math.log(at_high / at_low) / math.log(high / low)


def memory_row(each: Contestant, calls: int) -> dict[str, str]:
    """10,000 calls of one GradCAM on images of 64 x 64."""
    each.prepare_growing(channels=64, size=64, batch=1)
    steps = each.repeat("GradCAM", calls // TENTHS, TENTHS)
    seconds = [second for second, _ in steps]
    grown = (steps[-1][1] - steps[0][1]) / MEGABYTE
    return {
        "growth of the process": f"{grown:.1f} MB",
        "ms a call, first tenth": f"{1000 * seconds[0]:.2f}",
        "ms a call, last tenth": f"{1000 * seconds[-1]:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--quick", action="store_true", help="the ends of each line, 500 calls; nothing is written")
    options = parser.parse_args()
    steps = {along: [values[0], values[-1]] for along, values in STEPS.items()} if options.quick else STEPS
    if options.quick:
        options.rounds, options.calls = 3, 500
    points: dict[str, dict] = {}
    slopes: dict[str, dict] = {}
    with contestants(options.device) as racing:
        known = {each.name: each.methods() for each in racing}
        for along, values in steps.items():
            for method in METHODS if along != "layers" else METHODS[:1]:
                lines: dict[str, dict[int, float]] = {}
                for value in values:
                    for each in racing:
                        if (LAYERED[value] if along == "layers" else method) not in known[each.name]:
                            continue
                        call, bare = times(each, along, value, method, options.rounds)
                        lines.setdefault(each.name, {})[value] = call
                        lines.setdefault(f"bare forward, {each.name}", {})[value] = bare
                points[f"{method}, {along}"] = lines
                slopes[f"{method}, {along} {values[0]} to {values[-1]}"] = _row(lines, values)
        calls = {each.name: memory_row(each, options.calls) for each in racing}
    if options.quick:
        sys.stdout.write(f"{table(slopes)}\n\n{table(calls)}\n")
        return
    save("growth_points", points, "milliseconds of a call")
    write_report(
        "growth", slopes, "slopes of the time of a call, and of a bare forward, on logarithmic axes; 1 is proportional"
    )
    write_report(
        "growth_calls", calls, f"{options.calls:,} calls of one GradCAM, a plain network, one image of 64 x 64"
    )


def _row(lines: dict[str, dict[int, float]], values: list[int]) -> dict[str, str]:
    row = {"bare forward": f"{slope(lines[f'bare forward, {HERE}']):.2f}"}
    for library in LIBRARIES:
        if library in lines and len(lines[library]) == len(values):
            row[library] = f"{slope(lines[library]):.2f}"
    return row


if __name__ == "__main__":
    main()

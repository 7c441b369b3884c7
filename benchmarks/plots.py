"""Pictures of the results: `python -m benchmarks.plots` draws `benchmarks/results/*.png` from the JSON files."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.contest import HERE, LIBRARIES
from benchmarks.report import RESULTS, rows_of

COLOURS = dict(zip(LIBRARIES, ("#1b7837", "#b2182b", "#2166ac", "#e08214"), strict=True))
BATCH = 1  # the one with which every method of every library was run


def speed(plt: Any) -> None:
    """Each library's methods: the mean of what a call costs in forwards, over the networks that all of them ran."""
    import numpy as np

    races: dict[str, dict[str, dict[str, float]]] = {}
    for cell in rows_of("speed_cells").values():
        if cell.get("ratios") and cell["batch"] == BATCH and "," not in cell["method"]:
            race = races.setdefault(cell["method"], {}).setdefault(cell["network"], {})
            race[cell["library"]] = float(np.median(cell["ratios"]))
    means: dict[str, dict[str, float]] = {}
    for method, networks in races.items():
        entered = set.union(*map(set, networks.values()))
        shared = [race for race in networks.values() if set(race) == entered]
        means[f"{method} ({len(shared)})"] = {
            library: float(np.exp(np.mean([np.log(race[library]) for race in shared]))) for library in entered
        }
    rows = list(means.values())[::-1]
    height = 0.8 / len(LIBRARIES)
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(rows) + 1), layout="constrained")
    for offset, library in enumerate(LIBRARIES):
        bars = [(place + height * (1.5 - offset), row[library]) for place, row in enumerate(rows) if library in row]
        axes.barh(*zip(*bars, strict=True), height, label=library, color=COLOURS[library])
    axes.set_yticks(range(len(rows)), list(means)[::-1])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(y=0.01)
    axes.set_xlabel("one image, in bare forwards: geometric mean over the (networks) that all libraries of the row ran")
    axes.legend()
    figure.savefig(RESULTS / "speed.png", dpi=110)


def growth(plt: Any) -> None:
    points = rows_of("growth_points")
    figure, grid = plt.subplots(1, len(points), figsize=(3 * len(points), 3), sharey=True, layout="constrained")
    for axes, (title, lines) in zip(grid, points.items(), strict=True):
        for library, colour in COLOURS.items():
            if library in lines:
                axes.plot(
                    [int(x) for x in lines[library]], list(lines[library].values()), "o-", color=colour, label=library
                )
        bare = lines[f"bare forward, {HERE}"]
        axes.plot([int(x) for x in bare], list(bare.values()), "k:", label="bare forward")
        axes.set(title=title, xscale="log", yscale="log")
    grid[0].set_ylabel("milliseconds a call")
    grid[0].legend(fontsize=7)
    figure.savefig(RESULTS / "growth.png", dpi=110)


def localisation(plt: Any) -> None:
    """How often the maximum lies in the right box, tiles and registered."""
    hits = rows_of("digits")
    columns = [column for column in next(iter(hits.values())) if column.startswith("hit")]
    methods = [method for method in hits if method not in ("ceiling", "noise")][::-1]
    height = 0.85 / len(columns)
    colours = ["#7fbf7b", *COLOURS.values()]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(methods) + 1), layout="constrained")
    for offset, (column, colour) in enumerate(zip(columns, colours, strict=True)):
        bars = [(place, hits[method].get(column)) for place, method in enumerate(methods)]
        bars = [(place + height * (2 - offset), hit) for place, hit in bars if hit is not None]
        axes.barh([place for place, _ in bars], [hit for _, hit in bars], height, label=column[5:], color=colour)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_xlabel("share of the maps whose maximum lies in the box of the digit that was asked about")
    axes.legend(loc="lower left")
    figure.savefig(RESULTS / "localisation.png", dpi=110)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for draw in (speed, growth, localisation):
        draw(plt)


if __name__ == "__main__":
    main()

"""Where the time of the slowest rows goes: `python -m benchmarks.breakdown`, after `benchmarks.speed`.

The slowest row of each method, the slowest methods first. Of one call, after one for warming up: the seconds in the
model's forwards (or those of its tail) and in backwards are the model's own; the rest is what a method adds.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.contest import HERE, Contestant
from benchmarks.report import rows_of, suffix_of, write_report
from benchmarks.speed import BOTH_WAYS

ROWS = 10


def slowest(cells: dict[str, dict], count: int) -> list[dict]:
    """Of each method here the cell with the highest ratio; the `count` highest of them."""
    ours = [cell for cell in cells.values() if cell["library"] == HERE and "ratios" in cell]
    ours = [cell for cell in ours if cell["method"] != BOTH_WAYS]
    ours.sort(key=lambda cell: statistics.median(cell["ratios"]))
    of_methods = {cell["method"].partition(",")[0]: cell for cell in ours}
    return sorted(of_methods.values(), key=ours.index, reverse=True)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    suffix = suffix_of(options.device)
    rows = {}
    here = Contestant(HERE, options.device)
    for cell in slowest(rows_of(f"speed_cells{suffix}"), ROWS):
        bare = here.prepare(cell["network"], cell["batch"])
        spent = here.breakdown(cell["method"])
        own = spent["forwards"] + spent["backwards"]
        rows[f"{cell['network']}, {cell['batch']}, {cell['method']}"] = {
            "call, in bare forwards": f"{spent['all'] / bare:.2f}",
            "images through the model or its tail": spent["images"],
            "in forwards": f"{spent['forwards'] / spent['all']:.0%}",
            "in backwards": f"{spent['backwards'] / spent['all']:.0%}",
            "the rest": f"{1 - own / spent['all']:.0%}",
        }
    here.close()
    write_report(
        f"breakdown{suffix}", rows, "one call of each; the rest is what the method adds to the model's own time"
    )


if __name__ == "__main__":
    main()

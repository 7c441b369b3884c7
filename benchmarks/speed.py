"""What maps cost in time and memory, here and by the peers: `python -m benchmarks.speed`.

Every library runs in its own process on the same seeded work; they take turns, and each number is a ratio to bare
`inference_mode` forwards of the same batch in the same process right before and after it: the median of the rounds and,
in brackets, the lowest and the highest. Memory: by how much the memory in use grows in a call, over what it grows in a
bare forward. The first call of each method is for warming up, for memory and for checking the map. What would take
longer than two and a half minutes is not begun, whosever it is, and is in the table with the time that it would take.
Behind ≠ is what makes another map than we do.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import HERE, LIBRARIES, Contestant, Failure, contestants
from benchmarks.contestants.networks import RACED
from benchmarks.maps import finished
from benchmarks.report import rows_of, save, suffix_of, table, write_report

ROUNDS = 5
# A cell is measured again until it has taken so many seconds; no call is begun that should take more than PATIENCE.
ENOUGH, PATIENCE = 10.0, 150.0
FORWARDS_A_CHANNEL = {"ScoreCAM": 1, "AblationCAM": 1, "AblationCAM, layer3": 1, "SSCAM": 35, "ISCAM": 10}
TAIL_ONLY = (HERE, "AblationCAM"), (HERE, "AblationCAM, layer3")
TASKS_ON, TASKS_BATCH = "ResNet-50", 1
BOTH_WAYS = "forward and backward"
DIFFERENT = 0.1  # maps, somewhere, on a scale from 0 to 1
QUICK = ("GradCAM", "LayerCAM", "EigenCAM", "FullGrad", "GradCAM, 5 classes", "GradCAM, aug_smooth")


class Cell:
    """One library's method on one network and batch."""

    def __init__(self, network: str, batch: int, method: str, library: str) -> None:
        self.network, self.batch, self.method, self.library = network, batch, method, library
        self.ratios: list[float] = []
        self.seconds: list[float] = []
        self.memory: float | None = None
        self.beside: float | None = None
        self.why_not = ""

    @classmethod
    def of(cls, record: dict[str, Any]) -> Cell:
        cell = cls(*(record[key] for key in ("network", "batch", "method", "library")))
        vars(cell).update(record)
        return cell

    def record(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value not in ("", None, [])}


def measured(
    networks: Iterable[str],
    batches: Iterable[int],
    rounds: int,
    only: Iterable[str],
    device: str,
    before: list[Cell],
    libraries: Iterable[str] = LIBRARIES,
) -> Iterator[list[Cell]]:
    """The cells of the libraries, network by network and batch by batch: with their ratios, or why there are none.

    before: of smaller batches, which tell how long the larger ones will take.
    """
    with contestants(device, libraries) as racing, tempfile.TemporaryDirectory() as folder:
        methods = {each.name: [m for m in each.methods() if not only or m in only] for each in racing}
        for network, batch in itertools.product(networks, batches):
            if RACED[network].size != (224, 224) and batch > 1:
                continue
            cells = [Cell(network, batch, BOTH_WAYS, HERE)]
            cells += [
                Cell(network, batch, method, each.name)
                for each in racing
                for method in methods[each.name]
                if "," not in method or (network, batch) == (TASKS_ON, TASKS_BATCH)
            ]
            _race(racing, cells, before, rounds, Path(folder))
            before += cells
            yield cells


def _race(racing: list[Contestant], cells: list[Cell], before: list[Cell], rounds: int, folder: Path) -> None:
    network, batch = cells[0].network, cells[0].batch
    for each in racing:
        bare = each.prepare(network, batch)
        own = [cell for cell in cells if cell.library == each.name and cell.method != BOTH_WAYS]
        for cell in own:
            cell.why_not = _too_long(cell, before, bare)
            if not cell.why_not:
                _check(each, cell, bare, folder)
    for _ in range(rounds):
        seconds, bare = racing[0].forward_and_backward()
        cells[0].ratios.append(seconds / bare)
        for each in racing:
            again = [c for c in cells if c.library == each.name and c.seconds and not c.why_not]
            _time(each, [c for c in again if sum(c.seconds) <= ENOUGH])


def _time(each: Contestant, cells: list[Cell]) -> None:
    """One round of one library; where it fails, method by method."""
    try:
        times = each.time([cell.method for cell in cells])
    except Failure as failure:
        if len(cells) == 1:
            cells[0].why_not = str(failure)
            return
        for cell in cells:
            _time(each, [cell])
        return
    for cell in cells:
        seconds, bare = times[cell.method]
        cell.ratios.append(seconds / bare)
        cell.seconds.append(seconds)


def _check(each: Contestant, cell: Cell, bare: float, folder: Path) -> None:
    """The first call; its map must be one, and is compared with ours."""
    file = folder / f"{cell.library}-{cell.method}.npy".replace("/", "-")
    try:
        first = each.check(cell.method, str(file))
    except Failure as failure:
        cell.why_not = str(failure)
        return
    cell.seconds.append(first["seconds"])
    cell.memory = first["bytes"] / max(first["bare bytes"], 1)
    if first["seconds"] > ENOUGH:
        cell.ratios.append(first["seconds"] / bare)
    size = RACED[cell.network].size
    if len(first["shape"]) != 1 + len(size) and "," not in cell.method and cell.method != "GuidedGradCAM":
        cell.why_not = f"no map: {first['shape']}"
        cell.ratios.clear()
        return
    ours = folder / f"{HERE}-{cell.method}.npy"
    if cell.library != HERE and ours.exists() and len(first["shape"]) == 1 + len(size):
        maps = [finished(np.load(path), size) for path in (ours, file)]
        cell.beside = float(np.abs(maps[0] - maps[1]).max())


def _too_long(cell: Cell, before: list[Cell], bare: float) -> str:
    """Why the call is not begun: by a smaller batch, or by the number of forwards that it needs."""
    channels = RACED[cell.network].channels
    expected = FORWARDS_A_CHANNEL.get(cell.method, 0) * channels * bare
    if (cell.library, cell.method) in TAIL_ONLY:
        expected = 0.0
    for smaller in before:
        same = (smaller.network, smaller.method, smaller.library) == (cell.network, cell.method, cell.library)
        same = same and smaller.batch < cell.batch
        if same and smaller.seconds:
            expected = smaller.seconds[-1] * cell.batch / smaller.batch
        if same and smaller.why_not:
            return smaller.why_not
    return f"about {expected:,.0f} s" if expected > PATIENCE else ""


def shown(cell: dict | None) -> str | None:
    if cell is None:
        return None
    if "ratios" not in cell:
        return cell["why_not"].partition(":")[0]
    middle, digits = statistics.median(cell["ratios"]), 2 if statistics.median(cell["ratios"]) < 10 else 0
    spread = (
        f"{min(cell['ratios']):,.{digits}f}-{max(cell['ratios']):,.{digits}f}" if len(cell["ratios"]) > 1 else "once"
    )
    return f"{middle:,.{digits}f} ({spread}){' ≠' if cell.get('beside', 0) > DIFFERENT else ''}"


def summary(cells: Iterable[dict], network: str, batch: int) -> dict[str, dict]:
    """Method to library to ratio on one network; methods that nobody was asked for with the batch: with one image."""
    rows: dict[str, dict] = {}
    chosen = {(c["method"], c["library"], c["batch"]): c for c in cells if c["network"] == network}
    for method in dict.fromkeys(method for method, _, _ in chosen):
        at = batch if "ratios" in chosen.get((method, HERE, batch), {}) else 1
        row = {library: shown(chosen.get((method, library, at))) for library in LIBRARIES}
        if any(row.values()):
            rows[method if at == batch else f"{method}, one image"] = row
    return rows


def everything(cells: Iterable[dict], column: Callable[[dict], str | None]) -> dict[str, dict]:
    rows: dict[str, dict] = {}
    for cell in cells:
        value = column(cell)
        if value is not None:
            row = rows.setdefault(f"{cell['network']}, {cell['batch']}, {cell['method']}", dict.fromkeys(LIBRARIES))
            row[cell["library"]] = value
    return rows


def grown(cell: dict) -> str | None:
    return f"{cell['memory']:.2f}" if "memory" in cell else None


def write_tables(cells: dict[str, dict], suffix: str, batch: int) -> None:
    """Of all cells, and of two networks with `batch` images for the README."""
    ordered = sorted(cells.values(), key=lambda cell: (list(RACED).index(cell["network"]), cell["batch"]))
    rounds = [len(cell["ratios"]) for cell in ordered if len(cell.get("ratios", [])) > 1]
    notes = (
        "in bare inference_mode forwards of the same batch; median (lowest-highest) of "
        f"{min(rounds)} to {max(rounds)} rounds"
    )
    for network, name in (("ResNet-50", "speed"), ("ViT-S", "speed_vit")):
        write_report(f"{name}{suffix}", summary(ordered, network, batch), f"{network}, batch {batch}; {notes}")
    write_report(f"speed_all{suffix}", everything(ordered, shown), notes)
    write_report(f"memory{suffix}", everything(ordered, grown), "growth in a call, over that in a bare forward")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", nargs="+", choices=RACED, default=list(RACED))
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--add", action="store_true", help="to the cells of earlier runs")
    parser.add_argument("--quick", action="store_true", help="two networks, one image, six methods; nothing is written")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    options = parser.parse_args()
    if options.quick:
        options.networks, options.batches, options.rounds, options.methods = ["ResNet-50", "ViT-S"], [1], 3, QUICK
    batches = options.batches or ([1, 8, 32] if options.device == "cpu" else [1, 64, 256])
    suffix = suffix_of(options.device)
    known = rows_of(f"speed_cells{suffix}") if options.add else {}
    before = [Cell.of(record) for record in known.values()]
    asked = options.networks, batches, options.rounds, options.methods, options.device, before, options.libraries
    for cells in measured(*asked):
        known |= {f"{c.network}, {c.batch}, {c.method}, {c.library}": c.record() for c in cells}
        if not options.quick:
            save(f"speed_cells{suffix}", known)  # what was measured is kept when the rest is not
    if options.quick:
        sys.stdout.write(table(everything(known.values(), shown)) + "\n")
        return
    write_tables(known, suffix, 8 if options.device == "cpu" else 64)


if __name__ == "__main__":
    main()

"""`GradCAM(model)(x, target)` for models that are no plain classifiers: `python -m benchmarks.families`.

Detectors, segmentation, video, sound, images with texts, with random weights. Where no layer is named, is the map
right? What is right is written by hand for each model: the size of the map; the layers that say much, at or behind the
last stage of the encoder and before the output. In place: noise in each half of each axis changes the layer's
activations most in that half of its grid. Of the gradient: the map is the one of plain hooks and literal autograd at
that layer. The same is asked of the layer that torch-cam finds by itself, in a process of its own; grad-cam 1.5.7 finds
no layers. Takes about twenty minutes on 2 cores. `--keep FILE`: what each model gave is added to FILE, and to FILE.peer
for torch-cam, so that a run that was stopped goes on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.families.judge import VERDICTS
from benchmarks.families.records import OTHERS, Record, everything
from benchmarks.peers import environment_of
from benchmarks.report import save, table, write_report


def rows_of(records: list[Record], theirs: list[Record]) -> dict[str, dict[str, Any]]:
    """A row for each family, and one for all."""
    rows = {}
    families = list(dict.fromkeys(record["family"] for record in records))
    for label in [*families, "all"]:
        ours, of_peer = ([r for r in judgements if label in (r["family"], "all")] for judgements in (records, theirs))
        verdicts, by_peer = (Counter(record["verdict"] for record in judgements) for judgements in (ours, of_peer))
        others = {verdict: verdicts[verdict] for verdict in OTHERS if verdicts[verdict]}
        rows[label] = {
            "models": len({(record["family"], record["model"]) for record in ours}),
            "targets": len(ours),
            **{verdict: verdicts[verdict] for verdict in VERDICTS},
            **others,
            "torch-cam 0.5": " / ".join(str(by_peer[verdict]) for verdict in VERDICTS),
            "grad-cam 1.5.7": "finds no layers",
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="models with this in 'family library name'")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="what there is already, and where to add the rest")
    parser.add_argument("--no-peer", action="store_true", help="without torch-cam")
    parser.add_argument("--torch-cam", type=Path, help=argparse.SUPPRESS)  # where the peer's process writes its records
    options = parser.parse_args()
    records, left_out = everything(options.only, bool(options.torch_cam), options.keep)
    if options.torch_cam:
        options.torch_cam.write_text(json.dumps(records))
        return
    theirs = [] if options.no_peer else _by_torch_cam(options.only, options.keep)
    rows = rows_of(records, theirs)
    missing = "; ".join(f"{library} is not installed, {count} models" for library, count in left_out.items())
    notes = "targets are counted, of a model one to three; torch-cam: the same five numbers"
    not_judged = sum(record["verdict"] not in VERDICTS for record in theirs)
    notes += f", {not_judged} of its targets could not be judged" if not_judged else ""
    notes += f"; {missing}" if missing else ""
    if options.only or options.no_peer:
        sys.stdout.write(f"{table(rows)}\n\n{notes}\n")
        return
    save("families_cases", {f"{r['model']}, {r['asked']}": r for r in records}, notes)
    write_report("families", rows, notes)


def _by_torch_cam(only: str, kept: Path | None) -> list[Record]:
    python = environment_of("torchcam==0.5.0", "--no-deps")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.json"
        command = [python, "-m", "benchmarks.families", "--only", only, "--torch-cam", file]
        command += [] if kept is None else ["--keep", f"{kept.absolute()}.peer"]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
        return json.loads(file.read_text())


if __name__ == "__main__":
    main()

"""Our maps against those of grad-cam 1.5.7, each computed in its own process: `python -m benchmarks.parity`.

`benchmarks.peers` makes the environment of 1.5.7 on the first run. Takes about 20 minutes on 2 cores, nearly all of
them 1.5.7's AblationCAM and ScoreCAM.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.peers import environment_of
from benchmarks.report import write_report

# The sign of 1.5.7's first principal component is an accident of the SVD: these are compared before the map is cut.
UP_TO_SIGN = ("EigenCAM", "EigenGradCAM", "KPCA_CAM")


def maps_by(python: Path, folder: Path, root: Path | None) -> dict[str, np.ndarray]:
    """The maps that `parity_cases` computes under an interpreter, with our package on its path or without."""
    file = folder / f"{python.parts[-3]}.npz"
    environment = {"PYTHONPATH": str(root)} if root else {}
    script = Path(__file__).with_name("parity_cases.py")
    subprocess.run([python, script, file], check=True, env={"TQDM_DISABLE": "1", "PATH": "", **environment})
    with np.load(file) as arrays:
        return dict(arrays)


def difference(ours: np.ndarray, theirs: np.ndarray, method: str) -> float:
    """The largest difference between two batches of maps; of components up to their sign, relative to the largest."""
    axes = tuple(range(1, ours.ndim))
    apart = np.abs(ours - theirs).max(axes)
    if method in UP_TO_SIGN:
        apart = np.minimum(apart, np.abs(ours + theirs).max(axes)) / np.abs(theirs).max(axes)
    return float(apart.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has grad-cam 1.5.7 (default: make one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours = maps_by(Path(sys.executable), Path(folder), Path(__file__).parents[1])
        theirs = maps_by(arguments.peer_python or environment_of("grad-cam==1.5.7"), Path(folder), None)
    rows: dict[str, dict] = {}
    pieces: dict[str, dict] = {}
    for key, maps in ours.items():
        case, name = key.split("|")
        if case == "pieces":
            pieces[name] = {"largest difference": difference(maps, theirs[key], name)}
        else:
            rows.setdefault(name, {})[case] = difference(maps, theirs[key], name)
    write_report("parity", rows, "largest difference between our maps and those of grad-cam 1.5.7")
    write_report("parity_pieces", pieces, "largest difference between our results and those of grad-cam 1.5.7")


if __name__ == "__main__":
    main()

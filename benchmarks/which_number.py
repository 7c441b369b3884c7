"""Which metrics agree? `python -m benchmarks.which_number`: methods on the digits, whose places are known.

Scenes of the demo network that it gets right, both digits as targets; then how alike the metrics rank the methods,
Spearman's correlation over methods and baselines, each metric turned so that higher is better.
"""

import argparse

import numpy as np

from benchmarks.digits import PERCENTILES, STEPS, Targets, scenes_got_right
from benchmarks.report import write_report
from pytorch_grad_cam import evaluate
from pytorch_grad_cam.demo import load_digits_net
from pytorch_grad_cam.evaluation.evaluation import Evaluation
from pytorch_grad_cam.evaluation.metrics import Metric, metric_called
from pytorch_grad_cam.metrics.deletion_insertion import Deletion, Insertion
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.metrics.similarity import similarity

METHODS = ["gradcam", "hirescam", "layercam", "gradcam++", "eigencam", "fem", "randomcam"]
METRICS = [
    *map(metric_called, ("pointing game", "energy", "IoU")),
    Metric("deletion", False, "scores", Deletion(STEPS)),
    Metric("insertion", True, "scores", Insertion(STEPS)),
    Metric("ROAD", True, "scores", ROADCombined(PERCENTILES)),
    *map(metric_called, ("average drop", "sparseness", "max-sensitivity", "shift stability", "MPRT", "random logit")),
]


def shown(found: Evaluation) -> dict[str, dict[str, str]]:
    """The rows as a table: the mean and, in brackets, half of the interval's width."""
    rows: dict[str, dict[str, str]] = {}
    for row in found.rows:
        cells = rows.setdefault(row.method, {})
        for metric, higher in found.directions.items():
            mean, low, high = found.estimate(row, metric)
            column = f"{metric} {'↑' if higher else '↓'}"
            cells[column] = "" if np.isnan(mean) else f"{mean:.2f} ({(high - low) / 2:.2f})"
    return rows


def agreement(found: Evaluation) -> dict[str, dict[str, float | None]]:
    """How alike each two metrics rank the rows that both have."""
    means = {
        metric: np.array([(1 if higher else -1) * found.estimate(row, metric).mean for row in found.rows])
        for metric, higher in found.directions.items()
    }
    table: dict[str, dict[str, float | None]] = {}
    for first, a in means.items():
        for second, b in means.items():
            both = np.isfinite(a) & np.isfinite(b)
            found_alike = float(similarity(a[both][None], b[both][None], "spearman"))
            table.setdefault(first, {})[second] = round(found_alike, 2) + 0.0
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=12)
    model = load_digits_net()
    targets = Targets(scenes_got_right(model, parser.parse_args().scenes, seed=2))
    data = {"targets": targets.labels.tolist(), "truth": targets.boxes}
    found = evaluate(model, targets.images, METHODS, METRICS, layers="layer4", **data)
    notes = f"{found.images} targets, at layer4, registered; in brackets half of the 95 % interval"
    write_report("which_number", shown(found), notes)
    write_report("which_number_agreement", agreement(found), "Spearman's correlation of the ranks of the rows above")


if __name__ == "__main__":
    main()

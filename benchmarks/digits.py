"""Do the maps point at the digit that was asked about? `python -m benchmarks.digits`, every method of every library.

Held-out scenes of the demo network that it gets right, both digits as targets. How often the map's maximum lies in the
target's box (hit; of several maxima their share) or in the other digit's (wrong), the share of the map's sum inside the
box (energy), the overlap of the map's upper half with the box (IoU). Of fewer targets: the target's probability,
averaged while the pixels are taken away (deletion, lower is better) or put back (insertion, higher is better) in the
order of the map; ROAD over four percentiles (higher is better); the correlation with the map of the same network with a
random head, and with random parameters throughout: a map that does not change tells nothing about them.

And the same, without the random networks, for the methods of transformers on the demo's transformer, on the scenes that
it gets right.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import pytorch_grad_cam
from benchmarks.contest import HERE, LIBRARIES, Contestant, Failure, contestants
from benchmarks.maps import finished
from benchmarks.report import rows_of, save, table, write_report
from pytorch_grad_cam.demo import load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.scenes import SIZE, Scene, make_scene
from pytorch_grad_cam.demo.train import held_out_accuracy
from pytorch_grad_cam.demo.transformer import load_digits_transformer
from pytorch_grad_cam.metrics.deletion_insertion import Deletion, Insertion
from pytorch_grad_cam.metrics.ground_truth import masks_of
from pytorch_grad_cam.metrics.localisation import energy_pointing_game, iou, pointing_game
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.metrics.similarity import similarity

MINUTES_LONG = ("ScoreCAM", "GScoreCAM", "GroupCAM", "SESS", "AblationCAM", "GuidedGradCAM", "FullGrad")
HOURS_LONG = ("SSCAM", "ISCAM")
OF_TRANSFORMERS = (
    "GradCAM", "LayerCAM", "HiResCAM", "PathCAM", "LeGrad", "GradECLIP", "TransMM", "AGCAM", "GradientRollout",
    "AttentionRollout",
)  # fmt: skip
FEW_SCENES = 48
GRID = 8
STEPS = 16
PERCENTILES = (20, 40, 60, 80)
REGISTERED = f"{HERE}, registered"


def scenes_got_right(model: torch.nn.Module, count: int, seed: int) -> list[Scene]:
    """The scenes among `count` held-out ones whose two highest logits are their digits."""
    rng = np.random.default_rng(seed)
    scenes = [make_scene(rng) for _ in range(count)]
    with torch.inference_mode():
        logits = model(preprocess_scene(np.stack([scene.image for scene in scenes])))
    top = logits.topk(2).indices.sort().values.tolist()
    return [scene for scene, digits in zip(scenes, top, strict=True) if digits == sorted(scene.labels)]


def localisation(maps: np.ndarray, boxes: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Hit, wrong, energy and IoU, means over maps (T, H, W) and boxes (T, 4) as x0, y0, x1, y1."""
    figures = {
        "hit": pointing_game(maps, boxes),
        "wrong": pointing_game(maps, others),
        "energy": energy_pointing_game(maps, boxes),
        "IoU": iou(maps, boxes),
    }
    return {name: float(figure.mean()) for name, figure in figures.items()}


def _on_grid(boxes: np.ndarray) -> np.ndarray:
    """The ceiling: the true box, drawn on the grid of the last layer and enlarged as a map is."""
    filled = masks_of(boxes, torch.empty(len(boxes), SIZE, SIZE))
    coarse = F.adaptive_avg_pool2d(filled.float()[:, None], GRID)
    enlarged = F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")[:, 0].numpy()
    return enlarged / enlarged.max((1, 2), keepdims=True)


class Targets:
    """Scenes and their digits, one row for each digit of each scene: as many first digits, then the second ones."""

    def __init__(self, scenes: list[Scene]) -> None:
        images = preprocess_scene(np.stack([scene.image for scene in scenes]))
        labels, boxes = np.stack([s.labels for s in scenes]), np.stack([s.boxes for s in scenes])
        self.images = torch.cat([images, images])
        self.labels = np.concatenate([labels[:, 0], labels[:, 1]])
        self.boxes = np.concatenate([boxes[:, 0], boxes[:, 1]])
        self.others = np.concatenate([boxes[:, 1], boxes[:, 0]])

    def save(self, file: Path) -> None:
        np.savez(file, images=self.images.numpy(), categories=self.labels)

    def probabilities(self) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        """What is read of each image's output: the target's probability."""
        return [partial(_probability, label) for label in self.labels.tolist()]


def _probability(label: int, output: torch.Tensor) -> torch.Tensor:
    return output.sigmoid()[label]


def evaluate(maps_for: Callable[[torch.Tensor, np.ndarray], np.ndarray], scenes: list[Scene]) -> dict[str, float]:
    """The localisation of maps_for(images (N, 3, H, W), labels (N,)) over the scenes, for each of the two digits."""
    targets = Targets(scenes)
    return localisation(maps_for(targets.images, targets.labels), targets.boxes, targets.others)


def faithfulness(model: torch.nn.Module, targets: Targets, maps: np.ndarray) -> dict[str, float]:
    """Deletion, insertion and ROAD, means over the targets."""
    asked = targets.images, maps, targets.probabilities(), model
    curves = {"deletion": Deletion(STEPS), "insertion": Insertion(STEPS, _blurred)}
    figures = {name: float(metric.curve(*asked)[1].mean()) for name, metric in curves.items()}
    road = ROADCombined(PERCENTILES)(targets.images, maps, targets.labels.tolist(), model)
    return {**figures, "ROAD": float(road.mean())}


def _blurred(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(F.pad(images, [8] * 4, mode="reflect"), 17, stride=1)


class Judge:
    """Asks the libraries for maps of the targets, and what they are worth."""

    def __init__(self, model: torch.nn.Module, scenes: list[Scene], folder: Path) -> None:
        self.model, self.scenes, self.folder = model, scenes, folder
        self.all = Targets(scenes)

    def figures(self, each: Contestant, method: str, **options: str) -> dict[str, float]:
        """All columns of one row. Raises Failure where the library does."""
        few = Targets(self.scenes[: FEW_SCENES // 6 if method in HOURS_LONG else FEW_SCENES])
        maps_of_few = self._maps(each, method, few, [], **options)
        chosen, maps = few, maps_of_few
        if method not in (*MINUTES_LONG, *HOURS_LONG):
            chosen, maps = self.all, self._maps(each, method, self.all, [], **options)
        found = {"targets": len(maps), **localisation(maps, chosen.boxes, chosen.others)}
        found |= faithfulness(self.model, few, maps_of_few)
        for label, modules in (("random head", ["fc"]), ("random network", [""])):
            randomised = self._maps(each, method, few, modules, **options)
            found[f"like with a {label}"] = float(similarity(maps_of_few, randomised).mean())
        return found

    def _maps(
        self, each: Contestant, method: str, targets: Targets, randomised: list[str], **options: str
    ) -> np.ndarray:
        work, maps = self.folder / "work.npz", self.folder / "maps.npy"
        targets.save(work)
        each.prepare_images("digits", str(work))
        each.randomise(randomised)
        each.maps(method, str(maps), **options)
        return finished(np.load(maps), (SIZE, SIZE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--add", action="store_true", help="to the rows of an earlier run that was stopped")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--quick", action="store_true", help="25 scenes, three methods; nothing is written")
    arguments = parser.parse_args()
    only = ("GradCAM", "LayerCAM", "EigenCAM") if arguments.quick else ()
    model = load_digits_net()
    mean_precision, both_right = held_out_accuracy(model)
    notes = f"held-out mAP {mean_precision:.3f}, both digits right in {both_right:.1%} of 2,000 scenes"
    scenes = scenes_got_right(model, 25 if arguments.quick else arguments.scenes, arguments.seed)
    rows = rows_of("digits_all") if arguments.add else {}
    with contestants(names=arguments.libraries) as racing, tempfile.TemporaryDirectory() as folder:
        judge = Judge(model, scenes, Path(folder))
        for each, method, label, options in _entries(racing):
            row = f"{method}, {label}"
            if row in rows or (only and method not in only):
                continue
            try:
                rows[row] = judge.figures(each, method, **options)
            except Failure as failure:
                sys.stderr.write(f"{row}: {failure}\n")
            if not arguments.quick:
                save("digits_all", rows, notes)  # what was measured is kept when the rest is not
        rng = np.random.default_rng(0)
        noise = rng.random((len(judge.all.labels), SIZE, SIZE)).astype(np.float32)
        rows[f"noise, {HERE}"] = localisation(noise, judge.all.boxes, judge.all.others)
    rows[f"ceiling, {HERE}"] = _ceiling(scenes)
    if HERE in arguments.libraries and not arguments.quick:
        write_report("digits_transformer", *_transformer_rows(arguments.scenes, arguments.seed))
    if arguments.quick:
        sys.stdout.write(table(rows) + "\n")
        return
    methods = list(dict.fromkeys(row.partition(", ")[0] for row in rows))
    rows = dict(sorted(rows.items(), key=lambda row: methods.index(row[0].partition(", ")[0])))
    write_report("digits_all", rows, notes)
    write_report("digits", {method: _summary(rows, method) for method in methods}, notes)


def _transformer_rows(count: int, seed: int) -> tuple[dict[str, dict], str]:
    """The rows of the demo's transformer, whose layer is found, and how good it is."""
    model = load_digits_transformer()
    mean_precision, both_right = held_out_accuracy(model)
    scenes = scenes_got_right(model, count, seed)
    targets, few = Targets(scenes), Targets(scenes[:FEW_SCENES])
    rows = {}
    for method in OF_TRANSFORMERS:
        with getattr(pytorch_grad_cam, method)(model) as cam:
            maps = cam(targets.images, targets.labels.tolist())
            of_few = cam(few.images, few.labels.tolist())
        found = {"targets": len(maps), **localisation(maps, targets.boxes, targets.others)}
        rows[method] = found | faithfulness(model, few, of_few)
    return rows, f"held-out mAP {mean_precision:.3f}, both digits right in {both_right:.1%} of 2,000 scenes"


def _entries(racing: list[Contestant]) -> Iterator[tuple[Contestant, str, str, dict[str, str]]]:
    for each in racing:
        for method in each.methods():
            if "," not in method:
                yield each, method, each.name, {}
                if each.name == HERE and method not in HOURS_LONG:
                    yield each, method, REGISTERED, {"align": "receptive_field"}


def _summary(rows: dict[str, dict], method: str) -> dict[str, float | None]:
    """Hits of every library; the rest of ours."""
    found = {label: rows.get(f"{method}, {label}", {}) for label in (REGISTERED, *LIBRARIES)}
    hits = {f"hit, {label}": row.get("hit") for label, row in found.items()}
    best = found[REGISTERED] or found[HERE]
    return {**hits, **{column: best.get(column) for column in ("wrong", "energy", "IoU", "targets")}}


def _ceiling(scenes: list[Scene]) -> dict[str, float]:
    boxes = np.stack([scene.boxes for scene in scenes])
    first, second = boxes[:, 0], boxes[:, 1]
    return localisation(_on_grid(np.concatenate([first, second])), np.r_[first, second], np.r_[second, first])


if __name__ == "__main__":
    main()

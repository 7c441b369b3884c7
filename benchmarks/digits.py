"""Do the maps point at the digit that was asked about? `python -m benchmarks.digits` (needs scikit-learn).

Held-out scenes of the demo network that it gets right, both digits as targets. For each method: how often the map's
maximum lies in the target's box (hit) or in the other digit's box (wrong), the share of the map's sum inside the box
(energy), and the overlap of the map's upper half with the box (IoU). Last, the same for registered maps.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

import pytorch_grad_cam
from benchmarks.report import write_report
from pytorch_grad_cam.demo import load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.scenes import SIZE, Scene, make_scene
from pytorch_grad_cam.demo.train import held_out_accuracy

METHODS = (
    "GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "ShapleyCAM", "FullGrad",
    "EigenGradCAM", "SegEigenCAM", "AblationCAM", "ScoreCAM", "FinerCAM", "RefineCAM", "SESS", "EigenCAM", "KPCA_CAM",
    "FEM", "RandomCAM",
)  # fmt: skip
MINUTES_LONG = ("ScoreCAM", "SESS")
GRID = 8


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
    inside, inside_other = _filled(boxes), _filled(others)
    highest = maps.reshape(len(maps), -1).argmax(1)
    rows = np.arange(len(maps))
    upper = maps >= 0.5
    union = (upper | inside).sum((1, 2))
    figures = {
        "hit": inside.reshape(len(maps), -1)[rows, highest].mean(),
        "wrong": inside_other.reshape(len(maps), -1)[rows, highest].mean(),
        "energy": ((maps * inside).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-12)).mean(),
        "IoU": ((upper & inside).sum((1, 2)) / union).mean(),
    }
    return {name: float(figure) for name, figure in figures.items()}


def evaluate(maps_for: Callable[[torch.Tensor, np.ndarray], np.ndarray], scenes: list[Scene]) -> dict[str, float]:
    """The localisation of maps_for(images (N, 3, H, W), labels (N,)) over the scenes, for each of the two digits."""
    images = preprocess_scene(np.stack([scene.image for scene in scenes]))
    labels, boxes = np.stack([s.labels for s in scenes]), np.stack([s.boxes for s in scenes])
    maps = np.concatenate([maps_for(images, labels[:, digit]) for digit in (0, 1)])
    return localisation(maps, np.concatenate([boxes[:, 0], boxes[:, 1]]), np.concatenate([boxes[:, 1], boxes[:, 0]]))


def _filled(boxes: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    x0, y0, x1, y1 = (boxes[:, i, None, None] for i in range(4))
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def _on_grid(boxes: np.ndarray) -> np.ndarray:
    """The ceiling: the true box, drawn on the grid of the last layer and enlarged as a map is."""
    coarse = F.adaptive_avg_pool2d(torch.from_numpy(_filled(boxes)).float()[:, None], GRID)
    enlarged = F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")[:, 0].numpy()
    return enlarged / enlarged.max((1, 2), keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2)
    arguments = parser.parse_args()
    model = load_digits_net()
    mean_precision, both_right = held_out_accuracy(model)
    scenes = scenes_got_right(model, arguments.scenes, arguments.seed)
    rows: dict[str, dict[str, float]] = {"ceiling": _ceiling(scenes)}
    for name in METHODS:
        layers = {"FullGrad": [], "RefineCAM": [model.layer3[-1], model.layer4[-1]]}.get(name, [model.layer4[-1]])
        chosen = scenes[:48] if name in MINUTES_LONG else scenes
        rows[name] = {"targets": 2 * len(chosen)}
        for align, label in (("cell", ""), ("receptive_field", ", registered")):
            cam = getattr(pytorch_grad_cam, name)(model, layers, align=align)
            cam.batch_size = 128
            figures = evaluate(cam, chosen)
            rows[name].update({f"{figure}{label}": value for figure, value in figures.items()})
    rng = np.random.default_rng(0)
    rows["noise"] = evaluate(lambda images, _: rng.random((len(images), SIZE, SIZE)), scenes)
    notes = f"held-out mAP {mean_precision:.3f}, both digits right in {both_right:.1%} of 2,000 scenes"
    write_report("digits", rows, notes)


def _ceiling(scenes: list[Scene]) -> dict[str, float]:
    boxes = np.stack([scene.boxes for scene in scenes])
    first, second = boxes[:, 0], boxes[:, 1]
    return localisation(_on_grid(np.concatenate([first, second])), np.r_[first, second], np.r_[second, first])


if __name__ == "__main__":
    main()

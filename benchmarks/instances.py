"""Does the map of a box lie on its object, and not on one that looks alike? `python -m benchmarks.instances`.

Held-out scenes of four digits, at least two of one class, and the bundled detectors in three styles of heads. Asked for
are the detections that have the class of a digit and overlap it by half. How often the map's maximum lies in its own
digit's box (hit) or else in another's (wrong), the share of the map's sum inside its own box (energy), and, for some of
them, what is left of the detection (the highest IoU x score of its class, of 1) while the pixels are taken away in the
order of the map (deletion: the mean over the steps, lower is better). "named" are the levels of the pyramid.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.ops import box_iou

from benchmarks.report import rows_of, save, table, write_report
from pytorch_grad_cam import (
    ODAM,
    RISE,
    CamWarning,
    DetectionTarget,
    EigenCAM,
    GradCAM,
    HiResCAM,
    LayerCAM,
    Predictions,
    SSGradCAM,
)
from pytorch_grad_cam.demo.detectors import STYLES, Style, labels_of, load_digits_detector, preprocess_detector
from pytorch_grad_cam.demo.scenes import SIZE, Scene, make_scene
from pytorch_grad_cam.engine.detections.forms import detected
from pytorch_grad_cam.engine.detections.raw_predictions import raw_predictions_kept, suppressing_modules
from pytorch_grad_cam.engine.detections.similarity import Similarity

METHODS = {
    **{"LayerCAM": LayerCAM, "HiResCAM": HiResCAM, "ODAM": ODAM, "SSGradCAM": SSGradCAM},
    **{"GradCAM": GradCAM, "EigenCAM": EigenCAM},
}
NAMED = {
    "dense": ["backbone.fpn.layer_blocks.0", "backbone.fpn.layer_blocks.1"],
    "regions": ["backbone.fpn.layer_blocks.0"],
    "queries": ["backbone.fpn.layer_blocks.0"],
}
DIGITS = 4
STEPS = 8
FEW_SCENES = 5
MASKS = 200


def scenes_of(count: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [make_scene(rng, several=DIGITS) for _ in range(count)]


def predictions_of(model: nn.Module, images: torch.Tensor) -> list[Predictions]:
    with torch.no_grad(), raw_predictions_kept(suppressing_modules(model), None):
        found = detected(model, model(images), (SIZE, SIZE))
    assert found is not None
    return found.predictions


def found_digits(scene: Scene, style: Style, predictions: Predictions) -> dict[int, int]:
    """For each digit that was found the detection of its class that overlaps it most, by at least half."""
    which = predictions.detections()
    labels = predictions.labels.expand_as(predictions.scores).flatten()[which]
    overlap = box_iou(torch.from_numpy(scene.boxes).float(), predictions.boxes[predictions.row_of(which)])
    overlap = overlap * (labels_of(scene, style)[:, None] == labels)
    return {digit: int(row.argmax()) for digit, row in enumerate(overlap) if len(row) and row.max() >= 0.5}


def place_of(image_map: torch.Tensor, boxes: np.ndarray, digit: int) -> tuple[bool, bool, float]:
    """Hit, wrong and energy of one map."""
    y, x = divmod(int(image_map.argmax()), SIZE)
    inside = [bool(x0 <= x < x1 and y0 <= y < y1) for x0, y0, x1, y1 in boxes]
    x0, y0, x1, y1 = boxes[digit]
    energy = image_map[y0:y1, x0:x1].sum() / image_map.sum().clamp(min=1e-12)
    return inside[digit], not inside[digit] and any(inside), float(energy)


def deletion(model: nn.Module, image: torch.Tensor, image_map: torch.Tensor, target: Similarity) -> float:
    """What is left of a detection, of 1, the mean over the steps of taking pixels away."""
    order = image_map.flatten().argsort(descending=True, stable=True).argsort().reshape(image_map.shape)
    grey = image.mean((1, 2), keepdim=True)
    steps = [torch.where(order < step * order.numel() / STEPS, grey, image) for step in range(STEPS + 1)]
    left = torch.stack([target(each) for each in predictions_of(model, torch.stack(steps))])
    return float((left / left[0]).mean())


def figures(style: Style, model: nn.Module, make: Any, scenes: Sequence[Scene]) -> dict[str, Any]:
    """All columns of a row."""
    places, left, warned = [], [], False
    cam = make(model)
    for number, scene in enumerate(scenes):
        image = preprocess_detector(scene.image, style)
        (predictions,) = predictions_of(model, image)
        found = found_digits(scene, style, predictions)
        if not found:
            continue
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always")
            maps = cam(image, [[DetectionTarget(which) for which in found.values()]], as_tensor=True)[0]
        warned = warned or any(isinstance(each.message, CamWarning) and "alike" in str(each.message) for each in issued)
        which = predictions.detections()[list(found.values())]
        labels = predictions.labels.expand_as(predictions.scores).flatten()[which].tolist()
        boxes = predictions.boxes[predictions.row_of(which)].tolist()
        for digit, image_map, box, label in zip(found, maps, boxes, labels, strict=True):
            places.append(place_of(image_map, scene.boxes, digit))
            if number < FEW_SCENES:
                left.append(deletion(model, image[0], image_map, Similarity(box, label)))
    hit, wrong, energy = np.mean(places, axis=0).tolist()
    row = {"boxes": len(places), "hit": hit, "wrong": wrong, "energy": energy, "deletion": float(np.mean(left))}
    return {**row, "warns": "yes" if warned else ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=STYLES)
    parser.add_argument("--add", action="store_true", help="to the rows of an earlier run that was stopped")
    arguments = parser.parse_args()
    rows = rows_of("instances") if arguments.add else {}
    scenes = scenes_of(arguments.scenes, arguments.seed)
    for style in arguments.styles:
        model = load_digits_detector(style)
        makers: dict[str, Any] = {}
        for name, method in METHODS.items():
            makers[f"{style}, {name}"] = method
            makers[f"{style}, {name}, named"] = partial(method, target_layers=NAMED[style])
        for name, make in makers.items():
            if name not in rows:
                rows[name] = figures(style, model, make, scenes)
                save("instances", rows)
        if f"{style}, RISE" not in rows:
            rows[f"{style}, RISE"] = figures(style, model, partial(RISE, masks=MASKS), scenes[:FEW_SCENES])
            save("instances", rows)
        sys.stderr.write(table(rows) + "\n")
    notes = f"{arguments.scenes} scenes, seed {arguments.seed}; RISE: {MASKS} masks, {FEW_SCENES} scenes"
    write_report("instances", rows, notes)


if __name__ == "__main__":
    main()

"""At which layer does the map of a digit lie on it, and not on another one? `python -m benchmarks.segmentation`.

Held-out scenes of two digits and the bundled U-Net. Asked for are the digits whose class is predicted on them (with an
intersection over union of at least a half), each by its class, where it is predicted. The share of the map's sum inside
the digit's own box (own), inside the other's (other) and on the digit's ink, the means over the digits; "found" is the
layer that is taken where none is named.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.report import rows_of, save, table, write_report
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, SegXResCAM, XGradCAM
from pytorch_grad_cam.demo.network import preprocess_scene
from pytorch_grad_cam.demo.scenes import Scene, make_scene
from pytorch_grad_cam.demo.segmenter import DigitsUNet, load_digits_segmenter

METHODS: dict[str, Any] = {
    "GradCAM": GradCAM,
    "HiResCAM": HiResCAM,
    "LayerCAM": LayerCAM,
    "SegXResCAM": SegXResCAM,
    "SegXResCAM, mean of 8 x 8": partial(SegXResCAM, window=8, pool="mean"),
    "XGradCAM": XGradCAM,
    "GradCAM++": GradCAMPlusPlus,
    "EigenCAM": EigenCAM,
}
LAYERS = {
    "found": None,  # up3
    "encoder's end": "encoder.layer4",
    "decoder's second level": "up2",
    "decoder's end": "up1",
    "stem": "encoder.layer1",
}
LEAST_OVERLAP = 0.5


def found_digits(scene: Scene, predicted: np.ndarray) -> list[int]:
    """The digits whose class is predicted on them."""
    overlaps = []
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        of_class = predicted == label
        overlaps.append((of_class & mask).sum() / (of_class | mask).sum())
    return [digit for digit, overlap in enumerate(overlaps) if overlap >= LEAST_OVERLAP]


def shares_of(image_map: np.ndarray, scene: Scene, digit: int) -> tuple[float, float, float]:
    """The shares of a map's sum in the digit's box, in the other's, and on its ink."""
    whole = max(float(image_map.sum()), 1e-12)
    in_boxes = [float(image_map[y0:y1, x0:x1].sum()) / whole for x0, y0, x1, y1 in scene.boxes]
    return in_boxes[digit], in_boxes[1 - digit], float(image_map[scene.masks[digit]].sum()) / whole


def figures(model: DigitsUNet, make: Any, layer: str | None, scenes: Sequence[Scene]) -> dict[str, Any]:
    """All columns of a row."""
    images = preprocess_scene(np.stack([scene.image for scene in scenes]))
    with torch.no_grad():
        predicted = model(images).argmax(1).numpy()
    cam = make(model, layer, check_place=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted nowhere
        maps = cam(images, [scene.labels.tolist() for scene in scenes])
    places = [
        shares_of(maps[number, digit], scene, digit)
        for number, scene in enumerate(scenes)
        for digit in found_digits(scene, predicted[number])
    ]
    own, other, ink = np.mean(places, axis=0).tolist()
    layers = cam.location.name if layer is None and cam.location else layer
    return {"layer": layers, "digits": len(places), "own": own, "other": other, "ink": ink}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--add", action="store_true", help="to the rows of an earlier run that was stopped")
    arguments = parser.parse_args()
    rows = rows_of("segmentation") if arguments.add else {}
    rng = np.random.default_rng(arguments.seed)
    scenes = [make_scene(rng) for _ in range(arguments.scenes)]
    model = load_digits_segmenter()
    for where, layer in LAYERS.items():
        for name, make in METHODS.items():
            if f"{where}, {name}" not in rows:
                rows[f"{where}, {name}"] = figures(model, make, layer, scenes)
                save("segmentation", rows)
        sys.stderr.write(table(rows) + "\n")
    write_report("segmentation", rows, f"{arguments.scenes} scenes, seed {arguments.seed}")


if __name__ == "__main__":
    main()

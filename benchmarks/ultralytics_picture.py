"""Is ultralytics' own heat map ours? `python -m benchmarks.ultralytics_picture`, by ultralytics 8.4.190.

It draws LayerCAM at the inputs of the head, each level and prediction scaled to its maximum, and takes the maximum of
all, for the predictions above a threshold. Here the same predictions are asked for one by one: `BoxTarget` of their
boxes and classes, the layers that feed the head named, the levels joined by their maximum. Random weights of small
configurations, in an environment with ultralytics; what ultralytics would draw is taken before it is rounded to bytes.

Our maps begin at 0, theirs at their lowest value, which is above it where a level has evidence at all positions: the
second column is with maps of ours that are only divided by their maximum.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import nn

from benchmarks.peers import environment_of
from benchmarks.report import write_report
from pytorch_grad_cam import BoxTarget, LayerCAM
from pytorch_grad_cam.engine.maps import min_max

MODELS = ("yolov3-tiny", "yolov5n", "yolov8n", "yolov8n-seg", "yolov8n-pose", "yolo11n", "yolo11n-obb", "yolo12n")
KINDS = {"seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel"}
LIBRARIES = ("ultralytics==8.4.190", "ultralytics-thop", "opencv-python-headless")
CONFIDENCE, MOST = 0.25, 16


def network(name: str) -> nn.Module:
    """With random weights, normalised by what random images give, whose scores lie around the threshold."""
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    model = getattr(tasks, KINDS.get(name.rpartition("-")[2], "DetectionModel"))(f"{name}.yaml", nc=5, verbose=False)
    head = model.model[-1]
    for tower in head.cv3:
        last = tower[-1]
        nn.init.normal_(last.weight, std=0.1)
        nn.init.constant_(last.bias, -3.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 192, 256, generator=torch.Generator().manual_seed(2)))
    return model.eval().requires_grad_(False)


def theirs(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The heat maps (N, H, W) that ultralytics draws, before they are rounded."""
    from ultralytics.utils.plotting import class_activation_map

    wrapped = _AutoBackend(model)
    kept: list[torch.Tensor] = []
    rounded = torch.Tensor.byte

    def byte(values: torch.Tensor) -> torch.Tensor:
        kept.append(values.detach() / 255)
        return rounded(values)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(torch.Tensor, "byte", byte):
        paths = [f"{number}.jpg" for number in range(len(images))]
        class_activation_map(wrapped, images, paths, Path(folder), conf=CONFIDENCE, topk=MOST)
    return kept[0]


class _AutoBackend(nn.Module):
    """The model where ultralytics' predictor has it: `.model.model[-1]` is the head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images)


def ours(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The maximum over the same predictions."""
    feeding = [model.model[number] for number in model.model[-1].f]
    with LayerCAM(model, feeding, check_place=False) as cam:
        cam.aggregate_multi_layers = _levels_at_their_maximum
        cam(images, 0)
        targets = [[*map(_target_of, _best_of(each))] for each in cam.predictions]
        maps = [
            cam(image[None], [of_image], as_tensor=True)[0] for image, of_image in zip(images, targets, strict=True)
        ]
    return torch.stack([of_image.amax(0) for of_image in maps])


def _levels_at_their_maximum(of_layers: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([*map(min_max, of_layers)], dim=1).amax(1)


def _divided(maps: torch.Tensor) -> torch.Tensor:
    """What is positive of each map, divided by its maximum."""
    positive = maps.relu()
    highest = positive.flatten(1).amax(1).clamp(min=1e-7)
    return positive / highest.reshape(-1, *[1] * (maps.ndim - 1))


def _best_of(predictions: Any) -> list[SimpleNamespace]:
    """Of each cell its best class, above the threshold or the very best."""
    logits, labels = predictions.logits.max(1)
    rows = logits.argsort(descending=True)[:MOST].tolist()
    chosen = [row for row in rows if logits[row].sigmoid() >= CONFIDENCE] or rows[:1]
    return [SimpleNamespace(box=predictions.boxes[row].tolist(), label=int(labels[row])) for row in chosen]


def _target_of(prediction: SimpleNamespace) -> BoxTarget:
    return BoxTarget(prediction.box, prediction.label)


def compared(name: str) -> dict[str, Any]:
    model = network(name)
    images = torch.rand(2, 3, 192, 256, generator=torch.Generator().manual_seed(1))
    found, expected = ours(model, images), theirs(model, images)
    with (
        mock.patch("pytorch_grad_cam.base_cam.scaled_evidence", _divided),
        mock.patch(f"{__name__}.min_max", _divided),
    ):
        divided = ours(model, images)
    return {
        "greatest difference": float((found - expected).abs().max()),
        "not from 0": float((divided - expected).abs().max()),
        "predictions": sum(len(_best_of(each)) for each in _predictions(model, images)),
        "mean of theirs": float(expected.mean()),
    }


def _predictions(model: nn.Module, images: torch.Tensor) -> Any:
    cam = LayerCAM(model)
    cam(images, 0)
    return cam.predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", action="store_true", help="ultralytics is there: compare, in this interpreter")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    if not options.here:
        python = environment_of(LIBRARIES[0], "--no-deps", *LIBRARIES[1:])
        command = [python, "-m", "benchmarks.ultralytics_picture", "--here", "--models", *options.models]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        return
    rows = {name: compared(name) for name in options.models}
    write_report("ultralytics_picture", rows, "random weights, two images of 192 x 256, ultralytics 8.4.190")


if __name__ == "__main__":
    main()

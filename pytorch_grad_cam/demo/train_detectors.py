"""Train the demo detectors: `python -m pytorch_grad_cam.demo.train_detectors --output folder` (needs scikit-learn).

All styles of heads by one recipe: scenes of four digits, at least two of them of one class; the stages of the demo
network stay as they are, so that what they give is computed once for each scene.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss
from tqdm import tqdm

from pytorch_grad_cam.demo.detectors import (
    STYLES,
    DigitsPyramid,
    Style,
    head_of,
    labels_of,
    load_digits_detector,
    preprocess_detector,
    pyramid_of,
    untrained,
    weights_of,
)
from pytorch_grad_cam.demo.scenes import SIZE, Scene, make_scene
from pytorch_grad_cam.demo.training import descend, maps_of_scenes
from pytorch_grad_cam.engine.detections.forms import detected

DIGITS = 4


def scenes_of(split: str, count: int, seed: int) -> list[Scene]:
    """So many scenes of four digits."""
    rng = np.random.default_rng(seed)
    return [make_scene(rng, split, several=DIGITS) for _ in tqdm(range(count), "scenes", mininterval=10)]


def boxes_of(scene: Scene) -> torch.Tensor:
    return torch.from_numpy(scene.boxes).float()


def loss_of(model: nn.Module, style: Style, scenes: Sequence[Scene]) -> torch.Tensor:
    """The loss of a batch: torchvision's own, or that of the queries."""
    images = preprocess_detector(np.stack([scene.image for scene in scenes]), style)
    if style == "queries":
        return torch.stack(
            [_loss_of_queries(*each) for each in zip(*model(images).values(), scenes, strict=True)]
        ).mean()
    losses: dict[str, torch.Tensor] = model(
        list(images), [{"boxes": boxes_of(scene), "labels": labels_of(scene, style)} for scene in scenes]
    )
    return torch.stack(list(losses.values())).sum()


def _loss_of_queries(logits: torch.Tensor, boxes: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Each digit has one query, so that the sum of what they cost is least (Carion et al. 2020, arXiv:2005.12872)."""
    from scipy.optimize import linear_sum_assignment

    truth, labels = boxes_of(scene) / SIZE, torch.from_numpy(scene.labels)
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
    away, apart = torch.cdist(corners, truth, p=1), 1 - generalized_box_iou(corners, truth)
    cost = -2 * logits.sigmoid()[:, labels] + 5 * away + 2 * apart
    queries, digits = map(torch.from_numpy, linear_sum_assignment(cost.detach().numpy()))
    wanted = torch.zeros_like(logits)
    wanted[queries, labels[digits]] = 1
    of_classes = sigmoid_focal_loss(logits, wanted, reduction="sum") / DIGITS
    loss: torch.Tensor = 2 * of_classes + 5 * away[queries, digits].mean() + 2 * apart[queries, digits].mean()
    return loss


def train(model: nn.Module, style: Style, scenes: Sequence[Scene], epochs: int, batch_size: int = 32) -> nn.Module:
    """The detector when it has seen each of the scenes so many times; the learning rate follows one cycle."""
    stages = maps_of_scenes(DigitsPyramid().eval().stages, scenes)
    pyramid = pyramid_of(model)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, weight_decay=1e-3)
    order = torch.cat([torch.randperm(len(scenes)) for _ in range(epochs)])
    batches = order.split(batch_size)
    model.train()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=len(batches), pct_start=0.1)
    for batch in (progress := tqdm(batches, style, unit="batch", mininterval=10)):
        fine, coarse = (maps[batch].float() for maps in stages)
        pyramid.stages = partial(_known, (fine, coarse))  # type: ignore[method-assign]
        loss = loss_of(model, style, [scenes[number] for number in batch.tolist()])
        descend(loss, learned, optimizer, schedule)
        progress.set_postfix(loss=f"{loss.item():.3f}")
    del pyramid.stages
    return model.eval()


def _known(maps: tuple[torch.Tensor, torch.Tensor], images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return maps


def held_out_recall(model: nn.Module, style: Style, scenes: Sequence[Scene]) -> tuple[float, float]:
    """The share of digits with a detection of their class that overlaps them by half, and how many detections are
    reported for each digit.
    """
    found = reported = 0
    for scene in scenes:
        with torch.no_grad():
            outputs = model(preprocess_detector(scene.image, style))
        forms = detected(model, outputs, (SIZE, SIZE))
        assert forms is not None
        predictions = forms.predictions[0]
        which = predictions.detections()
        labels = predictions.labels.expand_as(predictions.scores).flatten()[which]
        overlap = box_iou(boxes_of(scene), predictions.boxes[predictions.row_of(which)])
        same = labels_of(scene, style)[:, None] == labels
        found += int(((overlap > 0.5) & same).any(1).sum())
        reported += len(which)
    return found / (DIGITS * len(scenes)), reported / (DIGITS * len(scenes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights of the heads, as float16")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=STYLES)
    parser.add_argument("--scenes", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--resume", action="store_true", help="go on with the bundled weights")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scenes, held_out = scenes_of("train", arguments.scenes, arguments.seed), scenes_of("test", 200, arguments.seed + 1)
    for style in arguments.styles:
        torch.manual_seed(arguments.seed)
        model = load_digits_detector(style) if arguments.resume else untrained(style)
        model = train(model, style, scenes, arguments.epochs, arguments.batch_size)
        torch.save(head_of(model), arguments.output / weights_of(style))
        recall, reported = held_out_recall(model, style, held_out)
        tqdm.write(f"{style}: {recall:.1%} of held-out digits are found; detections for each: {reported:.2f}")


if __name__ == "__main__":
    main()

"""Where the evidence lies is known: `python -m benchmarks.volumes`, volumes and clips by method and layer.

Volumes of 24 x 24 x 24 with blobs and vessels (bent tubes) in noise, for a classifier that says which are there and a
U-Net that says where; clips of 8 frames with two moving digits of different classes. The networks are trained here, in
some minutes. Of each structure of held-out samples with both: how often the map's maximum lies on it (hit; ties are
shared) or on the other one (wrong), and the share of the map's sum on it (energy), all within two voxels around it.
"share" is the size of that part: the energy of a map that says nothing. And how far the map that is stitched from
windows is from that of the whole volume, highest and mean difference, and how many voxels the networks were shown for
it, as a multiple of the volume's; "default" measures how far a cell sees.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.report import write_report
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, SlidingWindowCAM, XGradCAM
from pytorch_grad_cam.demo.scenes import source_digits
from pytorch_grad_cam.metrics.localisation import energy_pointing_game, pointing_game

METHODS = (GradCAM, GradCAMPlusPlus, XGradCAM, HiResCAM, LayerCAM)
STITCHED = (GradCAM, GradCAMPlusPlus, HiResCAM)  # mean gradients, also divided by the channels' sums, and each cell's
SIDE = 24  # of a volume
WHOLE = 64  # of a volume that is cut into windows
WINDOWS: dict[str, dict[str, Any]] = {
    "24, as MONAI's": {"roi_size": 24, "context": 0},
    "24, context 16": {"roi_size": 24, "context": 16},
    "40, as MONAI's": {"roi_size": 40, "context": 0},
    "40, default": {"roi_size": 40},
    "48, default": {"roi_size": 48},
}
FRAMES, HEIGHT, DIGITS = 8, 32, 5  # of a clip
AROUND = 2  # voxels, of a structure
Sample = tuple[
    np.ndarray, np.ndarray, list[np.ndarray]
]  # image (C, *spatial), labels (classes,), a mask for each class


def volume_of(rng: np.random.Generator, both: bool, size: int = SIDE, copies: int = 1) -> Sample:
    """Noise with blobs (class 0), vessels (class 1) or both."""
    image = 0.3 * rng.standard_normal((size, size, size))
    present = np.array([True, True]) if both else rng.random(2) < 0.5
    masks = [np.zeros(image.shape, bool) for _ in range(2)]
    for _ in range(copies):
        if present[0]:
            masks[0] |= _ball(size, rng.uniform(5, size - 5, 3), rng.uniform(2.5, 4))
        if present[1]:
            masks[1] |= _tube(size, rng)
    masks[1] &= ~masks[0]
    for mask in masks:
        image[mask] += 1
    return image[None].astype(np.float32), present.astype(np.float32), masks


def _ball(size: int, centre: np.ndarray, radius: float) -> np.ndarray:
    places = np.mgrid[:size, :size, :size] - centre[:, None, None, None]
    return (places**2).sum(0) <= radius**2


def _tube(size: int, rng: np.random.Generator) -> np.ndarray:
    """A thin tube along a bent line through a third of the volume."""
    point, direction = rng.uniform(6, size - 6, 3), rng.standard_normal(3)
    mask = np.zeros((size, size, size), bool)
    for _ in range(14):
        direction = direction / np.linalg.norm(direction) + 0.25 * rng.standard_normal(3)
        mask |= _ball(size, point, 1.3)
        point = (point + direction / np.linalg.norm(direction)).clip(1, size - 2)
    return mask


def clip_of(rng: np.random.Generator, split: str) -> Sample:
    """A clip of two digits of different classes that move on straight lines, in noise."""
    image = 0.2 * rng.standard_normal((FRAMES, HEIGHT, HEIGHT))
    masks = [np.zeros(image.shape, bool) for _ in range(DIGITS)]
    labels = rng.choice(DIGITS, 2, replace=False)
    for half, label in enumerate(labels):
        digits = source_digits(split)[label]
        digit = digits[rng.integers(len(digits))].repeat(2, 0).repeat(2, 1)[:14, :14]
        height, width = digit.shape
        x, velocity = rng.uniform(0, HEIGHT - width), rng.uniform(-2, 2)
        y = half * HEIGHT // 2 + rng.uniform(0, HEIGHT // 2 - height)
        for frame in range(FRAMES):
            left = round(abs((x + velocity * frame) % (2 * (HEIGHT - width)) - (HEIGHT - width)))
            place = frame, slice(round(y), round(y) + height), slice(left, left + width)
            image[place] += digit
            masks[label][place] |= digit > 0.3
    present = np.isin(np.arange(DIGITS), labels)
    return image[None].astype(np.float32), present.astype(np.float32), masks


def _stage(channels: int, out: int) -> nn.Sequential:
    layers = [nn.Conv3d(channels, out, 3, padding=1, bias=False), nn.BatchNorm3d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv3d(out, out, 3, padding=1, bias=False), nn.BatchNorm3d(out), nn.ReLU())


class Classifier(nn.Module):
    """Three stages; of clips time is not reduced."""

    def __init__(self, classes: int, step: tuple[int, int, int]) -> None:
        super().__init__()
        self.stage1, self.stage2, self.stage3 = _stage(1, 8), _stage(8, 16), _stage(16, 32)
        self.pool, self.head = nn.MaxPool3d(step), nn.Linear(32, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        deep = self.stage3(self.pool(self.stage2(self.pool(self.stage1(image)))))
        return self.head(deep.mean((2, 3, 4)))


class UNet(nn.Module):
    """Two reductions; scores of background, blob and vessel."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder1, self.encoder2, self.bottleneck = _stage(1, 8), _stage(8, 16), _stage(16, 32)
        self.decoder2, self.decoder1, self.head = _stage(48, 16), _stage(24, 8), nn.Conv3d(8, 3, 1)
        self.pool, self.up = nn.MaxPool3d(2), nn.Upsample(scale_factor=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.encoder1(image)
        second = self.encoder2(self.pool(first))
        deep = self.bottleneck(self.pool(second))
        shallow = self.decoder2(torch.cat([self.up(deep), second], 1))
        return self.head(self.decoder1(torch.cat([self.up(shallow), first], 1)))


def trained(model: nn.Module, make: Callable[[], Sample], steps: int) -> nn.Module:
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for _ in range(steps):
        images, labels, masks = zip(*(make() for _ in range(8)), strict=True)
        scores = model(torch.from_numpy(np.stack(images)))
        if scores.ndim == 2:
            loss = F.binary_cross_entropy_with_logits(scores, torch.from_numpy(np.stack(labels)))
        else:
            classes = np.stack([first + 2 * second for first, second in masks]).astype(np.int64)
            loss = F.cross_entropy(scores, torch.from_numpy(classes), torch.tensor([0.2, 1.0, 1.0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    sys.stderr.write(f"{type(model).__name__}: loss {loss.item():.3f}\n")
    return model.eval()


def widened(mask: np.ndarray) -> np.ndarray:
    """The mask with what lies within some voxels of it."""
    size = 2 * AROUND + 1
    return F.max_pool3d(torch.from_numpy(mask)[None, None].float(), size, 1, AROUND)[0, 0].numpy() > 0


def rows_of(
    model: nn.Module, samples: Sequence[Sample], layers: Sequence[str | None], offset: int, label: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """A row for each layer and method. offset: from the number of a mask to that of its class."""
    images = torch.from_numpy(np.stack([image for image, _, _ in samples]))
    asked = [np.flatnonzero(labels) for _, labels, _ in samples]
    pairs = [
        (row, number, int(other[0])) for row, of in enumerate(asked) for number in of for other in [of[of != number]]
    ]
    own = np.stack([widened(samples[row][2][number]) for row, number, _ in pairs])
    others = np.stack(
        [widened(samples[row][2][other]) & ~mask for (row, _, other), mask in zip(pairs, own, strict=True)]
    )
    targets = [[int(number) + offset for number in of] for of in asked]
    for layer in layers:
        for method in METHODS:
            cam = method(model, layer)
            maps = cam(images, targets)
            maps = maps.reshape(-1, *maps.shape[2:])
            shown = (cam.location.name + " (found)") if layer is None else layer
            figures = {
                "hit": pointing_game(maps, own),
                "wrong": pointing_game(maps, others),
                "energy": energy_pointing_game(maps, own),
                "share": own.mean(),
            }
            row = {name: f"{np.mean(np.asarray(figure)):.2f}" for name, figure in figures.items()}
            yield f"{label}, {shown}, {method.__name__}", row


def stitched_rows(
    model: nn.Module, layer: str, targets: Sequence[int], label: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """How far stitched maps of a volume are from that of the whole."""
    image, _, _ = volume_of(np.random.default_rng(5), True, WHOLE, 8)
    volume = torch.from_numpy(image)[None]
    shown: list[int] = []
    counting = model.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].numel()))
    for method in STITCHED:
        whole = [method(model, layer)(volume, target) for target in targets]
        for windows, options in WINDOWS.items():
            shown.clear()
            maps = [SlidingWindowCAM(model, layer, base_method=method, **options)(volume, target) for target in targets]
            apart = np.abs(np.subtract(maps, whole))
            row = {"highest": f"{apart.max():.3f}", "mean": f"{apart.mean():.4f}"}
            cost = sum(shown) / len(targets) / volume.numel()
            yield f"{label}, {layer}, {method.__name__}, {windows}", row | {"shown": f"{cost:.0f}"}
    counting.remove()


def kept_rows(file: Path | None, make: Callable[[], Iterator[tuple[str, dict[str, str]]]]) -> dict[str, dict[str, str]]:
    """The rows in a file; where it is not there they are made, and kept there."""
    if file is not None and file.exists():
        return dict(json.loads(file.read_text()))
    rows = {}
    for label, row in make():
        rows[label] = row
        sys.stderr.write(f"{label}: {row}\n")
    if file is not None:
        file.write_text(json.dumps(rows))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250, help="of the training of each network")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="what there is already, and where to add the rest")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    keep: Path | None = arguments.keep
    if keep is not None:
        keep.mkdir(exist_ok=True)

    def network(name: str, model: nn.Module, make: Callable[[], Sample], steps: int) -> nn.Module:
        file = keep and keep / f"{name}.pt"
        if file is not None and file.exists():
            model.load_state_dict(torch.load(file))
            return model.eval()
        trained(model, make, steps)
        if file is not None:
            torch.save(model.state_dict(), file)
        return model

    def rows(name: str, make: Callable[[], Iterator[tuple[str, dict[str, str]]]]) -> dict[str, dict[str, str]]:
        return kept_rows(keep and keep / f"{name}.json", make)

    torch.manual_seed(0)
    rng, held_out = np.random.default_rng(0), np.random.default_rng(1)
    volumes = [volume_of(held_out, True) for _ in range(arguments.samples)]
    clips = [clip_of(held_out, "test") for _ in range(arguments.samples)]
    steps = arguments.steps
    of_volumes = network("classifier", Classifier(2, (2, 2, 2)), lambda: volume_of(rng, False), steps)
    unet = network("unet", UNet(), lambda: volume_of(rng, False), steps)
    stitched = rows("stitched_classifier", lambda: stitched_rows(of_volumes, "stage3", (0, 1), "classifier"))
    stitched |= rows("stitched_unet", lambda: stitched_rows(unet, "bottleneck", (1, 2), "U-Net"))
    write_report("volumes_stitched", stitched, f"{WHOLE}^3 voxels, windows of 24^3, 40^3 and 48^3, overlap 0.5")
    of_clips = network("clips", Classifier(DIGITS, (1, 2, 2)), lambda: clip_of(rng, "train"), 2 * steps)
    stages, levels = (
        ("stage1", "stage2", "stage3", None),
        ("encoder1", "encoder2", "bottleneck", "decoder2", "decoder1", None),
    )
    found = rows("of_classifier", lambda: rows_of(of_volumes, volumes, stages, 0, "volume, classifier"))
    found |= rows("of_unet", lambda: rows_of(unet, volumes, levels, 1, "volume, U-Net"))
    found |= rows("of_clips", lambda: rows_of(of_clips, clips, stages, 0, "clip, classifier"))
    write_report("volumes", found, f"{arguments.samples} held-out samples with two structures each")


if __name__ == "__main__":
    main()

"""The gallery: every method on the same scene, by a CNN, a vision transformer and a detector.

`python -m site_pages.gallery` draws its pictures anew into `docs/gallery/`, in some minutes, without a network: the CNN
and the detector come with the package, and the transformer reads the CNN's last map as its tokens (a hybrid ViT) and is
trained here, seeded. A method that a network's outputs or layers cannot have says so, and has no picture there.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.detectors import load_digits_detector, preprocess_detector
from pytorch_grad_cam.demo.scenes import CLASSES, make_scene
from pytorch_grad_cam.utils.image import show_cam_on_image
from site_pages import ROOT
from site_pages.families import FAMILIES, methods

FOLDER = ROOT / "docs/gallery"
COLUMNS = {"cnn": "CNN", "vit": "ViT", "detector": "Detector"}
ASKED = 5
_SIZE = 128  # pixels of a picture
_OPTIONS: dict[str, dict[str, Any]] = {
    "SESS": {"scales": [64, 96, 128], "window_size": 64, "step_size": 32},
    "RandomCAM": {"seed": 0},
}


class HybridViT(nn.Module):
    """The bundled network's last map as 64 tokens, a class token, and two blocks of a transformer."""

    def __init__(self, width: int = 64, depth: int = 2) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.backbone = nn.Sequential(*list(load_digits_net().children())[:-2]).requires_grad_(False)
        self.project = nn.Linear(128, width)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 65, width))
        self.blocks = nn.Sequential(*(Block(width, 4, qkv_bias=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.of_features(self.backbone(images).flatten(2).mT)

    def of_features(self, features: torch.Tensor) -> torch.Tensor:
        """The logits (N, 10) of the backbone's cells (N, 64, 128)."""
        tokens = torch.cat([self.class_token.expand(len(features), -1, -1), self.project(features)], dim=1)
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens + self.positions))[:, 0])
        return logits


def trained_vit(scenes: int = 2000, steps: int = 500) -> HybridViT:
    """The transformer, its head and blocks trained on scenes of digits; about half a minute."""
    torch.manual_seed(0)
    rng, model = np.random.default_rng(0), HybridViT()
    drawn = [make_scene(rng) for _ in range(scenes)]
    truth = torch.stack([torch.zeros(CLASSES).index_fill_(0, torch.as_tensor(each.labels), 1) for each in drawn])
    model.eval()
    with torch.no_grad():
        images = preprocess_scene(np.stack([each.image for each in drawn])).split(100)
        features = torch.cat([model.backbone(batch) for batch in images]).flatten(2).mT
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)
    for step in range(steps):
        rows = torch.randint(scenes, (64,))
        loss = nn.functional.binary_cross_entropy_with_logits(model.of_features(features[rows]), truth[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            sys.stderr.write(f"training the transformer: step {step}, loss {loss.item():.3f}\n")
    return model


class Network(NamedTuple):
    """x: the example scene as the model takes it. target: the digit that is asked for."""

    model: nn.Module
    x: Any
    target: Any


def networks() -> dict[str, Callable[[], Network]]:
    """Of each column of the gallery its network."""
    scene = example_scene()
    return {
        "cnn": lambda: Network(load_digits_net(), preprocess_scene(scene), ASKED),
        "vit": lambda: Network(trained_vit(), preprocess_scene(scene), ASKED),
        "detector": lambda: Network(load_digits_detector("dense"), preprocess_detector(scene), ASKED + 1),
    }


def page() -> str:
    """The table of the pictures that are there, family by family."""
    parts = []
    for family, members in methods().items():
        rows = [
            f"| [{method.__name__}](methods/{method.__name__}.md) | {' | '.join(_cells(method.__name__, 'gallery'))} |"
            for method in members
            if any(_cells(method.__name__, "gallery"))
        ]
        if rows:
            head = f"| | {' | '.join(COLUMNS.values())} |\n| --- |{' --- |' * len(COLUMNS)}"
            parts += [f"## {FAMILIES[family]}", "\n".join([head, *rows])]
    return "\n\n".join(parts)


def strip(name: str) -> str:
    """The pictures of a method beside each other, for its card."""
    if not any(_cells(name, "../gallery")):
        return ""
    head = f"| {' | '.join(COLUMNS.values())} |\n|{' --- |' * len(COLUMNS)}"
    return f"{head}\n| {' | '.join(_cells(name, '../gallery'))} |"


def _cells(name: str, folder: str) -> list[str]:
    there = {column: (FOLDER / column / f"{name}.jpg").exists() for column in COLUMNS}
    return [
        f"![{name}, {COLUMNS[column]}]({folder}/{column}/{name}.jpg)" if there[column] else "" for column in COLUMNS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="names of methods; default: all")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=COLUMNS)
    options = parser.parse_args()
    every = [method for family, members in methods().items() for method in members if family != "others"]
    every = [method for method in every if options.only is None or method.__name__ in options.only]
    for column in options.columns:
        network = networks()[column]()
        (FOLDER / column).mkdir(parents=True, exist_ok=True)
        for method in every:
            _draw(method, network, column)


def _draw(method: Any, network: Network, column: str) -> None:
    file = FOLDER / column / f"{method.__name__}.jpg"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a map says little about is seen in the picture
        try:
            cam = method(network.model, **_OPTIONS.get(method.__name__, {}))
            heat = np.asarray(cam(network.x, network.target)).reshape(64, 64)
        except (ValueError, TypeError) as refused:
            sys.stderr.write(f"{column}, {method.__name__}: {refused}\n")
            return
    overlay = Image.fromarray(show_cam_on_image(example_scene(), heat, use_rgb=True))
    overlay.resize((_SIZE, _SIZE), Image.Resampling.NEAREST).save(file, quality=80)
    sys.stderr.write(f"wrote {file.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()

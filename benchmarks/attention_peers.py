"""Are LeGrad's maps those of public implementations? `python -m benchmarks.attention_peers`.

torch-cam's LeGrad on a vision transformer of torchvision, and the authors' own package, legrad-torch, on one of
OpenCLIP, both with random weights: of all images and targets the largest difference of two maps in [0, 1], drawn at
the image's size. They are no dependencies of ours: `pip install torchcam legrad-torch` (which brings open-clip-torch);
what is not installed is left out.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from benchmarks.report import write_report
from pytorch_grad_cam import LeGrad
from pytorch_grad_cam.engine.maps import min_max, resize
from pytorch_grad_cam.zoo.text_classifier import classifier_of_texts

IMAGES, SIZE, PATCH, CLASSES, BLOCKS = 3, 64, 16, 5, 4


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of_torch_cam(layers: int) -> float:
    """Of the last so many blocks."""
    from torchcam.methods import LeGrad as TheirLeGrad
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model: Any = VisionTransformer(SIZE, PATCH, BLOCKS, 2, 32, 64, num_classes=CLASSES).eval()
    nn.init.normal_(model.heads.head.weight)  # zeros at first
    images, blocks = noise(IMAGES, 3, SIZE, SIZE, seed=1), list(model.encoder.layers)[-layers:]
    ours = LeGrad(model, blocks, check_place=False)(images, [[*range(CLASSES)]] * IMAGES, as_tensor=True)
    differences = []
    for number, image in enumerate(images):
        for category in range(CLASSES):
            with TheirLeGrad(model, blocks) as cam:
                theirs = cam(category, model(image[None]))[0]
            drawn = resize(theirs.detach().reshape(1, 1, *theirs.shape[-2:]), (SIZE, SIZE))[:, 0]
            differences.append((ours[number, category] - min_max(drawn)[0]).abs().max())
    return float(max(differences))


def of_legrad_torch() -> float:
    """Of the last two blocks, as in the authors' code."""
    import legrad
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": SIZE, "layers": BLOCKS, "width": 32, "head_width": 16, "patch_size": PATCH}
    text = {"context_length": 8, "vocab_size": 99, "width": 32, "heads": 2, "layers": 2}
    model: Any = open_clip.CLIP(24, vision, text).eval()
    images, texts = noise(IMAGES, 3, SIZE, SIZE, seed=1), nn.functional.normalize(noise(CLASSES, 24, seed=2), dim=1)
    with_texts = classifier_of_texts(model, texts, None, lambda image: image).model
    ours = LeGrad(with_texts, check_place=False)(images, [[*range(CLASSES)]] * IMAGES, as_tensor=True)
    theirs_of = copy.deepcopy(model)
    for block in theirs_of.visual.transformer.resblocks:
        block.attn.batch_first = False  # they hand tokens (T, N, C) on, as OpenCLIP 2.23 did
    with silent():
        wrapped = legrad.LeWrapper(theirs_of, layer_index=-2)
    differences = []
    for image, of_image in zip(images, ours, strict=True):
        for category in range(CLASSES):
            theirs = wrapped.compute_legrad_clip(texts[category : category + 1], image[None]).detach()
            differences.append((of_image[category] - theirs.reshape(SIZE, SIZE)).abs().max())
    return float(max(differences))


@contextmanager
def silent() -> Iterator[None]:
    """Their wrapper prints."""
    with open(os.devnull, "w") as nowhere:
        said, sys.stdout = sys.stdout, nowhere
        try:
            yield
        finally:
            sys.stdout = said


def rows(names: Sequence[str] = ("torchcam", "legrad")) -> dict[str, dict[str, float]]:
    """Of the packages that are installed."""
    found: dict[str, dict[str, float]] = {}
    installed = [name for name in names if importlib.util.find_spec(name) is not None]
    if "torchcam" in installed:
        for layers in (1, 2, BLOCKS):
            found[f"torch-cam, torchvision's ViT, last {layers} blocks"] = {"largest difference": of_torch_cam(layers)}
    if "legrad" in installed:
        found["legrad-torch, OpenCLIP"] = {"largest difference": of_legrad_torch()}
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    found = rows()
    if not found:
        sys.exit("neither torchcam nor legrad-torch is installed")
    write_report("attention_peers", found, f"{IMAGES} images, {CLASSES} targets each, random weights")


if __name__ == "__main__":
    main()

"""Train the demo's transformer: `python -m pytorch_grad_cam.demo.train_transformer --output transformer.pt`.

Needs scikit-learn. The stages of the demo network stay as they are, so that what they give is computed once for each
scene. Beside the class token, each token of the image learns to name the digit that lies on it (token labelling, Jiang
et al. 2021, https://arxiv.org/abs/2104.10858): so few scenes do not teach it otherwise.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer
from tqdm import tqdm

from pytorch_grad_cam.demo.scenes import CLASSES, Scene, make_scene
from pytorch_grad_cam.demo.train import held_out_accuracy, two_hot
from pytorch_grad_cam.demo.training import descend, maps_of_scenes
from pytorch_grad_cam.demo.transformer import GRID, WIDTH, digits_transformer, own_weights


def names_of_cells(scene: Scene) -> np.ndarray:
    """Of each token, the digits whose box covers its centre: (64, 10), of 0 and 1."""
    names = np.zeros((GRID, GRID, CLASSES), np.float32)
    for label, cells in zip(scene.labels, scene.cells(GRID), strict=True):
        names[cells, label] = 1
    return names.reshape(-1, CLASSES)


def train(scenes: Sequence[Scene], epochs: int, batch_size: int = 64, seed: int = 0) -> VisionTransformer:
    """The transformer when it has seen each scene so many times; the learning rate follows one cycle."""
    torch.manual_seed(seed)
    model, naming = digits_transformer(), nn.Linear(WIDTH, CLASSES)
    model.eval()
    (cells,) = maps_of_scenes(lambda images: [model.conv_proj.stages(images)], scenes)
    truth = torch.from_numpy(np.stack([two_hot(scene.labels) for scene in scenes]))
    names = torch.from_numpy(np.stack([names_of_cells(scene) for scene in scenes]))
    learned = [each for each in (*model.parameters(), *naming.parameters()) if each.requires_grad]
    optimizer = torch.optim.AdamW(learned, weight_decay=0.05)
    batches = torch.cat([torch.randperm(len(scenes)) for _ in range(epochs)]).split(batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=len(batches), pct_start=0.1)
    loss_of = nn.BCEWithLogitsLoss()
    model.train()
    for batch in (progress := tqdm(batches, unit="batch", mininterval=10)):
        of_image = model.conv_proj.patches(cells[batch].float()).flatten(2).mT
        tokens = model.encoder(torch.cat([model.class_token.expand(len(batch), -1, -1), of_image], dim=1))
        scores, named = model.heads(tokens[:, 0]), naming(tokens[:, 1:])
        loss = loss_of(scores, truth[batch]) + loss_of(named, names[batch])
        descend(loss, learned, optimizer, schedule)
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="file for the weights, as float16")
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    scenes = [make_scene(rng, "train") for _ in tqdm(range(arguments.scenes), "scenes", mininterval=10)]
    model = train(scenes, arguments.epochs, seed=arguments.seed)
    torch.save(own_weights(model), arguments.output)
    mean_precision, both_right = held_out_accuracy(model)
    tqdm.write(f"held-out mAP {mean_precision:.3f}, both digits right in {both_right:.1%} of scenes")


if __name__ == "__main__":
    main()

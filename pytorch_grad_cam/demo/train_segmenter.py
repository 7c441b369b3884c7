"""Train the demo U-Net: `python -m pytorch_grad_cam.demo.train_segmenter --output segmenter.pt` (needs scikit-learn).

Scenes of two and of four digits, with the full clutter; the encoder stays as it is.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pytorch_grad_cam.demo.network import preprocess_scene
from pytorch_grad_cam.demo.scenes import CLASSES, Scene, make_scene
from pytorch_grad_cam.demo.segmenter import BACKGROUND, DigitsUNet, classes_of, decoder_of

_OF_BACKGROUND = 0.3  # the weight of its pixels, nine in ten


def scenes_of(split: str, count: int, seed: int) -> list[Scene]:
    """So many scenes, of two and of four digits in turn."""
    rng = np.random.default_rng(seed)
    drawn = tqdm(range(count), "scenes", mininterval=10)
    return [make_scene(rng, split, several=4 if number % 2 else None) for number in drawn]


def images_of(scenes: Sequence[Scene]) -> torch.Tensor:
    """The network's input (N, 3, 64, 64)."""
    return preprocess_scene(np.stack([scene.image for scene in scenes]))


def truth_of(scenes: Sequence[Scene]) -> torch.Tensor:
    """The class of each pixel (N, 64, 64)."""
    return torch.from_numpy(np.stack([classes_of(scene) for scene in scenes]))


def train(scenes: Sequence[Scene], epochs: int, batch_size: int = 32, seed: int = 0) -> DigitsUNet:
    """The U-Net when it has seen each scene so many times; the learning rate follows one cycle."""
    torch.manual_seed(seed)
    model = DigitsUNet()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, weight_decay=1e-3)
    batches = torch.cat([torch.randperm(len(scenes)) for _ in range(epochs)]).split(batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=len(batches), pct_start=0.1)
    weights = torch.ones(CLASSES + 1)
    weights[BACKGROUND] = _OF_BACKGROUND
    loss_of = nn.CrossEntropyLoss(weights)
    model.train()
    model.encoder.eval()
    for batch in (progress := tqdm(batches, unit="batch", mininterval=10)):
        of_batch = [scenes[number] for number in batch.tolist()]
        loss = loss_of(model(images_of(of_batch)), truth_of(of_batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def held_out_overlap(model: nn.Module, scenes: Sequence[Scene]) -> float:
    """The mean of intersection over union, over all scenes together, of the digits' classes that are there."""
    with torch.no_grad():
        predicted = torch.cat([model(images_of(scenes[at : at + 50])).argmax(1) for at in range(0, len(scenes), 50)])
    truth = truth_of(scenes)
    overlaps = [
        ((predicted == digit) & (truth == digit)).sum() / ((predicted == digit) | (truth == digit)).sum()
        for digit in range(CLASSES)
    ]
    return float(torch.stack(overlaps).nanmean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="file to write the decoder's weights to, as float16")
    parser.add_argument("--scenes", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = train(scenes_of("train", arguments.scenes, arguments.seed), arguments.epochs, seed=arguments.seed)
    torch.save(decoder_of(model), arguments.output)
    overlap = held_out_overlap(model, scenes_of("test", 200, arguments.seed + 1))
    tqdm.write(f"held-out mean IoU of the digits: {overlap:.3f}")


if __name__ == "__main__":
    main()

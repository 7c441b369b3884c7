"""Train the demo's reader: `python -m pytorch_grad_cam.demo.train_reader --output reader.pt` (needs scikit-learn).

The encoder stays as it is, so that what it gives is computed once for each scene. The decoder learns to say the
digits from left to right; its image tokens learn to name what is on them, as those of large models do, which were
trained on far more images.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from pytorch_grad_cam.demo.reader import (
    END,
    FIRST_NUMERAL,
    GRID,
    IMAGE,
    PROMPT,
    WORDS,
    DigitsReader,
    ReaderProcessor,
    own_weights,
)
from pytorch_grad_cam.demo.scenes import Scene, make_scene
from pytorch_grad_cam.demo.training import descend, maps_of_scenes


def answer_to(scene: Scene) -> list[int]:
    """The tokens of the digits from left to right, and the end."""
    order = np.argsort(scene.boxes[:, [0, 2]].sum(1), kind="stable")
    return [FIRST_NUMERAL + int(label) for label in scene.labels[order]] + [END]


def names_of_cells(scene: Scene) -> np.ndarray:
    """For each cell of the encoder the token of the digit whose box covers its centre, else `IMAGE`: (256,)."""
    names = np.full((GRID, GRID), IMAGE)
    for label, cells in zip(scene.labels, scene.cells(GRID), strict=True):
        names[cells] = FIRST_NUMERAL + label
    return names.flatten()


def train(
    model: DigitsReader, scenes: Sequence[Scene], epochs: int, batch_size: int = 32, alignment: float = 0.3
) -> DigitsReader:
    """The reader when it has seen each of the scenes so many times; the learning rate follows one cycle.

    alignment: the weight of the loss by which image tokens name what is on them.
    """
    model.eval()
    (cells,) = maps_of_scenes(lambda images: [model.cells(images)], scenes)
    answers = torch.tensor([answer_to(scene) for scene in scenes])
    names = torch.from_numpy(np.stack([names_of_cells(scene) for scene in scenes]))
    prompt = torch.tensor([WORDS.index(word) for word in PROMPT.split()])
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, weight_decay=0.05)
    batches = torch.cat([torch.randperm(len(scenes)) for _ in range(epochs)]).split(batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=len(batches), pct_start=0.1)
    model.train()
    for batch in (progress := tqdm(batches, "reader", unit="batch", mininterval=10)):
        said = answers[batch]
        text = model.words(torch.cat([prompt.expand(len(batch), -1), said[:, :-1]], dim=1))
        seen = cells[batch].float()
        seen = seen + 0.1 * seen.std() * torch.randn_like(seen)
        logits = model.answered(torch.cat([model.project(seen), text], dim=1))["logits"]
        spelling = cross_entropy(logits[:, -said.shape[1] :].flatten(0, 1), said.flatten())
        naming = cross_entropy(logits[:, : GRID**2].flatten(0, 1), names[batch].flatten())
        descend(spelling + alignment * naming, learned, optimizer, schedule)
        progress.set_postfix(spelling=f"{spelling.item():.3f}", naming=f"{naming.item():.3f}")
    return model.eval()


def scenes_of(split: str, count: int, seed: int) -> list[Scene]:
    """So many scenes of two digits."""
    rng = np.random.default_rng(seed)
    return [make_scene(rng, split) for _ in tqdm(range(count), "scenes", mininterval=10)]


def held_out_accuracy(model: DigitsReader, scenes: Sequence[Scene]) -> float:
    """The share of scenes whose digits are all said in their order."""
    processor, right = ReaderProcessor(), 0
    for scene in scenes:
        ids, pixel_values = processor(scene.image).values()
        said = model.generate(ids, pixel_values)[0, ids.shape[1] :]
        right += said.tolist() == answer_to(scene)
    return right / len(scenes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="file for the weights, as float16")
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--alignment", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    scenes, held_out = scenes_of("train", arguments.scenes, arguments.seed), scenes_of("test", 300, arguments.seed + 1)
    model = train(DigitsReader(), scenes, arguments.epochs, alignment=arguments.alignment)
    torch.save(own_weights(model), arguments.output)
    tqdm.write(f"{held_out_accuracy(model, held_out):.1%} of held-out scenes are read without a mistake")


if __name__ == "__main__":
    main()

"""Train the demo network: `python -m pytorch_grad_cam.demo.train --output digits.pt` (needs scikit-learn).

Trained on the full clutter from the start the network does not leave mAP 0.3, so the scenes get harder only when
the network has mastered the easier ones.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from pytorch_grad_cam.demo.network import DigitsNet, preprocess_scene
from pytorch_grad_cam.demo.scenes import CLASSES, make_scene

_LEVELS = 10
_MASTERED = 0.9


class SceneStream(IterableDataset[tuple[np.ndarray, np.ndarray]]):
    """An endless stream of (image uint8 (64, 64, 3), two-hot label float32 (10,))."""

    def __init__(self, split: str, difficulty: float, seed: int) -> None:
        self.split, self.difficulty, self.seed = split, difficulty, seed

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            scene = make_scene(rng, self.split, self.difficulty)
            yield scene.image, two_hot(scene.labels)


def two_hot(labels: np.ndarray) -> np.ndarray:
    return np.isin(np.arange(CLASSES), labels).astype(np.float32)


def held_out_accuracy(model: nn.Module, scenes: int = 2000, seed: int = 1) -> tuple[float, float]:
    """The mean average precision over the classes, and the share of scenes whose two highest logits are its digits."""
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(seed)
    drawn = [make_scene(rng, "test") for _ in range(scenes)]
    truth = np.stack([two_hot(scene.labels) for scene in drawn])
    with torch.inference_mode():
        batches = torch.split(preprocess_scene(np.stack([scene.image for scene in drawn])), 100)
        logits = torch.cat([model(batch) for batch in batches]).numpy()
    both_right = [set(np.argsort(row)[-2:]) == set(scene.labels) for row, scene in zip(logits, drawn, strict=True)]
    return float(average_precision_score(truth, logits)), float(np.mean(both_right))


def train(images: int = 200_000, batch_size: int = 32, seed: int = 0, workers: int = 1) -> DigitsNet:
    """Train on `images` scenes with a curriculum; the learning rate follows one cycle over the whole run."""
    torch.manual_seed(seed)
    model = nn.utils.convert_conv2d_weight_memory_format(DigitsNet(), torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = images // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.05)
    loss_of = nn.BCEWithLogitsLoss()
    level, recent = 0, 0.0
    stream = _batches(level, batch_size, seed, workers)
    for _ in (progress := tqdm(range(steps), unit="batch")):
        pictures, truth = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(preprocess_scene(pictures.numpy()).contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recognised = truth.gather(1, logits.detach().topk(2).indices).mean().item()
        recent += 0.05 * (recognised - recent)
        progress.set_postfix(level=level, loss=f"{loss.item():.3f}", recognised=f"{recent:.3f}")
        if recent > _MASTERED and level < _LEVELS:
            level, recent = level + 1, 0.0
            stream = _batches(level, batch_size, seed + level, workers)
    return model.eval()


def _batches(level: int, batch_size: int, seed: int, workers: int) -> Iterator[list[torch.Tensor]]:
    return iter(DataLoader(SceneStream("train", level / _LEVELS, seed), batch_size, num_workers=workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="file to write the weights to, as float16")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = train(arguments.images, seed=arguments.seed)
    mean_precision, both_right = held_out_accuracy(model.half().float())
    tqdm.write(f"held-out mAP {mean_precision:.3f}, both digits right in {both_right:.1%} of scenes")
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.save(half, arguments.output)


if __name__ == "__main__":
    main()

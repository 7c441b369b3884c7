"""What a large volume in a file needs, explained in windows: `python -m benchmarks.volume_memory`.

A volume of 512 x 512 x 512 in a file, a small convolutional classifier, windows of 96 x 96 x 96: the highest memory of
the process (all that it maps, the file's pages among it) and the time.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from benchmarks.report import table
from pytorch_grad_cam import GradCAM, SlidingWindowCAM

GIGABYTE = 2**30


class SmallClassifier(nn.Module):
    """Convolutions of stride 2, 2 and 2, a mean and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        channels = (1, 4, 8, 16)
        self.features = nn.Sequential(
            *[nn.Sequential(nn.Conv3d(a, b, 3, 2, 1), nn.ReLU()) for a, b in pairwise(channels)]
        )
        self.head = nn.Linear(16, 3)
        nn.init.ones_(self.head.weight)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(volume).mean((2, 3, 4)))


def written(file: Path, size: int) -> np.ndarray:
    """A volume (1, 1, *size) of noise with a bright block, mapped from a file that is written slice by slice."""
    volume = np.lib.format.open_memmap(file, "w+", np.float32, (1, 1, size, size, size))
    random = np.random.default_rng(0)
    for plane in range(size):
        volume[0, 0, plane] = 0.2 * random.random((size, size), dtype=np.float32)
    block = slice(size // 3, size // 2)
    volume[0, 0, block, block, block] += 1
    volume.flush()
    del volume
    return np.load(file, mmap_mode="r")


def peak() -> float:
    """The highest resident memory of the process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGABYTE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--context", type=int, help="default: how far a cell sees is measured")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("always")
        volume = written(Path(folder) / "volume.npy", arguments.size)
        how = {"roi_size": arguments.window, "overlap": arguments.overlap, "context": arguments.context}
        model, shown = SmallClassifier(), []
        model.register_forward_pre_hook(lambda _, inputs: shown.append(len(inputs[0])))
        cam = SlidingWindowCAM(model, "features", base_method=GradCAM, **how)
        before, began = peak(), time.perf_counter()
        heat = cam(volume, 1)
        row = {
            "forwards of a window": str(sum(shown)),
            "seconds": f"{time.perf_counter() - began:.0f}",
            "GB before": f"{before:.2f}",
            "peak GB": f"{peak():.2f}",
            "map": f"{heat.shape}, {heat.min():.2f} to {heat.max():.2f}",
        }
    sys.stdout.write(table({f"{arguments.size}^3, windows of {arguments.window}^3": row}) + "\n")


if __name__ == "__main__":
    main()

"""What the scripts have in common that train a part behind stages of `DigitsNet`, which stay as they are."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pytorch_grad_cam.demo.network import preprocess_scene
from pytorch_grad_cam.demo.scenes import Scene

_AT_A_TIME = 100


def maps_of_scenes(
    stages: Callable[[torch.Tensor], Sequence[torch.Tensor]], scenes: Sequence[Scene]
) -> list[torch.Tensor]:
    """What the stages give for all scenes, each of their maps (S, C, H, W) in half precision."""
    found = []
    with torch.no_grad():
        for start in tqdm(range(0, len(scenes), _AT_A_TIME), "stages", mininterval=10):
            images = preprocess_scene(np.stack([scene.image for scene in scenes[start : start + _AT_A_TIME]]))
            found.append([maps.half() for maps in stages(images)])
    return [torch.cat(maps) for maps in zip(*found, strict=True)]


def descend(
    loss: torch.Tensor,
    learned: Iterable[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """A step down the loss, with gradients no longer than 1."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()
    schedule.step()

"""The grid pointing game: does a map find the one of four images that is of its class? It needs no annotation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pytorch_grad_cam.engine.maps import resize
from pytorch_grad_cam.metrics.localisation import energy_pointing_game

_SIDE = 2


def mosaics(
    images: torch.Tensor, classes: Sequence[int], seed: int = 0, same_size: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """A mosaic of 2 x 2 images for each image, and where in it that image is: (N, C, 2 H, 2 W), masks (N, 2 H, 2 W).

    The other three are of other classes, and of different ones; which they are, and where each lies, is drawn with the
    seed. same_size: shrink the mosaics to (N, C, H, W), for models that take that size alone.
    Raises ValueError for other numbers of classes than images, and for fewer than four different ones.
    """
    numbers = [int(each) for each in classes]
    if images.ndim != 4 or len(numbers) != len(images):
        raise ValueError(f"{len(numbers)} classes for images {tuple(images.shape)}, expected one for each (N, C, H, W)")
    if len({*numbers}) < _SIDE**2:
        raise ValueError(f"the images are of the classes {sorted({*numbers})}: a mosaic needs four different ones")
    generator = torch.Generator().manual_seed(seed)
    chosen, places = [], []
    for row, own in enumerate(numbers):
        others: dict[int, int] = {}
        for candidate in torch.randperm(len(numbers), generator=generator).tolist():
            if numbers[candidate] != own and len(others) < _SIDE**2 - 1:
                others.setdefault(numbers[candidate], candidate)
        place = int(torch.randint(_SIDE**2, (), generator=generator))
        tiles = [*others.values()]
        chosen.append([*tiles[:place], row, *tiles[place:]])
        places.append(place)
    height, width = images.shape[2:]
    tiles_of_all = images[torch.tensor(chosen, device=images.device)].unflatten(1, (_SIDE, _SIDE))
    joined = tiles_of_all.permute(0, 3, 1, 4, 2, 5).reshape(len(images), -1, _SIDE * height, _SIDE * width)
    cells = torch.nn.functional.one_hot(torch.tensor(places, device=images.device), _SIDE**2)
    cells = cells.reshape(-1, _SIDE, _SIDE)
    if same_size:
        down, across = (torch.arange(n, device=images.device) * _SIDE // n for n in (height, width))
        return resize(joined, (height, width)), cells[:, down][:, :, across].bool()
    return joined, cells.repeat_interleave(height, 1).repeat_interleave(width, 2).bool()


def grid_pointing_game(
    cam: Callable[..., Any],
    images: torch.Tensor,
    classes: Sequence[int],
    seed: int = 0,
    same_size: bool = False,
) -> torch.Tensor:
    """The share of the map's sum that lies on the image of the class, in a mosaic with three of other classes.

    Boehle et al. 2021 (CoDA Nets), arXiv:2104.00032, with 2 x 2 images; as Focus (Arias-Duart et al. 2022,
    arXiv:2109.15035). float32 (N,) from 0 to 1, the higher the better; a map that says nothing has 1/4. It does not
    change when the map is multiplied by a positive number. The other images are drawn from all, so that it changes with
    their order and number.
    cam: an object that makes maps, called with mosaics and classes. classes: one an image, at least four different
    ones; images that the model gets right tell most. seed, same_size: see `mosaics`, which says what is raised.
    Cost: one call of cam for images of four times the size.
    """
    joined, inside = mosaics(images, classes, seed, same_size)
    maps = cam(input_tensor=joined, targets=[int(each) for each in classes])
    return energy_pointing_game(torch.as_tensor(maps), inside)

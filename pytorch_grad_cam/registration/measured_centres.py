"""The centres of a layer's cells, measured: the centroid of the gradient from cells to the input."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import SpatialFrom, call, image_of, on_device_of, rows_of, with_image
from pytorch_grad_cam.engine.maps import most_precise_dtype
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Outputs

# Of the centroid. In 38 networks of timm and transformers with random weights 20 steps differ from 50 by less than
# 3e-6 cells (MobileViT: by 0.2, rexnetr_100: by 0.009), 100 by less than 1e-11.
_STEPS = 50
# Images. Costs against noise: the digits network's centres, cells of 8 px, scatter over 8 seeds by 2.3 and 0.9 px with
# 3 images, by 0.3 and 1.3 px with 16, by 0.2 and 1.1 px with 32. Where to change over, in pixels, is a choice.
_FEWEST, _MOST, _PIXELS = 3, 16, 2**16
# The share of rows that are far from the border. A choice; up to 1 nothing changes with 3 images and 6 cells or more,
# with 0.34 the centres move by up to 0.7 cells, where the error is as large.
_MIDDLE = 0.5
# Keeps a quotient finite that is not used where the rows are all the same; else their variance is at least 2 / 9.
_LEAST_VARIANCE = 1e-9


class MeasuredCentres(NamedTuple):
    """For each axis the pixel that the first cell of a grid is centred on, its standard error, and the step.

    step: the pixels from cell to cell.
    """

    grid: tuple[int, ...]
    first: tuple[float, ...]
    step: tuple[float, ...]
    error: tuple[float, ...]

    def first_with(self, step: Sequence[float]) -> tuple[float, ...]:
        """The first centre when other steps leave the middle of the grid where it is."""
        axes = zip(self.grid, self.first, self.step, step, strict=True)
        return tuple(first + (measured - given) * (cells - 1) / 2 for cells, first, measured, given in axes)


def measured_centres(
    model: nn.Module,
    layer: nn.Module,
    x: Any,
    as_map: Callable[[Any], torch.Tensor],
    spatial_from: SpatialFrom = None,
    grid: Sequence[int] | None = None,
    images: int | None = None,
    seed: int = 0,
) -> MeasuredCentres | None:
    r"""The centres of a layer's cells by measurement; None where no run of the layer depends on the image.

    Each of `images` images of pink noise measures one row i of cells in the middle of the grid (then one column, ...)
    by its profile along the image,
    $p_y = \sum_{c, x} (\partial \sum_{k, j} \epsilon_{kj} A_{kij} / \partial I_{cyx})^2$ with random $\epsilon$.
    The centre is the centroid of the profile above its median, which removes what layers that mix globally see
    everywhere, within the largest window around it that the image holds on both sides. Rows near the border, whose view
    is cut off, are not used. Pink noise has the spectrum of photographs (Field 1987); white noise moves the centres of
    a trained network.

    grid: the cells of the map, for a layer that runs for maps of several sizes. images: None is 3, and more of small
    images, which average over fewer pixels: 16 of 64 x 64 pixels. Cost: as many forwards and, for each axis, backwards
    as there are images.
    """
    generator = torch.Generator().manual_seed(seed)
    image = image_of(x, spatial_from)
    images = images or min(max(_FEWEST, _PIXELS // math.prod(image.shape[2:])), _MOST)
    noise = _pink(torch.randn(images, *image.shape[1:], generator=generator, device="cpu"))
    inputs = with_image(rows_of(x, torch.zeros(images, dtype=torch.long), len(image)), noise.to(image), spatial_from)
    with undisturbed(model), torch.enable_grad(), Outputs([layer]) as outputs:
        inputs = on_device_of(model, inputs)
        noise = image_of(inputs, spatial_from).detach().requires_grad_()
        call(model, with_image(inputs, noise, spatial_from))
        for maps in map(as_map, outputs.kept):
            if grid is not None and tuple(maps.shape[2:]) != tuple(grid):
                continue
            signed = maps * torch.randn(maps.shape, generator=generator, device="cpu").to(maps)
            lines = [_line(signed, noise, axis) for axis in range(maps.ndim - 2)]
            if None not in lines:
                first, step, error = zip(*lines, strict=True)
                return MeasuredCentres(tuple(maps.shape[2:]), first, step, error)
    return None


def _line(signed: torch.Tensor, noise: torch.Tensor, axis: int) -> tuple[float, float, float] | None:
    """The first centre, the step and the standard error along an axis of the image."""
    cells, pixels, images = signed.shape[axis + 2], noise.shape[axis + 2], len(noise)
    used = max(min(images, int(_MIDDLE * cells)), 1)
    rows = (cells - used) // 2 + torch.arange(images) % used
    score = torch.stack([signed[sample].select(axis + 1, row).sum() for sample, row in enumerate(rows.tolist())]).sum()
    gradient = None
    if score.requires_grad:
        (gradient,) = torch.autograd.grad(score, noise, retain_graph=True, allow_unused=True)
    if gradient is None or not gradient.any() or not gradient.isfinite().all():
        return None
    energy = gradient.to(most_precise_dtype(gradient.device)).square().sum(1)
    profiles = energy.movedim(axis + 1, 1).reshape(images, pixels, -1).sum(2).cpu()
    centroids = _centroids(profiles, (rows + 0.5) * pixels / cells - 0.5)
    step = _step(rows, centroids, cells, pixels)
    firsts = centroids - step * rows
    return firsts.mean().item(), step, firsts.std().item() / images**0.5 if images > 1 else math.inf


def _pink(white: torch.Tensor) -> torch.Tensor:
    """White noise (N, C, *spatial) with its amplitudes divided by their frequency; unit variance."""
    axes = tuple(range(2, white.ndim))
    sizes = white.shape[2:]
    frequencies = [torch.fft.fftfreq(size) for size in sizes[:-1]] + [torch.fft.rfftfreq(sizes[-1])]
    distance = torch.stack(torch.meshgrid(*frequencies, indexing="ij")).norm(dim=0).clamp(min=1 / max(sizes))
    pink: torch.Tensor = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) / distance, s=sizes, dim=axes)
    return torch.div(pink, pink.std((1, *axes), keepdim=True))


def _centroids(profiles: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The centroid of each profile (rows, pixels) above its median, in the largest window symmetric about it."""
    positions = torch.arange(profiles.shape[1]).to(profiles)
    above = (profiles - profiles.median(1, keepdim=True).values).clamp(min=0)
    centres = start.to(profiles)
    for _ in range(_STEPS):
        half = torch.minimum(centres, positions[-1] - centres)[:, None]
        weights = above * (half + 0.5 - (positions - centres[:, None]).abs()).clamp(0, 1)
        centres = (weights @ positions) / weights.sum(1).clamp(min=torch.finfo(weights.dtype).tiny)
    return centres


def _step(rows: torch.Tensor, centroids: torch.Tensor, cells: int, pixels: int) -> float:
    """The step nearest to the measured slope: pixels / cells, or a whole number with which the grid fits the image."""
    if cells == 1:
        return float(pixels)
    fitting = range(-(-pixels // (cells + 1)), pixels // (cells - 1) + 1)
    deviations = (rows - rows.double().mean()) / max(rows.double().var(correction=0).item(), _LEAST_VARIANCE)
    slope = (deviations * centroids).mean().item() if rows.amax() > rows.amin() else pixels / cells
    return min([pixels / cells, *map(float, fitting)], key=lambda step: abs(step - slope))

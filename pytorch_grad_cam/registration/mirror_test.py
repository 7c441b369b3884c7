"""How far beside even tiles the cells of a layer look, by mirroring images; and how much of that to believe."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of, with_image

# Images, at least. A choice, cost against noise: 24 photos instead of 8 lower the mean error of 25 layers of four
# trained networks from 2.6 to 2.4 px (`benchmarks.real.displacements`).
_IMAGES = 8
# In cells, how far what is measured lies from where maps belong, beside the scatter over images: the root mean square
# over those 17 layers is 0.13, of which about half is the uncertainty of where the maps belong.
_SYSTEMATIC = 0.1
# Cells whose strength varies less, relative to its mean, vary by rounding. Follows from float32.
_ROUNDING = 1e-6
# The fewest cells along an axis that have a derivative.
_FEWEST_CELLS = 3
# A choice, the usual 95 %: with it no map of 43 layers and methods of three trained networks, measured with noise, lost
# hits or energy by more than their standard errors; without it five of 34 did.
_CONFIDENCE = 0.95


class Displacement(NamedTuple):
    """How many cells further down, right, ... than even tiles a layer's cells look, and the standard errors."""

    cells: tuple[float, ...]
    error: tuple[float, ...]

    def is_certain(self) -> bool:
        r"""Whether even tiles are ruled out at 95 %: $\sum_a \delta_a^2 / \sigma_a^2$ over the axes a is larger than a
        $\chi^2$ of as many degrees of freedom is in 95 % of all cases.
        """
        statistic = sum((cells / error) ** 2 for cells, error in zip(self.cells, self.error, strict=True))
        halves = torch.tensor([len(self.cells) / 2, statistic / 2], dtype=torch.float64)
        return bool(torch.special.gammainc(*halves) > _CONFIDENCE)

    def shrunk(self) -> tuple[float, ...]:
        r"""What of it is certain: nothing where even tiles are not ruled out, else the displacement, shrunk towards
        them by empirical Bayes.

        $\hat\delta_a = \delta_a \tau^2 / (\tau^2 + \sigma_a^2)$ for the axes a, with the variance of displacements that
        the layer itself tells, $\tau^2 = mean_a(\delta_a^2 - \sigma_a^2)$ (James & Stein 1961; Efron & Morris 1973,
        doi:10.1080/01621459.1973.10481350).
        """
        if not self.is_certain():
            return (0.0,) * len(self.cells)
        pairs = list(zip(self.cells, self.error, strict=True))
        of_layer = max(0.0, sum(cells**2 - error**2 for cells, error in pairs) / len(pairs))
        return tuple(cells * of_layer / (of_layer + error**2) for cells, error in pairs)


def displacement(views: torch.Tensor) -> Displacement | None:
    r"""The displacement by the strengths of a layer's cells for images and for their mirror images.

    views: (1 + axes, N, *grid), first those of N images, then, for each axis, those of the images mirrored along it,
    mirrored back. Cells that look $\delta$ to the right of where they are drawn show a thing $\delta$ too far left,
    and mirrored $\delta$ too far right. So the strengths a and m differ by $2 \delta$ times the slope of their mean:
    least squares over all cells and images give $\delta = \sum (a - m) \partial(a + m) / \sum (\partial(a + m))^2$.
    The strengths are divided by their mean over each image, and from each cell its mean over the images is taken away:
    borders, position embeddings and cells that look everywhere are the same in all images. The error is that of the
    jackknife over the images, and a tenth of a cell for what the method itself misses.

    An axis of fewer than 3 cells has no displacement. None where the cells do not vary, or not all is finite.
    """
    found = [_along(views[0], views[1 + axis], 1 + axis) for axis in range(len(views) - 1)]
    cells, errors = zip(*found, strict=True)
    return Displacement(cells, errors) if all(map(math.isfinite, (*cells, *errors))) else None


def _along(images: torch.Tensor, mirrored: torch.Tensor, axis: int) -> tuple[float, float]:
    if images.shape[axis] < _FEWEST_CELLS:
        return 0.0, _SYSTEMATIC
    both = torch.stack([images, mirrored]).double().movedim(axis + 1, -1)
    level = both.flatten(2).mean((0, 2)).clamp(min=torch.finfo(both.dtype).tiny)
    both = both / level.reshape(-1, *[1] * (images.ndim - 1))
    direct, back = both - both.mean(1, keepdim=True)
    inner = slice(1, -1)
    slope = ((direct + back)[..., 2:] - (direct + back)[..., :-2]) / 2
    product = ((direct - back)[..., inner] * slope).flatten(1).sum(1)
    square = slope.square().flatten(1).sum(1)
    if slope.square().mean() <= _ROUNDING**2:
        return math.nan, math.nan
    without = (product.sum() - product) / (square.sum() - square)
    scatter = (without - without.mean()).square().sum() * (len(without) - 1) / len(without)
    return (product.sum() / square.sum()).item(), math.hypot(scatter.sqrt().item(), _SYSTEMATIC)


def strengths_of_views(
    x: Inputs, spatial_from: SpatialFrom, strengths: Callable[[Inputs], Sequence[torch.Tensor | None]]
) -> list[torch.Tensor | None]:
    """For each map of a model its `views` as `displacement` takes them; None for what is no map.

    strengths: from what the model is called with to the strengths (N, *grid) of each map. The images are those of x if
    it has several, and noise with the spectrum of photographs, in batches as large as x, which a model made for one
    image takes too: of several images the noise has mean and deviation, of one 0 and 1, so that the answer does not
    depend on which image that is. Cost: for 8 images or a batch more, a forward of each and one for each axis.
    """
    image = image_of(x, spatial_from)
    spatial = range(2, image.ndim)
    of_batches = []
    for images in _probes(image):
        views = [strengths(with_image(x, images, spatial_from))]
        for axis in spatial:
            mirrored = strengths(with_image(x, images.flip(axis), spatial_from))
            views.append([None if each is None else each.flip(axis - 1) for each in mirrored])
        of_batches.append([_stacked(of_map) for of_map in zip(*views, strict=True)])
    joined = zip(*of_batches, strict=True)
    return [torch.cat([b for b in of_map if b is not None], 1) if None not in of_map else None for of_map in joined]


def _stacked(views: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    known = [view for view in views if view is not None]
    return torch.stack(known) if len(known) == len(views) else None


def strength(maps: torch.Tensor) -> torch.Tensor:
    """How strong each cell of maps (N, C, *grid) is: (N, *grid)."""
    strengths: torch.Tensor = torch.linalg.vector_norm(maps.detach().float(), dim=1)
    return strengths


def _probes(image: torch.Tensor) -> Iterator[torch.Tensor]:
    """Batches like the image (N, C, *spatial), at least 8 images together: it itself, if it has several; noise."""
    image = image.detach()
    samples = len(image)
    own = [image] if samples > 1 else []
    yield from own
    axes = (0, *range(2, image.ndim))
    mean, deviation = (image.mean(axes, keepdim=True), image.std(axes, keepdim=True)) if own else (0, 1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(-(-_IMAGES // samples) - len(own)):
        noise = _pink(torch.randn(image.shape, generator=generator, device="cpu"))
        yield mean + deviation * noise.to(image)


def _pink(white: torch.Tensor) -> torch.Tensor:
    """White noise (N, C, *spatial) with its amplitudes divided by their frequency, as photographs have them (Field
    1987); unit variance.
    """
    axes = tuple(range(2, white.ndim))
    sizes = white.shape[2:]
    frequencies = [torch.fft.fftfreq(size) for size in sizes[:-1]] + [torch.fft.rfftfreq(sizes[-1])]
    distance = torch.stack(torch.meshgrid(*frequencies, indexing="ij")).norm(dim=0).clamp(min=1 / max(sizes))
    pink: torch.Tensor = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) / distance, s=sizes, dim=axes)
    return torch.div(pink, pink.std((1, *axes), keepdim=True))

"""The linear interpolation of missing pixels on the images' device: conjugate gradients preconditioned by multigrid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

Weighting = Sequence[tuple[tuple[int, int], float]]

# Jacobi steps in units of 1 / (sum of a row's absolute values). Below 2 the V-cycle is positive definite for every
# symmetric matrix. Of 1.1, 1.33 and 1.6 the last one leaves the smallest error after 8 iterations.
_JACOBI_STEP = 1.6
_COARSEST = 2
# Masks of 224 x 224 pixels with 2 to 90 % of them known, or a single one, take 4 to 12 iterations.
_CHECKED_EVERY = 4
_MOST_ITERATIONS = 64
# Of the largest value. The error was at most four times the correction that is compared with it.
_TOLERANCE = 3e-6


def is_symmetric(weighting: Weighting) -> bool:
    """Whether opposite neighbours have the same weight and none is negative, as `interpolate` requires.

    >>> is_symmetric([((0, 1), 0.5), ((0, -1), 0.5)]), is_symmetric([((0, 1), 1.0)])
    (True, False)
    """
    weights: defaultdict[tuple[int, int], float] = defaultdict(float)
    for offset, weight in weighting:
        weights[offset] += weight
    return all(weights[offset] >= 0 and weights[offset] == weights[-offset[0], -offset[1]] for offset, _ in weighting)


def interpolate(images: torch.Tensor, missing: torch.Tensor, weighting: Weighting) -> torch.Tensor:
    r"""Fills in each missing pixel by the weighted mean of its neighbours in the image, missing ones included.

    Solves $\sum_n w_n (x_i - x_{i+n}) = 0$ for the missing pixels i, all images and channels at once: conjugate
    gradients, preconditioned by one multigrid V-cycle with bilinear interpolation and Galerkin coarse grids (Briggs,
    Henson and McCormick 2000, A Multigrid Tutorial, chapters 5 and 8).

    images: (N, C, H, W). missing: bool (N, H, W). weighting: ((row, column), weight) of each neighbour, symmetric (see
    `is_symmetric`). Returns float64 (N, C, H, W), within 1e-4 of the direct solution for values in [-3, 3]. Where the
    weighting links a missing pixel to no known one there is no solution, and what that pixel gets is undefined.
    Cost: with the weights of ROAD 4 to 12 iterations, three products with the matrix each, and at most 64 in any case;
    the host reads one number every four iterations. The more unequal the weights of rows and columns, the more.
    """
    unknown = missing[:, None].double()
    known = images.double().masked_fill(missing[:, None], 0)
    laplacian = _laplacian(weighting, missing.shape[1:], missing.device) * unknown[:, :, None, None]
    tolerance = _TOLERANCE * known.abs().amax((1, 2, 3), keepdim=True)
    return known + _conjugate_gradients(_grids(laplacian, unknown), -_product(laplacian, known), tolerance)


class _Grid(NamedTuple):
    """The equations on one grid of the hierarchy.

    stencils: (N, 1, K, K, H, W), the coefficient of each neighbour in the equation of each pixel, zeros where the pixel
    is known. unknown: (N or 1, 1, H, W), 1 where a pixel is unknown. step: (N, 1, H, W), that of the Jacobi iteration.
    """

    stencils: torch.Tensor
    unknown: torch.Tensor
    step: torch.Tensor


def _laplacian(weighting: Weighting, size: Sequence[int], device: torch.device) -> torch.Tensor:
    """The stencils (K, K, H, W) of the weighted graph Laplacian of a whole grid: neighbours outside do not count."""
    reach = max(max(abs(down), abs(across)) for (down, across), _ in weighting)
    inside = F.pad(torch.ones(*size, dtype=torch.float64, device=device), (reach,) * 4)
    windows = inside.unfold(0, size[0], 1).unfold(1, size[1], 1)
    stencils = torch.zeros_like(windows)
    for (down, across), weight in weighting:
        stencils[reach + down, reach + across] -= weight * windows[reach + down, reach + across]
    stencils[reach, reach] -= stencils.sum((0, 1))
    return stencils


def _product(stencils: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The matrix of the stencils (N, 1, K, K, H, W) times values (N, C, H, W)."""
    size = stencils.shape[2]
    padded = F.pad(values, (size // 2,) * 4)
    height, width = values.shape[2:]
    return (stencils * padded.unfold(2, height, 1).unfold(3, width, 1)).sum((2, 3))


def _grids(stencils: torch.Tensor, unknown: torch.Tensor) -> list[_Grid]:
    """The given grid and ever coarser ones, each with every second row and column of the one before."""
    grids = []
    while True:
        size = stencils.abs().sum((2, 3))
        grids.append(_Grid(stencils, unknown, _JACOBI_STEP / size.masked_fill(size == 0, torch.inf)))
        if max(unknown.shape[2:]) <= _COARSEST:
            return grids
        stencils = _coarsened(stencils, unknown)
        unknown = torch.ones_like(stencils[:1, :, 0, 0])


def _coarsened(stencils: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
    """The Galerkin product R A P: the stencils of the next coarser grid.

    Coarse pixels whose equations share no unknown have one colour; the answers to ones at all pixels of a colour are
    the coefficients of those pixels.
    """
    height, width = unknown.shape[2:]
    reach = (stencils.shape[2] // 2 + 2) // 2
    size = 2 * reach + 1
    rows, columns = (torch.arange(length // 2 + 1, device=unknown.device) for length in (height, width))
    colours = torch.arange(size**2, device=unknown.device)
    pixels = (rows[:, None] % size * size + columns % size == colours[:, None, None]).to(unknown)[None]
    answers = _restricted(_product(stencils, unknown * _prolonged(pixels, height, width)))
    offsets = torch.arange(-reach, reach + 1, device=unknown.device)
    down, across = (rows + offsets[:, None]) % size, (columns + offsets[:, None]) % size
    colour = (down[:, None, :, None] * size + across[None, :, None, :]).flatten(0, 1)
    gathered = answers.gather(1, colour.expand(len(answers), -1, -1, -1))
    return torch.unflatten(gathered, 1, (size, size))[:, None]


def _prolonged(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear interpolation P of values (N, C, h, w), which lie on every second pixel of a grid of that size."""
    rows, columns = values.shape[2:]
    fine = F.interpolate(values, size=(2 * rows - 1, 2 * columns - 1), mode="bilinear", align_corners=True)
    return fine[:, :, :height, :width]


def _restricted(values: torch.Tensor) -> torch.Tensor:
    """The transpose R of `_prolonged`: sums of values (N, C, H, W), weighted by [1/2, 1, 1/2] in rows and columns."""
    height, width = values.shape[2:]
    odd = F.pad(values, (0, 1 - width % 2, 0, 1 - height % 2))
    return 4 * F.avg_pool2d(F.avg_pool2d(odd, 2, stride=1, padding=1), 2)


def _v_cycle(grids: Sequence[_Grid], right: torch.Tensor) -> torch.Tensor:
    """About the solution for the right-hand sides (N, C, H, W): smoothed, corrected on coarser grids, smoothed."""
    (stencils, unknown, step), *coarser = grids
    solution = step * right
    if coarser:
        residual = right - _product(stencils, solution)
        correction = _v_cycle(coarser, _restricted(unknown * residual))
        solution = solution + unknown * _prolonged(correction, *right.shape[2:])
    return solution + step * (right - _product(stencils, solution))


def _conjugate_gradients(grids: Sequence[_Grid], right: torch.Tensor, tolerance: torch.Tensor) -> torch.Tensor:
    """The solution for each right-hand side (N, C, H, W), when the V-cycle would change none by more than `tolerance`.

    One that is solved before the others goes on: zero over zero counts as zero.
    """
    least = torch.finfo(right.dtype).tiny
    solution, residual = torch.zeros_like(right), right
    direction = correction = _v_cycle(grids, residual)
    energy = _inner(residual, correction)
    for iteration in range(1, _MOST_ITERATIONS + 1):
        image = _product(grids[0].stencils, direction)
        step = energy / _inner(direction, image).clamp(min=least)
        solution = solution + step * direction
        residual = residual - step * image
        correction = _v_cycle(grids, residual)
        if iteration % _CHECKED_EVERY == 0 and bool((correction.abs() <= tolerance).all()):
            break
        previous, energy = energy, _inner(residual, correction)
        direction = correction + energy / previous.clamp(min=least) * direction
    return solution


def _inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum((2, 3), keepdim=True)

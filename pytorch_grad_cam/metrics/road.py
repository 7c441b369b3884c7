"""ROAD, Remove And Debias (Rong et al. 2022, arXiv:2202.00449)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.metrics.nested_dissection import nested_dissection
from pytorch_grad_cam.metrics.perturbation_confidence import (
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
    clean_scores,
    perturbed_scores,
)

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

Weighting = Sequence[tuple[tuple[int, int], float]]

# The offset of each neighbour (row, column) and its weight: direct ones count twice as much as diagonal ones.
neighbors_weights: Weighting = [
    ((1, 1), 1 / 12),
    ((0, 1), 1 / 6),
    ((-1, 1), 1 / 12),
    ((1, -1), 1 / 12),
    ((0, -1), 1 / 6),
    ((-1, -1), 1 / 12),
    ((1, 0), 1 / 6),
    ((-1, 0), 1 / 6),
]


class NoisyLinearImputer:
    """Replaces pixels by the weighted mean of their neighbours, missing ones included: one sparse linear system.

    noise: the standard deviation of the Gaussian noise that is added to them. weighting: ((row, column), weight) of
    each neighbour; those outside the image do not count. seed: of the noise, the same for each call.
    """

    def __init__(self, noise: float = 0.01, weighting: Weighting = neighbors_weights, seed: int = 0) -> None:
        self.noise = noise
        self.weighting = weighting
        self.seed = seed

    @staticmethod
    def setup_sparse_system(
        mask: np.ndarray, img: np.ndarray, neighbors_weights: Weighting
    ) -> tuple[csc_matrix, np.ndarray]:
        r"""Matrix and right-hand side of $\sum_n w_n (x_i - x_{i+n}) = 0$ for the missing pixels i, row by row.

        mask: (H, W), 0 where a pixel is missing. img: (C, H, W). Returns (M, M) and (M, C) for M missing pixels.
        """
        from scipy.sparse import csc_matrix

        reach = max(max(abs(down), abs(across)) for (down, across), _ in neighbors_weights)
        inside = np.pad(np.ones(mask.shape, dtype=bool), reach)
        missing = np.pad(mask == 0, reach)
        equation = np.cumsum(missing).reshape(missing.shape) - 1
        values = np.pad(img.astype(np.float64), ((0, 0), (reach, reach), (reach, reach)))
        rows, columns = np.nonzero(missing)
        count = len(rows)
        diagonal, right = np.zeros(count), np.zeros((count, len(img)))
        entries = []
        for (down, across), weight in neighbors_weights:
            neighbour = rows + down, columns + across
            diagonal += weight * inside[neighbour]
            known = inside[neighbour] & ~missing[neighbour]
            right += weight * (values[(slice(None), *neighbour)] * known).T
            (unknown,) = np.nonzero(missing[neighbour])
            entries.append((np.full(len(unknown), -weight), unknown, equation[neighbour][unknown]))
        entries.append((diagonal, np.arange(count), np.arange(count)))
        data, row, column = map(np.concatenate, zip(*entries, strict=True))
        return csc_matrix((data, (row, column)), shape=(count, count)), right

    def __call__(self, img: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The image (C, H, W) with the pixels replaced where the mask (H, W) is 0.

        Raises ValueError when no pixel is left to interpolate from.
        """
        from scipy.sparse.linalg import splu

        missing = (mask == 0).cpu()
        if missing.all():
            raise ValueError("the mask keeps no pixel: there is nothing to interpolate from")
        filled = img.detach().cpu().float().clone()
        if missing.any():
            system, right = self.setup_sparse_system(mask.cpu().numpy(), filled.numpy(), self.weighting)
            equation = missing.flatten().cumsum(0).numpy() - 1
            pixels = nested_dissection(*missing.shape)
            order = equation[pixels[missing.flatten().numpy()[pixels]]]
            ordered = system[order][:, order].tocsc()
            # The matrix is symmetric in its pattern and diagonally dominant: no pivoting is needed.
            factors = splu(ordered, permc_spec="NATURAL", diag_pivot_thresh=0, options={"SymmetricMode": True})
            right[order] = factors.solve(right[order])
            generator = torch.Generator().manual_seed(self.seed)
            solution = torch.from_numpy(right.T).float()
            filled[:, missing] = solution + self.noise * torch.randn(solution.shape, generator=generator)
        return filled.to(img)


class ROADMostRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the most relevant pixels; `percentile` percent of them stay."""

    def __init__(self, percentile: Any = 80) -> None:
        super().__init__(RemoveMostRelevantFirst(percentile, NoisyLinearImputer()))


class ROADLeastRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the least relevant pixels; `percentile` percent of them stay."""

    def __init__(self, percentile: Any = 20) -> None:
        super().__init__(RemoveLeastRelevantFirst(percentile, NoisyLinearImputer()))


class ROADMostRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of ROADMostRelevantFirst over percentiles."""

    def __init__(self, percentiles: Sequence[Any] = (10, 20, 30, 40, 50, 60, 70, 80, 90)) -> None:
        super().__init__(ROADMostRelevantFirst, percentiles)


class ROADLeastRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of ROADLeastRelevantFirst over percentiles."""

    def __init__(self, percentiles: Sequence[Any] = (10, 20, 30, 40, 50, 60, 70, 80, 90)) -> None:
        super().__init__(ROADLeastRelevantFirst, percentiles)


class ROADCombined:
    """Half the difference of both averages: what the least relevant pixels leave of the score less what the most leave.

    The higher the better; a map that says nothing has 0.
    """

    def __init__(self, percentiles: Sequence[Any] = (10, 20, 30, 40, 50, 60, 70, 80, 90)) -> None:
        self.percentiles = percentiles
        self.morf_averager = ROADMostRelevantFirstAverage(percentiles)
        self.lerf_averager = ROADLeastRelevantFirstAverage(percentiles)

    def __call__(
        self, input_tensor: torch.Tensor, cams: np.ndarray | torch.Tensor, targets: Targets, model: nn.Module
    ) -> np.ndarray:
        """One number an image: float32 (N,).

        Cost: 1 + 2 * percentiles forwards of each image in shared batches, and as many sparse systems on the host.
        """
        _, resolved = clean_scores(model, input_tensor, targets)
        metrics = [*self.lerf_averager.metrics, *self.morf_averager.metrics]
        scores = perturbed_scores(metrics, model, input_tensor, cams, resolved)
        lerf, morf = scores.reshape(2, len(self.percentiles), -1).mean(1)
        return ((lerf - morf) / 2).cpu().numpy()

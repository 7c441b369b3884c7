"""ROAD, Remove And Debias (Rong et al. 2022, arXiv:2202.00449)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.chunks import images_at_a_time, in_chunks
from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.metrics.multigrid import Weighting, interpolate, is_symmetric
from pytorch_grad_cam.metrics.perturbation_confidence import (
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
    Versions,
    clean_scores,
    perturbed_scores,
    takes_batches,
    versions_of,
)

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

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
    each neighbour; those outside the image do not count. seed: of the noise, the same for each call and each image.
    Imputers of one class with the same settings are equal.

    Images on a CUDA device stay there if opposite neighbours have the same weight: all systems of a batch are solved
    together, within 1e-4 of the direct solution for values in [-3, 3]. The noise then comes from the device's own
    generator: other numbers than on the host, the same for the same seed. All other images are solved directly on the
    host, side by side in threads.
    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def __init__(self, noise: float = 0.01, weighting: Weighting = neighbors_weights, seed: int = 0) -> None:
        self.noise = noise
        self.weighting = weighting
        self.seed = seed

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

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

    @takes_batches
    def __call__(self, img: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The image (C, H, W) with the pixels replaced where the mask (H, W) is 0; or (N, C, H, W) and (N, H, W).

        Raises ValueError when no pixel of an image is left to interpolate from.
        """
        images = img.detach().reshape(-1, *img.shape[-3:])
        missing = (mask == 0).reshape(-1, *mask.shape[-2:]).to(images.device)
        if missing.flatten(1).all(1).any():
            raise ValueError("the mask keeps no pixel: there is nothing to interpolate from")
        fill = self._filled_on_device if _stays_on_device(images, self.weighting) else self._filled_on_host
        return fill(images, missing).to(img).reshape(img.shape)

    def _filled_on_device(self, images: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        def interpolated(start: int, stop: int) -> torch.Tensor:
            return interpolate(images[start:stop], missing[start:stop], self.weighting).float()

        clean = in_chunks(interpolated, len(images), images_at_a_time(images.device), "imputed images")
        generator = torch.Generator(images.device).manual_seed(self.seed)
        noise = torch.randn(images.shape[1:], generator=generator, device=images.device)
        return torch.where(missing[:, None], clean + self.noise * noise, images)

    def _filled_on_host(self, images: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return torch.stack(list(threads.map(self._solved_directly, images.cpu().float(), missing.cpu())))

    def _solved_directly(self, image: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        from scipy.sparse.linalg import splu

        if not missing.any():
            return image
        system, right = self.setup_sparse_system((~missing).numpy(), image.numpy(), self.weighting)
        # The matrix is diagonally dominant: no pivoting is needed.
        factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
        solution = torch.from_numpy(factors.solve(right).T).float()
        generator = torch.Generator().manual_seed(self.seed)
        filled = image.clone()
        filled[:, missing] = solution + self.noise * torch.randn(solution.shape, generator=generator)
        return filled


def _stays_on_device(images: torch.Tensor, weighting: Weighting) -> bool:
    """Whether multigrid on the images' device is used and not SciPy, which is the faster one on a CPU."""
    return images.is_cuda and is_symmetric(weighting)


class ROADMostRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the most relevant pixels; `percentile` percent of them stay.

    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def __init__(self, percentile: Any = 80) -> None:
        super().__init__(RemoveMostRelevantFirst(percentile, NoisyLinearImputer()))


class ROADLeastRelevantFirst(PerturbationConfidenceMetric):
    """The change of the score without the least relevant pixels; `percentile` percent of them stay.

    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def __init__(self, percentile: Any = 20) -> None:
        super().__init__(RemoveLeastRelevantFirst(percentile, NoisyLinearImputer()))


class ROADMostRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of ROADMostRelevantFirst over percentiles.

    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def __init__(self, percentiles: Sequence[Any] = (10, 20, 30, 40, 50, 60, 70, 80, 90)) -> None:
        super().__init__(ROADMostRelevantFirst, percentiles)


class ROADLeastRelevantFirstAverage(AveragerAcrossThresholds):
    """The mean of ROADLeastRelevantFirst over percentiles.

    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def __init__(self, percentiles: Sequence[Any] = (10, 20, 30, 40, 50, 60, 70, 80, 90)) -> None:
        super().__init__(ROADLeastRelevantFirst, percentiles)


class ROADCombined:
    """Half the difference of both averages: what the least relevant pixels leave of the score less what the most leave.

    The higher the better; a map that says nothing has 0.
    Paper: Rong et al. 2022, https://arxiv.org/abs/2202.00449.
    """

    def __init__(self, percentiles: Sequence[Any] = (10, 20, 30, 40, 50, 60, 70, 80, 90)) -> None:
        self.percentiles = percentiles
        self.morf_averager = ROADMostRelevantFirstAverage(percentiles)
        self.lerf_averager = ROADLeastRelevantFirstAverage(percentiles)

    def __call__(
        self, input_tensor: torch.Tensor, cams: np.ndarray | torch.Tensor, targets: Targets, model: nn.Module
    ) -> np.ndarray:
        """One number an image: float32 (N,).

        Cost: 1 + 2 * percentiles forwards of each image in shared batches, and 2 * percentiles sparse systems.
        """
        before, resolved = clean_scores(model, input_tensor, targets)
        scores = perturbed_scores(self._metrics, model, input_tensor, cams, resolved)
        combined: np.ndarray = self.of_scores(before, scores).cpu().numpy()
        return combined

    @property
    def _metrics(self) -> list[PerturbationConfidenceMetric]:
        return [*self.lerf_averager.metrics, *self.morf_averager.metrics]

    def versions(self, images: torch.Tensor, maps: torch.Tensor) -> Versions:
        """The images without their least, then without their most relevant pixels, see `shared_scores.ScoreMetric`."""
        return versions_of([metric.perturbation for metric in self._metrics], images, maps)

    def of_scores(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The metric (R,) of the scores (2 * percentiles, R) of the versions."""
        lerf, morf = after.unflatten(0, (2, -1)).mean(1)
        combined: torch.Tensor = (lerf - morf) / 2
        return combined

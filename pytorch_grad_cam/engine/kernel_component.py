"""The projection of activations on their first kernel principal component, batched, on their device."""

from collections.abc import Callable

import torch

from pytorch_grad_cam.engine.maps import most_precise_dtype
from pytorch_grad_cam.engine.principal_component import agreeing_with

_MOST_FOR_EIGH = 1024
_TOLERANCE = 1e-6

# By scikit-learn's names and with its constants: rows X (N, P, C) and gamma to the kernel matrices (N, P, P).
KERNELS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "linear": lambda rows, gamma: rows @ rows.mT,
    "poly": lambda rows, gamma: (gamma * rows @ rows.mT + 1) ** 3,
    "rbf": lambda rows, gamma: torch.exp(-gamma * torch.cdist(rows, rows).square()),
    "sigmoid": lambda rows, gamma: torch.tanh(gamma * rows @ rows.mT + 1),
    "cosine": lambda rows, gamma: (
        torch.nn.functional.normalize(rows, dim=2) @ torch.nn.functional.normalize(rows, dim=2).mT
    ),
}


def first_kernel_component(activations: torch.Tensor, kernel: str, gamma: float | None = None) -> torch.Tensor:
    r"""Each position of (N, C, *spatial) projected on the image's first principal axis in the kernel's feature space.

    The channels are centred over the positions; of the kernel matrix, centred in feature space,
    $K' = K - 1K - K1 + 1K1$, the projection is $\sqrt{\lambda} u$ for its largest eigenvalue and that one's vector
    (Schoelkopf, Smola & Mueller 1998, eq. 9 and 18). gamma: None is 1 / C.

    Sign: as in `principal_component.first_principal_component`.
    Returns (N, *spatial), zeros where the activations do not vary. Raises ValueError for an unknown kernel.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel {kernel!r}: choose one of {', '.join(KERNELS)}")
    with torch.autocast(activations.device.type, enabled=False):
        # Of weak activations the kernel is nearly constant: what centring leaves of it is lost in float32.
        rows = activations.flatten(2).mT.to(most_precise_dtype(activations.device))
        rows = rows - rows.mean(1, keepdim=True)
        similarity = KERNELS[kernel](rows, 1 / rows.shape[2] if gamma is None else gamma)
        rounding = torch.finfo(similarity.dtype).eps * similarity.shape[1] * similarity.abs().amax((1, 2))[:, None]
        similarity = similarity - similarity.mean(1, keepdim=True)
        similarity = similarity - similarity.mean(2, keepdim=True)
        eigenvalue, vector = _largest_eigenpair(similarity)
        projection = vector * torch.where(eigenvalue > rounding, eigenvalue, 0).sqrt()
        projection = agreeing_with(rows, projection)
    return projection.to(activations.dtype).reshape(activations.shape[0], *activations.shape[2:])


def _largest_eigenpair(matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of symmetric matrices (N, P, P), positive or not: the largest eigenvalues (N, 1) and their vectors (N, P)."""
    positions = matrices.shape[1]
    if positions <= _MOST_FOR_EIGH:
        values, vectors = torch.linalg.eigh(matrices)
        return values[:, -1:], vectors[..., -1]
    start = torch.randn(positions, 1, generator=torch.Generator().manual_seed(0), device="cpu").to(matrices)
    values, vectors = torch.lobpcg(matrices, X=start.expand(len(matrices), -1, -1), largest=True, tol=_TOLERANCE)
    return values, vectors[..., 0]

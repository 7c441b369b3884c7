"""The projection of activations on their first principal component, batched and without an SVD."""

import torch

_MOST_SQUARINGS = 24
_NEARLY_RANK_ONE = 1e-2
_POLISHING = 6
# Of what the agreement would be if all channels agreed; behind a normalisation over the channels their sum is rounding.
_NO_AGREEMENT = 1e-4


def first_principal_component(activations: torch.Tensor) -> torch.Tensor:
    """Each position of (N, C, *spatial) projected on the image's first principal axis in channel space.

    The channels are centred over the positions, then M = U S V^T, and the projection is M v1 = s1 u1 (Eigen-CAM,
    Muhammad & Yeasin 2020, section 3). Computed from the Gram matrix of the smaller side, whose dominant
    eigenvector comes by repeated squaring: no LAPACK, the same on every device.

    Sign: a singular vector has none. The one returned is that which agrees with the sum over the channels (the sum of
    their products is positive): more activation, more evidence. Where the sum over the channels says nothing, being the
    same everywhere as behind a normalisation over the channels: that whose highest value is the strongest.

    Returns (N, *spatial), zeros where the activations do not vary. Cost: O(P C min(P, C)) for P positions.
    """
    with torch.autocast(activations.device.type, enabled=False):
        return _first_component_of(activations)


def agreeing_with(rows: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    """Each projection (N, P) of centred rows (N, P, C) with the sign that `first_principal_component` describes."""
    agreement = (projection * rows.sum(2)).sum(1, keepdim=True)
    possible = (projection.abs() * rows.abs().sum(2)).sum(1, keepdim=True)
    signed = torch.where(agreement < 0, -projection, projection)
    return torch.where(agreement.abs() > _NO_AGREEMENT * possible, signed, strongest_positive(projection))


def strongest_positive(maps: torch.Tensor) -> torch.Tensor:
    r"""Seg-Eigen-CAM, eq. 13: each map of (N, *spatial) negated where its $|\min|$ is above its $|\max|$."""
    axes = tuple(range(1, maps.ndim))
    lowest, highest = maps.amin(axes, keepdim=True), maps.amax(axes, keepdim=True)
    return torch.where(lowest.abs() > highest.abs(), -maps, maps)


def _first_component_of(activations: torch.Tensor) -> torch.Tensor:
    matrix = activations.flatten(2).mT
    matrix = matrix - matrix.mean(1, keepdim=True)
    scale = matrix.abs().amax((1, 2))  # squares of small values must not underflow
    matrix = _over(matrix, scale)
    if matrix.shape[1] <= matrix.shape[2]:
        u = _dominant_eigenvector(matrix @ matrix.mT)
        projection = u * (matrix.mT @ u).norm(dim=1, keepdim=True)
    else:
        projection = matrix @ _dominant_eigenvector(matrix.mT @ matrix)
    projection = agreeing_with(matrix, projection[..., 0]) * scale[:, None]
    return projection.reshape(activations.shape[0], *activations.shape[2:])


def _dominant_eigenvector(gram: torch.Tensor) -> torch.Tensor:
    """Of each positive semi-definite matrix (N, K, K): unit vectors (N, K, 1), zeros for a zero matrix.

    The power P = G^(2^t) tends to s v v^T; it is nearly rank one when its purity tr(P^2) / tr(P)^2 is nearly 1. Then a
    column of it, multiplied with it a few times more, is v: each product divides the error by 100.
    """
    power = _over(gram, _trace(gram))
    for _ in range(_MOST_SQUARINGS):
        purity = power.square().sum((1, 2))
        power = _over(power @ power, purity)
        if bool((1 - purity[purity > 0] < _NEARLY_RANK_ONE).all()):
            break
    strongest = power.diagonal(dim1=1, dim2=2).argmax(1)
    vector = power[torch.arange(len(power), device=power.device), :, strongest, None]
    for _ in range(_POLISHING):
        vector = power @ vector
    return _over(vector, vector.norm(dim=(1, 2)))


def _trace(matrices: torch.Tensor) -> torch.Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _over(tensor: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    safe = divisor.masked_fill(divisor == 0, 1)
    return tensor / safe.reshape(-1, *[1] * (tensor.ndim - 1))

"""The eigenvector of the largest eigenvalue by a fixed number of products: batched, and the same on every device."""

import math

import torch

# A Krylov basis takes some 500 small operations, each a launch on a GPU, and squaring 70. On a CPU one matrix of
# 256 x 256 takes 6 ms either way; one of 384 x 384 takes 21 ms by squaring and 7 ms with the basis.
_MOST_SQUARED = 256
# So many squarings before the next normalisation: the largest eigenvalue is at least K^-1/2, and then K^-4 = 2e-10.
_SQUARINGS_AT_ONCE = 3
# Products with a vector multiply the exponent by 16, as 4 squarings do; for 8 matrices of 196 x 196 they take 0.8 ms on
# a CPU, the squarings 6.5.
_PRODUCTS = 15
# Of white noise (1024 channels on 28 x 28 positions), the flattest spectrum tried, scaled maps are exact to 6e-6 with
# 48 dimensions and to 4e-3 with 32. 16 suffice for 1e-6 in the layers of ResNet-50 and ViT-S.
_KRYLOV_DIMENSIONS = 48
# In epsilons. Of matrices of rank 5 (257 x 257 to 3136 x 3136), Gram-Schmidt leaves at most 0.15 of a vector that the
# basis spans already, and at least 77 of one that it does not.
_ROUNDING = 10
# Below the least norm of what is not zero: 256^-8 = 5e-20, after the products with a matrix of 256 equal eigenvalues.
_NO_NORM = 1e-30


def dominant_eigenvector(matrices: torch.Tensor, shift: float = 0) -> torch.Tensor:
    r"""Unit eigenvectors (N, K) of the largest eigenvalues of symmetric matrices G (N, K, K); zeros for zeros.

    The power $(G + \text{shift})^n$ tends to a multiple of $v v^T$: beside v, another eigenvector's share shrinks by
    $(\lambda_2 / \lambda_1)^n$. Squarings, and 15 products with a vector, make n at least $16 / \sqrt{\epsilon}$ (the
    power method, Golub & Van Loan 2013, section 7.3): 65536 in float32, from 12 squarings, and 2e9 in float64. A matrix
    larger than 256 x 256 is first projected on its Krylov space of 48 dimensions (the Lanczos method with complete
    reorthogonalisation, section 10.3).

    No eigenvalue may be below -shift. The largest is expected between K^-1/2 and 1. The amount of work is fixed, and
    nothing is asked of the host: on a GPU the call does not wait.

    Error: of the order of $\epsilon / g$ with the gap $g = 1 - \lambda_2 / \lambda_1$ of the shifted matrix, while g is
    above $\sqrt{\epsilon}$, 3e-4 in float32. Below, neither the power nor float32 tells the first two eigenvectors
    apart: the result is a mixture of the two, which explains as much of the matrix. Where the user lets float32
    products run in TF32, $\epsilon$ is 1e-3.

    Cost: O(K^3) up to K = 256, O(K^2) above.
    """
    if matrices.shape[1] <= _MOST_SQUARED:
        return _by_squaring(matrices, shift)
    basis = _krylov_basis(matrices)
    coordinates = _by_squaring(basis @ matrices @ basis.mT, shift)
    return (coordinates[:, None] @ basis)[:, 0]


def unit(tensors: torch.Tensor) -> torch.Tensor:
    """Each of (N, ...) divided by its Euclidean norm; zeros for zeros."""
    axes = tuple(range(1, tensors.ndim))
    norms = torch.linalg.vector_norm(tensors, dim=axes, keepdim=True)
    return torch.div(tensors, norms.clamp(min=_NO_NORM))


def _by_squaring(matrices: torch.Tensor, shift: float) -> torch.Tensor:
    bits = -math.log2(torch.finfo(matrices.dtype).eps)
    identity = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    power = unit(matrices + shift * identity)
    for _ in range(math.ceil(bits / 2 / _SQUARINGS_AT_ONCE)):
        power = unit(torch.linalg.matrix_power(power, 2**_SQUARINGS_AT_ONCE))
    strongest = power.diagonal(dim1=1, dim2=2).argmax(1)
    row = power.take_along_dim(strongest[:, None, None], 1)
    for _ in range(_PRODUCTS):
        row = row @ power
    return unit(row[:, 0])


def _krylov_basis(matrices: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis (N, 48, K) of w G, ..., w G^48, with rows of zeros once these are linearly dependent.

    w has a share in every eigenvector; sin(i^2) looks like noise, and needs no random state. Each row is made
    orthogonal to those before it twice, which is enough (Parlett 1998, section 6.9).
    """
    rounding = _ROUNDING * torch.finfo(matrices.dtype).eps
    steps = torch.arange(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    row = steps.square().sin().expand(len(matrices), 1, -1)
    basis = matrices.new_zeros(len(matrices), 0, matrices.shape[1])
    for _ in range(_KRYLOV_DIMENSIONS):
        row = row @ matrices
        for _ in range(2):
            row = row - row @ basis.mT @ basis
        row = unit(row * (row.norm(dim=2, keepdim=True) > rounding))
        basis = torch.cat([basis, row], 1)
    return basis

"""The eigenvector behind the components: exact, for any spectrum and size, and without waiting for the device."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_grad_cam.engine.dominant_eigenvector import dominant_eigenvector, unit
from pytorch_grad_cam.engine.kernel_component import KERNELS, first_kernel_component
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.engine.principal_component import first_principal_component

# They read a value on the host, or have results whose shape depends on values, or solve with LAPACK's checks.
WAITING = (
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "unique", "linalg_eigh",
    "_linalg_eigh", "linalg_svd", "_linalg_svd", "linalg_qr", "lobpcg", "_linalg_check_errors",
)  # fmt: skip


class Operations(TorchDispatchMode):
    """The names of the operations that run inside, and the types of what indexes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").partition(".")[0]
        if name in ("index", "index_put", "index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1])
        self.names.add(name)
        return function(*args, **(kwargs or {}))


def rectified_features(positions: int) -> torch.Tensor:
    """Behind two random convolutions of smooth images: (2, 96, side, side)."""
    torch.manual_seed(positions)
    side = round(positions**0.5)
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 96, 3, padding=1), nn.ReLU())
    with torch.no_grad():
        return net(nn.functional.interpolate(torch.randn(2, 3, 5, 5), size=side, mode="bilinear"))


def tokens(positions: int) -> torch.Tensor:
    """Behind a random transformer layer, as (2, 384, side, side)."""
    torch.manual_seed(positions)
    side = round(positions**0.5)
    layer = nn.TransformerEncoderLayer(384, 6, 768, activation="gelu", batch_first=True).eval()
    images = nn.functional.interpolate(torch.randn(2, 384, 4, 4), size=side, mode="bilinear")
    with torch.no_grad():
        return layer(images.flatten(2).mT).mT.unflatten(2, (side, side))


def map_error(found: torch.Tensor, exact: np.ndarray) -> float:
    """The largest difference of scaled maps, whatever the sign of the exact ones (N, P)."""
    maps = found.flatten(1).double()
    vectors = torch.from_numpy(exact)
    vectors = vectors * (maps * vectors).sum(1, keepdim=True).sign()
    return float((min_max(maps) - min_max(vectors)).abs().max())


def centred(activations: torch.Tensor) -> torch.Tensor:
    rows = activations.flatten(2).mT.double()
    return rows - rows.mean(1, keepdim=True)


def with_spectrum(eigenvalues: list[float], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A symmetric float64 matrix (size, size) whose other eigenvalues are zero, and its eigenvectors (size, count)."""
    generator = torch.Generator().manual_seed(size)
    vectors = torch.linalg.qr(torch.randn(size, len(eigenvalues), generator=generator, dtype=torch.float64))[0]
    return (vectors * torch.tensor(eigenvalues, dtype=torch.float64)) @ vectors.T, vectors


@pytest.mark.slow
@pytest.mark.parametrize("side", [7, 18])
@pytest.mark.parametrize("kernel", [None, *KERNELS])
def test_components_do_not_wait_for_the_device(kernel, side):
    activations = torch.rand(2, 300, side, side, requires_grad=True)
    with Operations() as operations:
        found = first_kernel_component(activations, kernel) if kernel else first_principal_component(activations)
        found.square().sum().backward()
    assert "bmm" in operations.names
    assert operations.names.isdisjoint(WAITING)


@pytest.mark.parametrize("features", [rectified_features, tokens])
@pytest.mark.parametrize("positions", [49, 196, 784])
def test_principal_component_in_float32(features, positions):
    activations = features(positions)
    exact = np.linalg.svd(centred(activations).numpy(), full_matrices=False)[0][..., 0]
    assert map_error(first_principal_component(activations), exact) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("features", [rectified_features, tokens])
@pytest.mark.parametrize("positions", [49, 196, 784])
@pytest.mark.parametrize("strength", [1e-3, 1])
def test_kernel_component_in_float32(kernel, features, positions, strength):
    activations = strength * features(positions)
    rows = centred(activations)
    similarity = KERNELS[kernel](rows, 1 / rows.shape[2])
    similarity = similarity - similarity.mean(1, keepdim=True)
    similarity = similarity - similarity.mean(2, keepdim=True)
    exact = np.linalg.eigh(similarity.numpy())[1][..., -1]
    assert map_error(first_kernel_component(activations, kernel), exact) < 5e-6


@pytest.mark.parametrize(("channels", "side"), [(512, 7), (384, 14), (512, 28)])
def test_components_of_white_noise_in_float32(channels, side):
    """No spectrum is flatter."""
    torch.manual_seed(0)
    activations = torch.randn(2, channels, side, side)
    exact = np.linalg.svd(centred(activations).numpy(), full_matrices=False)[0][..., 0]
    assert map_error(first_principal_component(activations), exact) < 2e-5
    assert map_error(first_kernel_component(activations, "linear"), exact) < 5e-5


@pytest.mark.parametrize("size", [49, 196, 300])
@pytest.mark.parametrize(("gap", "error"), [(1e-1, 1e-5), (1e-2, 3e-5), (1e-3, 3e-4)])
def test_close_eigenvalues(size, gap, error):
    matrix, vectors = with_spectrum([0.7, 0.7 * (1 - gap), 0.4, 0.2, 0.1], size)
    found = dominant_eigenvector(matrix.float()[None])[0].double()
    assert (found - vectors[:, 0] * (found @ vectors[:, 0])).norm() < error


@pytest.mark.parametrize("size", [49, 196, 300])
@pytest.mark.parametrize("gap", [1e-4, 1e-6, 0])
def test_eigenvalues_that_float32_cannot_tell_apart_give_a_mixture_of_their_vectors(size, gap):
    matrix, vectors = with_spectrum([0.7, 0.7 * (1 - gap), 0.4, 0.2, 0.1], size)
    found = dominant_eigenvector(matrix.float()[None])[0].double()
    assert abs((vectors[:, :2].T @ found).norm() - 1) < 1e-5
    assert (vectors[:, 2:].T @ found).norm() < 1e-5


@pytest.mark.parametrize("size", [49, 300])
def test_close_eigenvalues_in_float64(size):
    matrix, vectors = with_spectrum([0.7, 0.7 * (1 - 1e-7), 0.4, 0.2, 0.1], size)
    found = dominant_eigenvector(matrix[None])[0]
    assert (found - vectors[:, 0] * (found @ vectors[:, 0])).norm() < 1e-6


@pytest.mark.parametrize("size", [2, 49, 256, 257, 300])
def test_equal_eigenvalues_of_all_directions_but_one(size):
    """Those of positions with a channel each."""
    matrix = torch.eye(size) - 1 / size
    found = dominant_eigenvector(unit(matrix[None]))
    torch.testing.assert_close(found.norm(), torch.tensor(1.0))
    torch.testing.assert_close(found @ matrix, found, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [49, 300])
def test_a_negative_eigenvalue_is_not_the_largest(size):
    matrix, vectors = with_spectrum([0.3, 0.2, 0.1, -0.9], size)
    found = dominant_eigenvector(matrix.float()[None], shift=1)[0].double()
    torch.testing.assert_close(abs(found @ vectors[:, 0]), torch.tensor(1.0, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [49, 300])
def test_zeros_and_a_matrix_of_rank_one_in_a_batch(size):
    matrix, vectors = with_spectrum([1.0], size)
    found = dominant_eigenvector(torch.stack([torch.zeros(size, size), matrix.float()]))
    assert not found[0].any()
    assert abs(found[1].double() @ vectors[:, 0]) > 1 - 1e-6


@pytest.mark.parametrize("side", [7, 18])
@pytest.mark.parametrize("channels", [30, 400])
def test_gradient_is_that_through_the_svd(channels, side):
    torch.manual_seed(0)
    object_ = nn.functional.interpolate(torch.rand(1, 1, 4, 4), size=side)
    values = torch.rand(1, channels, side, side) + 2 * torch.rand(1, channels, 1, 1) * object_
    weights = torch.randn(side * side)

    def through_the_svd(activations):
        rows = centred(activations)
        u, s, _ = torch.linalg.svd(rows, full_matrices=False)
        projection = u[..., 0] * s[:, :1]
        return projection * (projection * rows.sum(2)).sum(1).sign()

    gradients = []
    for component in (first_principal_component, through_the_svd):
        activations = values.clone().requires_grad_()
        (component(activations).flatten(1) * weights).sum().backward()
        gradients.append(activations.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-3 * gradients[1].abs().max().item())


@pytest.mark.parametrize("component", [first_principal_component, lambda a: first_kernel_component(a, "sigmoid")])
@pytest.mark.parametrize("side", [7, 18])
def test_gradient_of_a_dead_layer_is_finite(component, side):
    activations = torch.zeros(1, 300, side, side, requires_grad=True)
    component(activations).sum().backward()
    assert activations.grad.isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_component_in_autocast(kernel):
    torch.manual_seed(0)
    activations = torch.randn(1, 4, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = first_kernel_component(activations, kernel)
    assert torch.equal(found, first_kernel_component(activations, kernel))

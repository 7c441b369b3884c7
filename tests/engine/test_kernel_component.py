import numpy as np
import pytest
import torch
from sklearn.decomposition import KernelPCA

from pytorch_grad_cam.engine.kernel_component import KERNELS, first_kernel_component
from pytorch_grad_cam.utils.svd_on_activations import (
    get_2d_projection,
    get_2d_projection_kernel,
    get_2d_projection_with_sign_correction,
)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gamma", [None, 0.3])
@pytest.mark.parametrize("shape", [(2, 5, 2), (3, 4, 12), (2, 40, 4, 5), (2, 6, 3, 4, 5)])
def test_component_is_scikit_learns_up_to_the_sign(kernel, gamma, shape):
    torch.manual_seed(0)
    activations = torch.randn(shape, dtype=torch.float64)
    activations[:, : shape[1] // 2, : shape[2] // 2] += 2
    found = first_kernel_component(activations, kernel, gamma).flatten(1).numpy()
    for image, projection in zip(activations.flatten(2).mT.numpy(), found, strict=True):
        centred = image - image.mean(axis=0)
        expected = KernelPCA(n_components=1, kernel=kernel, gamma=gamma, eigen_solver="dense").fit_transform(centred)
        expected = expected[:, 0] * np.sign(expected[:, 0] @ centred.sum(axis=1))
        np.testing.assert_allclose(projection, expected, atol=1e-4 * np.abs(expected).max())


def test_unknown_kernel():
    with pytest.raises(ValueError, match="kernel 'gauss': choose one of linear, poly, rbf, sigmoid, cosine"):
        first_kernel_component(torch.zeros(1, 2, 3, 3), "gauss")


def test_component_of_a_large_layer():
    torch.manual_seed(0)
    activations = torch.rand(1, 8, 40, 40)
    activations[:, :4, 10:20, 5:15] += 1
    found = first_kernel_component(activations, "sigmoid").flatten().numpy()
    centred = activations.flatten(2)[0].T.numpy()
    centred = centred - centred.mean(axis=0)
    expected = KernelPCA(n_components=1, kernel="sigmoid", eigen_solver="dense").fit_transform(centred)[:, 0]
    expected *= np.sign(expected @ centred.sum(axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_component_of_weak_activations_is_not_lost_in_rounding():
    torch.manual_seed(0)
    activations = torch.rand(1, 8, 4, 5) * 1e-4
    weak = first_kernel_component(activations, "sigmoid")
    precise = first_kernel_component(activations.double(), "sigmoid")
    torch.testing.assert_close(weak.double(), precise, rtol=1e-3, atol=1e-3 * precise.abs().max().item())


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_activations_have_no_component(value):
    assert first_kernel_component(torch.full((2, 3, 4, 4), value), "sigmoid").abs().max() < 1e-6


@pytest.mark.parametrize(
    "projection", [get_2d_projection, get_2d_projection_kernel, get_2d_projection_with_sign_correction]
)
def test_projections_of_arrays(projection):
    activations = np.random.default_rng(0).random((2, 5, 3, 4)).astype(np.float32)
    activations[0, 1, 2, 3] = np.nan
    before = activations.copy()
    found = projection(activations)
    assert found.shape == (2, 3, 4)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(activations, before)
    np.testing.assert_array_equal(projection(np.nan_to_num(activations)), found)


def test_corrected_sign_makes_the_strongest_value_positive():
    activations = np.zeros((1, 2, 1, 5))
    activations[0, :, 0] = [[0, 0, 0, 0, -5], [0.1, 0.1, 0.1, 0.1, 0.1]]
    assert get_2d_projection(activations).min() < -3, "more activation is positive"
    corrected = get_2d_projection_with_sign_correction(activations)
    assert corrected.max() == -get_2d_projection(activations).min()


@pytest.mark.parametrize("side", range(3, 15))
def test_dead_layer_is_blank_on_every_grid(side):
    assert not first_kernel_component(torch.zeros(1, 8, side, side), "sigmoid").any()

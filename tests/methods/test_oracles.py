"""Every method against its paper's formula in float64 loops."""

from functools import partial

import numpy as np
import pytest
import torch
from nets import convolutional, images

from benchmarks.oracles import OPTIONS, ORACLES, finished_map, first_component
from pytorch_grad_cam.engine.kernel_component import first_kernel_component
from pytorch_grad_cam.engine.principal_component import agreeing_with, first_principal_component
from pytorch_grad_cam.grad_cam_plusplus import grad_cam_plusplus_weights


def test_every_method_has_an_oracle(method):
    assert method.__name__ in ORACLES


@pytest.mark.slow_for("ShapleyCAM", "ODAM", "RISE")
@pytest.mark.except_for("GroupCAM", reason="is blank for networks without training; signed in test_score_forms.py")
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("layer_name", ["last", "first"])
def test_map_is_the_formulas(method, rank, layer_name):
    model, x = convolutional(rank).double(), images(rank).double()
    layer, name = getattr(model, layer_name), method.__name__
    for image, category in zip(x, (3, 1), strict=True):
        expected = finished_map(ORACLES[name](model, layer, image, category), x.shape[2:])
        assert expected.max() > 0.99, "an oracle whose map is blank proves nothing"
        with method(model, layer, **OPTIONS.get(name, {})) as cam:
            np.testing.assert_allclose(cam(image[None], category)[0], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (2, 40, 3, 3), (2, 4, 30), (2, 6, 3, 4, 5)])
def test_first_principal_component_is_that_of_the_svd(shape):
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64)
    expected = np.stack([first_component(image) for image in values.numpy()])
    np.testing.assert_allclose(first_principal_component(values), expected, atol=1e-6)


def test_first_principal_component_sign_follows_the_activations_not_the_channels_order():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        activations = 0.2 * torch.rand(1, 16, 8, 8, generator=generator)
        activations[:, :8, 2:5, 3:6] += 1
        component = first_principal_component(activations)
        shuffled = first_principal_component(activations[:, torch.randperm(16, generator=generator)])
        assert component[0, 3, 4] > component[0, 7, 0], "the bright object is positive"
        torch.testing.assert_close(component, shuffled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("component", [first_principal_component, partial(first_kernel_component, kernel="sigmoid")])
def test_sign_where_the_channels_sum_says_nothing(component):
    """Behind a normalisation over the channels: that whose highest value is the strongest."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        values = torch.randn(1, 12, 5, 5, generator=generator)
        normalised = torch.nn.functional.layer_norm(values.movedim(1, -1), (12,)).movedim(-1, 1)
        found = component(normalised)
        assert found.max() >= -found.min()
        for changed in (normalised[:, torch.randperm(12, generator=generator)], normalised + 1e-6 * values):
            torch.testing.assert_close(component(changed), found, atol=1e-3, rtol=1e-3)


def test_how_much_agreement_decides_the_sign():
    """Of the share r of what it could be, 1e-4 is the least that counts."""
    projection = torch.tensor([[-3.0, 1, 1, 1], [-3.0, 1, 1, 1], [3.0, -1, -1, -1]], dtype=torch.float64)
    rows = torch.tensor([1.0, -1], dtype=torch.float64).repeat(3, 4, 1)
    for sample, share in enumerate((1.5e-4, 0.5e-4, 1.5e-4)):
        rows[sample, 1, 1] += 12 * share  # the sum of |projection| is 6, that of each row's |values| 2
    found = agreeing_with(rows, projection)
    torch.testing.assert_close(found, projection * torch.tensor([[1.0], [-1], [-1]]))


def test_first_principal_component_of_tiny_values():
    torch.manual_seed(0)
    values = torch.randn(2, 6, 4, 5)
    torch.testing.assert_close(first_principal_component(values * 1e-25) * 1e25, first_principal_component(values))


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_first_principal_component_of_constant_activations_is_zero(value):
    assert not first_principal_component(torch.full((2, 3, 4, 4), value)).any()


@pytest.mark.parametrize("scale", [1e-8, 1e-5, 1.0, 1e3])
def test_grad_cam_plusplus_weights_do_not_depend_on_an_epsilon(scale):
    """With A summing to zero influence the formula is sum(relu(g)) / 2 at every scale of the gradients."""
    grads = torch.ones(1, 2, 4, 4) * torch.tensor([1.0, 2.0])[None, :, None, None] * scale
    weights = grad_cam_plusplus_weights(torch.zeros_like(grads), grads)[0]
    torch.testing.assert_close(weights, grads.sum((2, 3))[0] / 2)

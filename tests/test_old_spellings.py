"""Code written for grad-cam 1.0 to 1.5: argument names, argument orders, NumPy subclasses."""

import numpy as np
import pytest
import torch
from nets import convolutional, images

import pytorch_grad_cam
from pytorch_grad_cam import (
    AblationCAM,
    ActivationsAndGradients,
    BaseCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    MetaCAM,
    XGradCAM,
)


def test_old_names_and_orders(method):
    model, x = convolutional(), images()
    expected = method(model, [model.last])(x, [3, 3])
    with pytest.warns(DeprecationWarning, match="use_cuda"):
        cams = [method(model, [model.last], use_cuda=False)]
    with pytest.warns(DeprecationWarning, match="use_cuda"):
        cams.append(method(model, [model.last], False))
    with pytest.warns(DeprecationWarning, match="use_cuda"):
        cams.append(method(model, [model.last], False, None))
    with pytest.warns(DeprecationWarning, match="target_layer="):
        cams.append(method(model=model, target_layer=model.last))
    for cam in cams:
        np.testing.assert_array_equal(cam(input_tensor=x, targets=[3, 3]), expected)
        with pytest.warns(DeprecationWarning, match="target_category="):
            np.testing.assert_array_equal(cam(input_tensor=x, target_category=3), expected)


def test_third_positional_argument_is_the_transform_of_1_5():
    model, x = convolutional(), images()
    cam = GradCAM(model, [model.last], lambda tensor: tensor.flip(3))
    np.testing.assert_allclose(cam(x, 3), GradCAM(model, [model.last])(x, 3)[..., ::-1], atol=1e-6)


def test_old_order_of_ablation_cam():
    model = convolutional()
    layer = pytorch_grad_cam.AblationLayer()
    with pytest.warns(DeprecationWarning, match="use_cuda"):
        cam = AblationCAM(model, [model.last], False, None, layer, 4, 0.5)
    assert (cam.ablation_layer, cam.batch_size, cam.ratio_channels_to_ablate) == (layer, 4, 0.5)


def test_subclass_of_1_x_gets_and_gives_arrays():
    class Mean(BaseCAM):
        def __init__(self, model, target_layers, use_cuda=False, reshape_transform=None):
            super().__init__(model, target_layers, use_cuda, reshape_transform)

        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            assert isinstance(input_tensor, torch.Tensor)
            return np.mean(grads, axis=(2, 3))

    model, x = convolutional(), images()
    with pytest.warns(DeprecationWarning, match="use_cuda"):
        cam = Mean(model, [model.last])
    np.testing.assert_allclose(cam(x, 3), GradCAM(model, [model.last])(x, 3), atol=1e-6)


def test_subclass_of_one_of_our_methods_gets_arrays():
    class Sharper(GradCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            weights = super().get_cam_weights(input_tensor, target_layer, targets, activations, grads)
            assert isinstance(weights, np.ndarray)
            return np.maximum(weights, 0)

        def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth=False):
            cam = super().get_cam_image(input_tensor, target_layer, targets, activations, grads, eigen_smooth)
            assert isinstance(cam, np.ndarray)
            return np.sqrt(np.maximum(cam, 0))

    model, x = convolutional(), images()
    maps = Sharper(model, [model.last])(x, 3)
    assert maps.dtype == np.float32
    assert maps.max() == 1


def test_new_subclass_may_ask_for_tensors():
    class OnDevice(LayerCAM):
        receives_tensors = True

        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            assert isinstance(grads, torch.Tensor)
            return grads.relu()

    model, x = convolutional(), images()
    np.testing.assert_array_equal(OnDevice(model, model.last)(x, 3), LayerCAM(model, model.last)(x, 3))


def test_methods_called_unbound_with_arrays():
    random = np.random.default_rng(0)
    activations, grads = random.random((2, 3, 4, 4)), random.normal(size=(2, 3, 4, 4))[..., ::-1]
    for method in (GradCAM, GradCAMPlusPlus, XGradCAM):
        weights = method.get_cam_weights(None, None, None, None, activations, grads)
        assert isinstance(weights, np.ndarray)
        assert weights.shape == (2, 3)
        by_keyword = method.get_cam_weights(None, None, None, None, activations=activations, grads=grads)
        np.testing.assert_array_equal(by_keyword, weights)


def test_replaced_hooks_of_ours():
    """mmpretrain's vis_cam.py: release, then hooks with a transform of its own."""
    model, x = convolutional(), images()
    cam = GradCAM(model, [model.last])
    cam.activations_and_grads.release()
    cam.activations_and_grads = ActivationsAndGradients(cam.model, cam.target_layers, lambda tensor: tensor.flip(3))
    np.testing.assert_allclose(cam(x, 3), GradCAM(model, [model.last])(x, 3)[..., ::-1], atol=1e-6)


def test_every_method_is_a_direct_subclass(method):
    assert issubclass(method, MetaCAM) or method in BaseCAM.__subclasses__()

"""Code written for grad-cam 1.0 to 1.5: argument names, argument orders, NumPy subclasses."""

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

import pytorch_grad_cam
from pytorch_grad_cam import (
    FEM,
    SESS,
    AblationCAM,
    ActivationsAndGradients,
    BaseCAM,
    EigenCAM,
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackpropReLUModel,
    LayerCAM,
    MetaCAM,
    RefineCAM,
    ScoreCAM,
    ShapleyCAM,
    XGradCAM,
)
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("RISE", reason="new in 2.0, takes no layers, and its options are keywords")
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


class OldActivationsAndGradients:
    """As scripts for YOLO detectors carry one: hooks of its own, lists on the host, the model's output processed."""

    def __init__(self, model, target_layers, reshape_transform):
        self.model = model
        self.reshape_transform = reshape_transform
        self.gradients, self.activations, self.handles = [], [], []
        for layer in target_layers:
            self.handles.append(layer.register_forward_hook(self.save_activation))
            self.handles.append(layer.register_forward_hook(self.save_gradient))

    def save_activation(self, module, input, output):
        self.activations.append(output.cpu().detach())

    def save_gradient(self, module, input, output):
        if hasattr(output, "requires_grad") and output.requires_grad:
            output.register_hook(lambda grad: self.gradients.insert(0, grad.cpu().detach()))

    def __call__(self, x):
        self.gradients, self.activations = [], []
        logits = self.model(x)
        return [[logits[0], logits[0].sort(descending=True).values]]

    def release(self):
        for handle in self.handles:
            handle.remove()


class OldTarget(nn.Module):
    def forward(self, data):
        logits, _ = data
        return sum([logits[3], logits[1]])


def test_replaced_hooks_of_others():
    model, x = convolutional(), images(count=1)
    expected = LayerCAM(model, ["first", "last"])(x, lambda logits: logits[3] + logits[1])
    layers = [model.first, model.last]
    cam = LayerCAM(model, layers)
    cam.activations_and_grads = OldActivationsAndGradients(model, layers, None)
    before = [parameter.grad for parameter in model.parameters()]
    np.testing.assert_allclose(cam(x, [OldTarget()]), expected, atol=1e-6)
    np.testing.assert_allclose(cam(x, [OldTarget()], aug_smooth=True).shape, expected.shape)
    assert [parameter.grad for parameter in model.parameters()] == before
    cam.activations_and_grads.release()
    assert not model.last._forward_hooks


def test_replaced_hooks_of_others_without_gradients():
    model, x = convolutional(), images(count=1)
    cam = EigenCAM(model, [model.last])
    cam.activations_and_grads = OldActivationsAndGradients(model, [model.last], None)
    np.testing.assert_allclose(cam(x), EigenCAM(model, [model.last])(x), atol=1e-6)


class Processing(ActivationsAndGradients):
    """Our hooks with a call that processes the output."""

    def __call__(self, x):
        logits = super().__call__(x)
        return [[logits[0], None]]


def test_hooks_of_ours_with_a_call_of_their_own():
    model, x = convolutional(), images(count=1)
    cam = GradCAM(model, [model.last])
    cam.activations_and_grads = Processing(model, [model.last])
    maps = cam(x, [OldTarget()])
    np.testing.assert_allclose(maps, GradCAM(model, [model.last])(x, lambda logits: logits[3] + logits[1]), atol=1e-6)


def test_forward_written_for_1_5():
    """The forward of a subclass that calls the hooks, runs backward and joins the layers itself."""

    class Own(GradCAM):
        def forward(self, input_tensor, targets, eigen_smooth=False):
            input_tensor = input_tensor.to(self.device)
            self.outputs = outputs = self.activations_and_grads(input_tensor)
            self.model.zero_grad()
            loss = sum(target(output) for target, output in zip(targets, outputs, strict=True))
            loss.backward(retain_graph=True)
            return self.aggregate_multi_layers(self.compute_cam_per_layer(input_tensor, targets, eigen_smooth))

    model, x = convolutional(), images()
    targets = [ClassifierOutputTarget(3), ClassifierOutputTarget(1)]
    cam = Own(model, [model.first, model.last])
    np.testing.assert_allclose(cam(x, targets), GradCAM(model, ["first", "last"])(x, targets), atol=1e-6)
    smoothed = GradCAM(model, ["first", "last"])(x, targets, aug_smooth=True)
    np.testing.assert_allclose(cam(x, targets, aug_smooth=True), smoothed, atol=1e-6)
    registered = GradCAM(model, ["last"], align="receptive_field")(x, targets)
    np.testing.assert_allclose(Own(model, ["last"], align="receptive_field")(x, targets), registered, atol=1e-6)


def test_compute_cam_per_layer_written_for_1_5():
    """With 1.5's own steps on NumPy arrays, and an aggregation on NumPy arrays."""

    class Own(BaseCAM):
        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            return np.mean(grads, axis=(2, 3))

        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            activations = [a.cpu().data.numpy() for a in self.activations_and_grads.activations]
            grads = [g.cpu().data.numpy() for g in self.activations_and_grads.gradients]
            target_size = self.get_target_width_height(input_tensor)
            cams = []
            for i, layer in enumerate(self.target_layers):
                cam = self.get_cam_image(input_tensor, layer, targets, activations[i], grads[i], eigen_smooth)
                cams.append(scale_cam_image(np.maximum(cam, 0), target_size)[:, None, :])
            return cams

    class Highest(GradCAM):
        def aggregate_multi_layers(self, cam_per_target_layer):
            assert all(isinstance(cam, np.ndarray) for cam in cam_per_target_layer)
            return scale_cam_image(np.max(np.concatenate(cam_per_target_layer, axis=1), axis=1))

    class Both(Own):
        aggregate_multi_layers = Highest.aggregate_multi_layers

    model, x = convolutional(), images()
    np.testing.assert_allclose(Own(model, ["first", "last"])(x, 3), GradCAM(model, ["first", "last"])(x, 3), atol=1e-6)
    highest = Highest(model, ["first", "last"])(x, 3)
    np.testing.assert_allclose(Both(model, ["first", "last"])(x, 3), highest, atol=1e-6)
    layers = GradCAM(model, ["first", "last"])
    layers.aggregate_multi_layers = lambda maps: min_max(torch.cat(maps, dim=1).amax(1))
    np.testing.assert_allclose(highest, layers(x, 3), atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_target_size_is_in_the_order_of_scale_cam_image(rank):
    model, x = convolutional(rank), images(rank)
    size = GradCAM(model, "last").get_target_width_height(x)
    assert size == x.shape[2:][::-1]
    assert scale_cam_image(np.zeros((1, *[2] * rank)), size).shape == (1, *x.shape[2:])


def test_device_of_the_model():
    assert GradCAM(convolutional(), "last").device == torch.device("cpu")
    assert GradCAM(nn.Identity()).device is None


def test_tta_transforms_and_batch_size_are_attributes():
    import ttach

    model, x = convolutional(), images()
    cam = ScoreCAM(model, [model.last])
    cam.batch_size = 3
    cam.tta_transforms = ttach.Compose([ttach.HorizontalFlip()])
    expected = (ScoreCAM(model, "last")(x, 3) + np.flip(ScoreCAM(model, "last")(x.flip(3), 3), 2)) / 2
    np.testing.assert_allclose(cam(x, 3, aug_smooth=True), expected, atol=1e-5)


@pytest.mark.except_for("LIFTCAM", "ReciproCAM", "LayerIntegratedGradients", reason="new in 2.0, share TailCAM")
@pytest.mark.except_for("GScoreCAM", "ISCAM", "SSCAM", reason="new in 2.0, forms of ScoreCAM")
def test_every_method_is_a_direct_subclass(method):
    assert issubclass(method, MetaCAM) or method in BaseCAM.__subclasses__()


class Emptying(ActivationsAndGradients):
    """Our hooks with the call of 1.5.7's, word for word: the lists are emptied, then the model runs."""

    def __call__(self, x):
        self.gradients = []
        self.activations = []
        return self.model(x)


def test_subclass_that_empties_the_lists_itself():
    model, x = convolutional(), images()
    cam = LayerCAM(model, [model.first, model.last])
    cam.activations_and_grads = Emptying(model, [model.first, model.last])
    np.testing.assert_allclose(cam(x, [3, 1]), LayerCAM(model, ["first", "last"])(x, [3, 1]), atol=1e-6)
    alone = Emptying(model, [model.last])
    alone(x)[:, 3].sum().backward()
    expected = ActivationsAndGradients(model, [model.last])
    expected(x)[:, 3].sum().backward()
    torch.testing.assert_close(alone.gradients, expected.gradients)
    torch.testing.assert_close(alone.activations, expected.activations)
    with pytest.raises(AttributeError, match="can only be emptied"):
        alone.activations = [torch.zeros(1)]


def test_subclass_that_changes_what_is_saved_is_refused():
    class Saving(ActivationsAndGradients):
        def save_activation(self, module, input, output):
            pass

    with pytest.raises(TypeError, match="Saving overrides save_activation, which is not called here"):
        Saving(convolutional(), [])


def test_replaced_hooks_behind_a_cut_graph():
    """The backbone runs under no_grad: the gradient comes by the layer's own parameters."""

    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            with torch.no_grad():
                x = self.net[:2](x)
            return self.net[2:](x)

    model, x = Cut().eval(), images(count=1)
    cam = GradCAM(model, [model.net.last])
    expected = cam(x, lambda logits: logits[3] + logits[1])
    cam.activations_and_grads = OldActivationsAndGradients(model, [model.net.last], None)
    np.testing.assert_allclose(cam(x, [OldTarget()]), expected, atol=1e-6)
    with pytest.raises(ValueError, match="OldActivationsAndGradients has 1 activations but 0 gradients"):
        cam(x, [lambda data: data[0][3].detach()])


class OwnForward(GradCAM):
    """A forward that keeps no outputs."""

    def forward(self, input_tensor, targets, eigen_smooth=False):
        outputs = self.activations_and_grads(input_tensor)
        sum(target(output) for target, output in zip(targets, outputs, strict=True)).backward()
        return self.aggregate_multi_layers(self.compute_cam_per_layer(input_tensor, targets, eigen_smooth))


def test_meta_methods_around_classes_written_for_1_5():
    class OwnCall(GradCAM):
        def __call__(self, input_tensor, targets=None, aug_smooth=False, eigen_smooth=False):
            return super().__call__(input_tensor, targets, aug_smooth, eigen_smooth)

    class OwnLayers(GradCAM):
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            return [np.asarray(cam) for cam in super().compute_cam_per_layer(input_tensor, targets, eigen_smooth)]

    model, x = convolutional(), images()
    for meta, base, options in [
        (FinerCAM, OwnForward, {}),
        (SESS, OwnCall, {"num_scales": 2}),
        (RefineCAM, OwnLayers, {}),
    ]:
        found = meta(model, ["first", "last"], base_method=base, **options)(x, [3, 1])
        expected = meta(model, ["first", "last"], base_method=GradCAM, **options)(x, [3, 1])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_meta_methods_called_by_position():
    model, x = convolutional(), images()
    cam = FinerCAM(model, ["last"])
    expected = cam(x, eigen_smooth=True, alpha=0.3, comparison_categories=[1, 2], target_idx=3)
    np.testing.assert_array_equal(cam(x, None, True, 0.3, [1, 2], 3), expected)
    np.testing.assert_array_equal(cam.forward(x, None, True, 0.3, [1, 2], 3), expected)


def test_attributes_of_meta_methods_are_those_of_1_5():
    model, x = convolutional(), images()
    cam = SESS(model, ["last"], num_scales=3)
    assert (cam.scales, cam.num_scales, cam.pool, cam.batch_size) == (None, 3, "mean", 32)
    cam.pool, cam.num_scales = "max", 2
    np.testing.assert_array_equal(cam(x, 3), SESS(model, ["last"], num_scales=2, pool="max")(x, 3))
    finer = FinerCAM(model, ["last"], base_method=FEM)
    finer.detach = False
    assert not finer.base_cam.detach
    with pytest.raises(AttributeError, match="'FinerCAM' object has no attribute 'nothing'"):
        _ = finer.nothing


def test_target_size_of_a_subclass():
    class Larger(GradCAM):
        def get_target_width_height(self, input_tensor):
            return 40, 30

    assert Larger(convolutional(), ["last"])(images(), [3, 1]).shape == (2, 30, 40)


def test_weights_of_a_mixin():
    class Weights:
        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            return np.mean(grads, axis=(2, 3))

    class Own(Weights, BaseCAM):
        pass

    model, x = convolutional(), images()
    np.testing.assert_allclose(Own(model, ["last"])(x, [3, 1]), GradCAM(model, ["last"])(x, [3, 1]), atol=1e-6)


def test_second_derivatives_of_a_class_written_for_1_5():
    """With detach=False it gets tensors in the graph, and may return an array."""

    class Own(BaseCAM):
        def __init__(self, model, target_layers, reshape_transform=None):
            super().__init__(model, target_layers, reshape_transform, detach=False)

        def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
            (product,) = torch.autograd.grad(grads, activations, activations, retain_graph=True, allow_unused=True)
            return (grads - product / 2).mean((2, 3)).detach().cpu().numpy()

    model, x = convolutional(), images()
    np.testing.assert_allclose(Own(model, ["last"])(x, [3, 1]), ShapleyCAM(model, ["last"])(x, [3, 1]), atol=1e-6)


def test_forward_that_keeps_no_outputs():
    model, x = convolutional(), images()
    targets = [ClassifierOutputTarget(3), ClassifierOutputTarget(1)]
    expected = GradCAM(model, ["last"])(x, targets, aug_smooth=True)
    np.testing.assert_allclose(OwnForward(model, ["last"])(x, targets, aug_smooth=True), expected, atol=1e-6)


def test_forwards_of_meta_methods_and_of_guided_backpropagation():
    class Doubled(FinerCAM):
        def forward(self, input_tensor, targets=None, eigen_smooth=False, **options):
            return 2 * super().forward(input_tensor, targets, eigen_smooth, **options)

    class OfNegative(GuidedBackpropReLUModel):
        def forward(self, input_img):
            return -self.model(input_img)

    model, x = convolutional(), images()
    np.testing.assert_array_equal(Doubled(model, ["last"])(x, [3, 1]), 2 * FinerCAM(model, ["last"])(x, [3, 1]))
    expected = GuidedBackpropReLUModel(model)(x, lambda logits: -logits[3])
    np.testing.assert_array_equal(OfNegative(model)(x, 3), expected)

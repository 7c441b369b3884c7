"""What holds for every method, whatever its formula."""

import contextlib
import copy
import gc
import inspect
import pickle
import pydoc
import re
import weakref

import numpy as np
import pytest
import torch
from nets import CLASSES, SIZES, Transformer, convolutional, images, state_of
from torch import nn

import pytorch_grad_cam
from pytorch_grad_cam import CamWarning, EigenCAM, GradCAM
from pytorch_grad_cam.demo import example_scene, preprocess_scene
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform


def maps_of(method, model, x, targets=None, layer="last", **options):
    with method(model, getattr(model, layer) if isinstance(layer, str) else layer) as cam:
        return cam(x, targets, **options)


def assert_nearly_everywhere(found, expected, tolerance):
    """Rounding may turn a ReLU on or off, which changes the input's gradient (FullGrad) at a few positions for good."""
    assert (np.abs(found - expected) > tolerance).mean() < 0.01


@pytest.mark.slow_for("SESS")
@pytest.mark.except_for("RandomCAM", reason="its weights may leave no positive evidence")
@pytest.mark.except_for("GroupCAM", reason="a network without training may score the blurred image higher")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_result(method, rank):
    maps = maps_of(method, convolutional(rank), images(rank, count=3), [3, 1, 3])
    assert isinstance(maps, np.ndarray)
    assert maps.dtype == np.float32
    assert maps.shape == (3, *SIZES[rank])
    assert np.isfinite(maps).all()
    np.testing.assert_array_equal(maps.reshape(3, -1).min(1), 0)
    np.testing.assert_array_equal(maps.reshape(3, -1).max(1), 1)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_deterministic(method):
    model, x = convolutional(), images()
    np.testing.assert_array_equal(maps_of(method, model, x), maps_of(method, model, x))


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_batch_is_singles(method):
    model, x = convolutional(), images(count=4)
    singles = [maps_of(method, model, image[None], 2)[0] for image in x]
    np.testing.assert_allclose(maps_of(method, model, x, 2), np.stack(singles), atol=1e-5)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_permuting_the_images_permutes_the_maps(method):
    model, x, order = convolutional(), images(count=4), [2, 0, 3, 1]
    np.testing.assert_allclose(maps_of(method, model, x[order], 1), maps_of(method, model, x, 1)[order], atol=1e-5)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_as_tensor(method):
    model, x = convolutional(), images()
    tensor = maps_of(method, model, x, as_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    np.testing.assert_array_equal(tensor.numpy(), maps_of(method, model, x))


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision(method, dtype):
    model, x = convolutional(), images()
    tolerance = {torch.float16: 0.02, torch.bfloat16: 0.2, torch.float64: 1e-4}[dtype]
    expected = maps_of(method, model, x, [3, 1])
    found = maps_of(method, copy.deepcopy(model).to(dtype), x.to(dtype), [3, 1])
    assert found.dtype == np.float32
    assert_nearly_everywhere(found, expected, tolerance)


@pytest.mark.slow
@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("SESS", reason="122 windows take a quarter of a minute")
@pytest.mark.except_for("SSCAM", "ISCAM", reason="ten to 35 forwards a channel, on ScoreCAM's way")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.03), (torch.bfloat16, 0.1), (torch.float64, 1e-4)])
def test_precision_with_trained_weights(method, dtype, tolerance, digits_net):
    scene = preprocess_scene(example_scene())
    expected = maps_of(method, digits_net, scene, 5, "layer4")
    found = maps_of(method, copy.deepcopy(digits_net).to(dtype), scene.to(dtype), 5, "layer4")
    assert np.abs(found - expected).max() < tolerance


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("FullGrad", reason="uses the biases of all layers")
@pytest.mark.except_for("RISE", reason="uses no layers")
@pytest.mark.except_for("RefineCAM", "PathCAM", reason="multiplies layers")
@pytest.mark.except_for("SESS", reason="averages the layers of each window")
def test_several_layers_are_averaged_in_any_order(method):
    model, x = convolutional(), images()
    both = []
    for order in (["first", "last"], ["last", "first"]):
        with method(model, order) as cam:
            layers = cam.target_layers
            both.append(cam(x, 3, as_tensor=True))
            cam.aggregate_multi_layers = lambda maps: torch.cat(maps, dim=1)
            single = cam(x, 3, as_tensor=True)
        assert layers == [getattr(model, name) for name in order]
        torch.testing.assert_close(both[-1], min_max(single.mean(1)))
        for position, name in enumerate(order):
            torch.testing.assert_close(
                min_max(single[:, position]), torch.from_numpy(maps_of(method, model, x, 3, layer=name))
            )
    torch.testing.assert_close(*both)


@pytest.mark.slow
@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("SESS", reason="smoothes the maps of its windows, see test_meta")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_flipping_and_scaling_smoothes(method, rank):
    model, x = convolutional(rank), images(rank)
    expected = []
    for flipped in (False, True):
        for factor in (0.9, 1, 1.1):
            maps = maps_of(method, model, factor * (x.flip(-1) if flipped else x), [3, 1])
            expected.append(np.flip(maps, -1) if flipped else maps)
    with method(model, model.last) as cam:
        smoothed = cam(x, [3, 1], aug_smooth=True)
        torch.testing.assert_close(cam.outputs, model(x))
    np.testing.assert_allclose(smoothed, np.mean(expected, axis=0), atol=1e-5)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("SESS", reason="smoothes the maps of its windows, see test_meta")
def test_own_augmentations(method):
    import ttach

    model, x = convolutional(), images()
    with method(model, model.last, tta_transforms=ttach.Compose([ttach.VerticalFlip()])) as cam:
        smoothed = cam(x, 3, aug_smooth=True)
    expected = (maps_of(method, model, x, 3) + np.flip(maps_of(method, model, x.flip(2), 3), 1)) / 2
    np.testing.assert_allclose(smoothed, expected, atol=1e-5)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("SESS", reason="smoothes the maps of its windows, see test_meta")
def test_augmentation_that_changes_the_size(method):
    import ttach

    model = convolutional()
    with method(model, model.last, tta_transforms=ttach.Compose([ttach.Rotate90([0, 90])])) as cam:
        x = torch.randn(1, 3, 16, 16)
        turned = np.rot90(maps_of(method, model, torch.rot90(x, 1, (2, 3)), 3), -1, (1, 2))
        expected = (maps_of(method, model, x, 3) + turned) / 2
        np.testing.assert_allclose(cam(x, 3, aug_smooth=True), expected, atol=1e-5)
    with method(model, model.last, tta_transforms=ttach.Compose([ttach.Scale([1, 2])])) as cam:
        assert cam(images(), 3, aug_smooth=True).shape == (2, *SIZES[2])


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_autocast(method):
    model, x = convolutional(), images()
    expected = maps_of(method, model, x, [3, 1])
    with torch.autocast("cpu", torch.bfloat16):
        assert_nearly_everywhere(maps_of(method, model, x, [3, 1]), expected, 0.2)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_augmentations_explain_the_class_of_the_clean_image(method):
    class LeftOrRight(nn.Module):
        """Class 0 for what lies left, class 1 for what lies right."""

        def __init__(self):
            super().__init__()
            self.last = nn.Conv2d(1, 4, 1)

        def forward(self, x):
            left, right = self.last(x).relu().chunk(2, dim=3)
            return torch.stack([left.sum((1, 2, 3)), right.sum((1, 2, 3))], dim=1)

    torch.manual_seed(0)
    model = LeftOrRight()
    nn.init.ones_(model.last.weight)
    x = torch.rand(1, 1, 6, 8)
    x[..., :4] += 1
    np.testing.assert_array_equal(
        maps_of(method, model, x, aug_smooth=True), maps_of(method, model, x, 0, aug_smooth=True)
    )


def test_eigen_smooth(method):
    maps = maps_of(method, convolutional(), images(), 3, eigen_smooth=True)
    assert maps.shape == (2, *SIZES[2])
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.except_for("SESS", reason="its windows are square, the test's transform is not")
@pytest.mark.except_for("FEM", reason="none of 12 tokens is two deviations above a positive mean")
def test_tokens(method):
    model, x = Transformer(), images()
    with method(model, model.norm, lambda tokens: vit_reshape_transform(tokens, 3, 4)) as cam:
        maps = cam(x)
    assert maps.shape == (2, *SIZES[2])
    assert (maps.max((1, 2)) == 1).all()


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_same_map_for_frozen_inplace_and_no_grad(method):
    x = images()
    expected = maps_of(method, convolutional(), x, [3, 1])
    frozen = convolutional(in_place=True).requires_grad_(False)
    for layer in ("last", "stem", "conv"):
        reference = maps_of(method, convolutional(), x, [3, 1], layer=layer)
        np.testing.assert_array_equal(maps_of(method, frozen, x, [3, 1], layer=layer), reference)
    model = convolutional()
    with torch.no_grad():
        np.testing.assert_array_equal(maps_of(method, model, x, [3, 1]), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(maps_of(method, model, x.clone(), [3, 1]), expected)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_same_map_when_the_model_runs_its_backbone_under_no_grad(method):
    class FrozenBackbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            with torch.no_grad():
                x = self.net[:4](x)
            return self.net[4:](x)

    model, x = FrozenBackbone().eval(), images()
    np.testing.assert_array_equal(maps_of(method, model, x, 3, layer=model.net.last), maps_of(method, model.net, x, 3))


class Failing(ClassifierOutputTarget):
    def __call__(self, model_output):
        raise KeyboardInterrupt


@pytest.mark.parametrize("outcome", ["success", "exception in the target", "exception in the model"])
def test_model_is_left_as_it_was(method, outcome):
    model, x = convolutional(), images()
    model.train()
    model.conv.eval()
    model.head.weight.requires_grad_(False)
    model(x).sum().backward()
    cam = method(model, model.last)
    before, gradients = state_of(model), [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    random_state, grad_enabled = torch.get_rng_state(), torch.is_grad_enabled()
    if outcome == "success":
        cam(x, 3, aug_smooth=True)
    elif outcome == "exception in the target":
        with pytest.raises(KeyboardInterrupt) if cam.uses_targets else contextlib.nullcontext():
            cam(x, Failing(0))
    else:
        with pytest.raises(RuntimeError, match=r"size|shape|channels"):
            cam(torch.zeros(1, 7, 12, 16))
    assert state_of(model) == before
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled() == grad_enabled
    cam.activations_and_grads.release()
    assert not model.last._forward_hooks


def test_a_graph_of_the_users_survives_the_call(method):
    model, x = convolutional(), images()
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    score = model(x).sum()
    maps_of(method, model, x, 3)
    score.backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.slow
@pytest.mark.usefixtures("own_garbage")
def test_nothing_is_kept(method):
    model = convolutional()
    cam = method(model, model.last)
    x = images()
    cam(x)
    alive = weakref.ref(x)
    del x
    assert alive() is None
    assert cam.outputs.grad_fn is None
    hooks = weakref.ref(cam.activations_and_grads)
    del cam
    gc.collect()
    assert hooks() is None
    assert not model.last._forward_hooks, "a CAM dropped without `with` takes its hooks along"


@pytest.mark.slow
@pytest.mark.usefixtures("own_garbage")
def test_a_call_makes_no_cycles_that_hold_tensors(method):
    """They would fill the memory of a GPU until Python looks for cycles."""
    model, x = convolutional(), images()
    cam = method(model, model.last)
    cam(x)
    gc.collect()
    gc.disable()
    try:
        before = _tensors()
        cam(x)
        assert _tensors() == before
    finally:
        gc.enable()


def _tensors() -> int:
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_model_with_hooks_can_be_pickled_and_copied(method):
    model, x = convolutional(), images()
    with method(model, model.last) as cam:
        expected = cam(x)
        restored = pickle.loads(pickle.dumps(model))
        np.testing.assert_allclose(maps_of(method, restored, x), expected, atol=1e-6)
        copy.deepcopy(model)(x)


def test_output_is_kept_detached(method):
    model, x = convolutional(), images()
    with method(model, model.last) as cam:
        cam(x)
        torch.testing.assert_close(cam.outputs, model(x))
        assert not cam.outputs.requires_grad


def test_no_images(method):
    model, x = convolutional(), images()
    assert maps_of(method, model, x[:0]).shape == (0, *x.shape[2:])


def test_no_layers():
    with pytest.raises(ValueError, match="target_layers is empty"):
        GradCAM(convolutional(), [])


def test_a_call_within_its_own_call():
    """A call keeps nothing on the object that another one could take away."""
    model, x = convolutional(), images()
    with GradCAM(model, "last") as cam:
        inner = []

        def target(output):
            inner.append(cam(images(seed=2), 1))
            return output[3]

        np.testing.assert_array_equal(cam(x, target), GradCAM(model, "last")(x, 3))
        np.testing.assert_array_equal(inner[0], GradCAM(model, "last")(images(seed=2), 1))


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_layer_by_name(method):
    model, x = convolutional(), images()
    np.testing.assert_array_equal(maps_of(method, model, x, layer=["last"]), maps_of(method, model, x))


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.except_for("FullGrad", reason="uses the biases of all layers")
@pytest.mark.except_for("RISE", reason="uses no layers")
@pytest.mark.except_for("SESS", reason="its windows are square, the test's transform is not")
@pytest.mark.except_for("PathCAM", reason="of its path a transform by hand reads only maps of its own shape")
def test_layer_found_by_itself(method):
    model, x = convolutional(), images()
    with method(model) as cam:
        np.testing.assert_array_equal(cam(x, 3), maps_of(method, model, x, 3))
        assert cam.target_layers == [model.last]
    transformer = Transformer()
    with method(transformer) as cam:
        maps = cam(x, 3)
        np.testing.assert_array_equal(cam(x, 3), maps)
    with method(transformer, transformer.norm, lambda tokens: vit_reshape_transform(tokens, 3, 4)) as cam:
        np.testing.assert_array_equal(cam(x, 3), maps)
    assert not transformer.norm._forward_hooks


def test_layer_is_found_anew_for_another_size():
    transformer = Transformer()
    with GradCAM(transformer) as cam:
        for size in ((12, 16), (24, 8), (12, 16)):
            assert cam(torch.randn(1, 3, *size)).shape == (1, *size)


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_sequential_is_one_layer(method):
    layers = convolutional()
    model, x = nn.Sequential(layers[:4], layers[4:]), images()
    with method(model, model[0]) as cam:
        np.testing.assert_array_equal(cam(x), maps_of(method, layers, x))


def test_layer_that_runs_twice_gives_the_mean_of_both(method):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.shared = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.shared(self.shared(x).relu()).relu().mean((2, 3))

    with method(Twice(), "shared") as cam:
        assert cam(images()).shape == (2, *SIZES[2])


def test_class_count_of_the_toy_nets():
    assert convolutional()(images()).shape == (2, CLASSES)


def test_eigen_cam_needs_no_class_scores():
    class Segmenter(nn.Sequential):
        def forward(self, x):
            return {"out": super().forward(x)}

    model = Segmenter(*convolutional()[:4])
    assert EigenCAM(model, model[3])(images(), aug_smooth=True).shape == (2, *SIZES[2])


def test_transform_reads_sizes_that_a_layer_returns():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            x = self.net[:4](x)
            return x.flatten(2).mT, x.shape[2], torch.tensor(x.shape[3])

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = Tokens()

        def forward(self, x):
            tokens, height, width = self.tokens(x)
            return self.tokens.net[4:](tokens.mT.unflatten(2, (height, int(width))))

    model, x = Model().eval(), images()
    with GradCAM(model, model.tokens, lambda o: o[0].mT.unflatten(2, (o[1], int(o[2])))) as cam:
        maps = cam(x, 3)
    np.testing.assert_allclose(maps, maps_of(GradCAM, model.tokens.net, x, 3), atol=1e-6)


def test_input_gradient():
    class Recorder(GradCAM):
        receives_tensors = True

        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            self.input_gradient = input_tensor.grad
            return super().get_cam_weights(input_tensor, target_layer, targets, activations, grads)

    model, x = convolutional(), images()
    cam = Recorder(model, model.last, compute_input_gradient=True)
    np.testing.assert_allclose(cam(x, 3), maps_of(GradCAM, model, x, 3), atol=1e-6)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[:, 3].sum(), x)
    torch.testing.assert_close(cam.input_gradient, expected)


def test_maps_in_the_graph_can_be_differentiated():
    model, x = convolutional(), images()
    with GradCAM(model, model.last, detach=False) as cam:
        maps = cam(x, 3, as_tensor=True)
    maps.sum().backward()
    assert model.stem.weight.grad.abs().sum() > 0


def test_without_gradients_no_backward_runs():
    class Mean(GradCAM):
        receives_tensors = True

        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            assert grads is None
            return activations.mean((2, 3))

    model = convolutional()
    assert Mean(model, model.last, uses_gradients=False)(images()).shape == (2, *SIZES[2])


def test_after_the_end_of_with_nothing_runs():
    with GradCAM(convolutional(), "last") as cam:
        cam(images(), 3)
    for call in (cam, cam.forward):
        with pytest.raises(RuntimeError, match="released"):
            call(images(), 3)


def test_a_hot_cell_that_is_lost_in_shrinking_is_told():
    """Of a layer with more positions than the image one may lie between the pixels."""

    class Enlarging(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.large = convolutional(), nn.Identity()

        def forward(self, x):
            hot = torch.zeros(len(x), 1, 48, 64)
            hot[:, :, 0, 0] = 1
            return self.net(x) + self.large(hot + 0 * x.mean()).sum((1, 2, 3))[:, None]

    with pytest.warns(CamWarning, match="2 of 2 maps are blank"):
        maps = GradCAM(Enlarging().eval(), "large")(images(), 3)
    assert not maps.any()


@pytest.mark.except_for("RandomCAM", reason="no paper")
def test_help_names_the_paper(method):
    shown = pydoc.render_doc(method, renderer=pydoc.plaintext)
    link = r"https://(arxiv\.org/abs/\d{4}\.\d{5}|doi\.org/10\.\S+|openaccess\.thecvf\.com/\S+)"
    assert re.search(rf"Paper: .*{link}\.$", shown, re.MULTILINE)


@pytest.mark.except_for("SESS", reason="its options are those of WindowMaps, which it names")
def test_help_lists_the_arguments(method):
    shown = pydoc.render_doc(method, renderer=pydoc.plaintext)
    own = [name for name in inspect.signature(method.__init__).parameters if name not in ("self", "options")]
    assert [name for name in own if not re.search(rf"\b{name}\b(, \w+)*:", shown)] == []


def test_dir_of_the_package_is_its_public_names():
    assert {*dir(pytorch_grad_cam)} == {*pytorch_grad_cam.__all__, "__version__"}

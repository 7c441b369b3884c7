"""Formulas on numbers that can be followed by hand."""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import (
    FEM,
    KPCA_CAM,
    SESS,
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMElementWise,
    HiResCAM,
    RandomCAM,
    ScoreCAM,
    SegmentationTarget,
    SegXResCAM,
)
from pytorch_grad_cam.ablation_cam import ablation_cam_weights
from pytorch_grad_cam.engine import rescaled_contributions
from pytorch_grad_cam.engine.bias_gradients import BiasGradients
from pytorch_grad_cam.engine.kernel_component import first_kernel_component
from pytorch_grad_cam.engine.maps import (
    check_shape,
    full_precision,
    min_max,
    over_positions,
    resize,
    scaled_evidence,
    spatial_axes,
)
from pytorch_grad_cam.engine.principal_component import first_principal_component, strongest_positive
from pytorch_grad_cam.engine.rescaled_contributions import BiasContributions, Contributions, by_shape
from pytorch_grad_cam.fem import feature_explanation
from pytorch_grad_cam.finer_cam import DEFAULT_COMPARISON_CATEGORIES, against_similar_classes
from pytorch_grad_cam.grad_cam import grad_cam_weights
from pytorch_grad_cam.grad_cam_elementwise import positive_evidence
from pytorch_grad_cam.grad_cam_plusplus import grad_cam_plusplus_weights
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLU, GuidedBackpropReLUModel
from pytorch_grad_cam.layer_cam import layer_cam_weights
from pytorch_grad_cam.metrics.arcc import ARCC, Complexity, batch_pearson_coherency
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.road import neighbors_weights
from pytorch_grad_cam.perturbation.masked_scores import channels_by_energy
from pytorch_grad_cam.perturbation.sliding_windows import EnlargedImage, Window, fused, windows_on
from pytorch_grad_cam.refine_cam import product_of_layers
from pytorch_grad_cam.score_cam import score_cam_weights
from pytorch_grad_cam.seg_xres_cam import pooled_gradients
from pytorch_grad_cam.shapley_cam import shapley_gradient
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    FinerWeightedTarget,
    SemanticSegmentationTarget,
    SoftmaxOutputTarget,
)
from pytorch_grad_cam.xgrad_cam import xgrad_cam_weights

# Two images of two channels of three positions.
ACTIVATIONS = torch.tensor([[[1.0, 2, 3], [0, -1, 2]], [[4.0, -4, 0], [1, 1, 1]]])
GRADS = torch.tensor([[[2.0, -1, 2], [1, 3, 2]], [[1.0, 1, 4], [-1, -2, 0]]])


def test_grad_cam_weights():
    torch.testing.assert_close(grad_cam_weights(GRADS), torch.tensor([[1.0, 2], [2, -1]]))


def test_layer_cam_weights():
    assert layer_cam_weights(GRADS)[1].tolist() == [[1, 1, 4], [0, 0, 0]]


def test_pooled_gradients():
    """Windows of two cells, the last one cut off by the edge, and all of the layer; of HiResCAM one cell."""
    grads = torch.tensor([[[1.0, 3, -2, 0, 5], [2, -1, 0, 4, -6]]])  # two channels of a signal
    found = pooled_gradients(grads, 2, "max")[0]
    # Three windows, at the places -0.2, 0.4, 1, 1.6 and 2.2 of which lie the centres of the five cells.
    assert found[0].tolist() == pytest.approx([3, 0.6 * 3, 0, 0.6 * 5, 5], abs=1e-5)
    assert found[1].tolist() == pytest.approx([2, 0.6 * 2 + 0.4 * 4, 4, 0.4 * 4 - 0.6 * 6, -6], abs=1e-5)
    assert pooled_gradients(grads, 2, "mean")[0, 0, [0, 2, 4]].tolist() == pytest.approx([2, -1, 5])
    torch.testing.assert_close(pooled_gradients(grads, 1, "max"), grads)
    everywhere = grads.mean(2, keepdim=True).expand_as(grads)
    torch.testing.assert_close(pooled_gradients(grads, 99, "mean"), everywhere)
    picture = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert pooled_gradients(picture, 4, "max").shape == picture.shape


def test_what_seg_xres_cam_refuses():
    for options, message in (({"window": 0}, "window is 0"), ({"window": 1.5}, "1.5"), ({"pool": "sum"}, "'sum'")):
        with pytest.raises(ValueError, match=message):
            SegXResCAM(convolutional(), "last", **options)


def test_seg_xres_cam_is_between_two_others():
    torch.manual_seed(0)
    dense, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 2, 1)), images()
    region = SegmentationTarget(0, np.ones((12, 16)))
    for options, other in (({"window": 1}, HiResCAM), ({"window": 99, "pool": "mean"}, GradCAM)):
        found = SegXResCAM(dense, "0", check_place=False, **options)(x, region)
        np.testing.assert_allclose(found, other(dense, "0", check_place=False)(x, region), atol=1e-6)


def test_positive_evidence():
    assert positive_evidence(ACTIVATIONS, GRADS).tolist() == [[[2, 0, 6], [0, 0, 4]], [[4, 0, 0], [0, 0, 0]]]


def test_xgrad_cam_weights():
    """The sums of A are 6, 1, 0 and 3, those of A g are 6, 1, 0 and -3; a channel that sums to zero has weight zero."""
    assert xgrad_cam_weights(ACTIVATIONS, GRADS).tolist() == [[1, 1], [0, -1]]
    assert xgrad_cam_weights(ACTIVATIONS[1:], GRADS[1:].flip(2)).tolist() == [[0, -1]]


def test_grad_cam_plusplus_weights():
    r"""$\sum relu(g) / (2 + g \sum A)$, without the terms whose denominator is zero."""
    activations, grads = torch.tensor([[[1.0, 2, 3], [-1, -1, 0]]]), torch.tensor([[[2.0, -1, 1], [0.5, 1, 2]]])
    expected = [2 / 14 + 1 / 8, 0.5 / 1 + 2 / -2]
    torch.testing.assert_close(grad_cam_plusplus_weights(activations, grads), torch.tensor([expected]))


def test_shapley_gradient():
    """Of a^4 it is 4 a^3 - 12 a^2 a / 2; of a score that is linear, or of another tensor, the gradient itself."""
    activation, other = torch.tensor([1.0, -2], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad((activation**4).sum(), activation, create_graph=True)
    for _ in range(2):
        torch.testing.assert_close(shapley_gradient(gradient, activation).detach(), torch.tensor([-2.0, 16]))
    assert shapley_gradient(torch.ones(2), activation).tolist() == [1, 1]
    assert shapley_gradient(other.expand(2) ** 2, activation).tolist() == [9, 9]


def test_feature_explanation():
    """The outlier of the first channel is 2 deviations above its mean; a constant channel never is above its own."""
    channels = torch.tensor([[[0.0, 0, 0, 0, 5], [3, 3, 3, 3, 3]], [[0, 0, 10, 0, 0], [0, 0, 5, 0, 0]]])
    assert feature_explanation(channels, 1.9).tolist() == [[0, 0, 0, 0, 1], [0, 0, 3, 0, 0]]
    assert not feature_explanation(channels, 2).any()


def test_ablation_cam_weights():
    falls = torch.tensor([1.0, -2, 4])
    assert ablation_cam_weights(torch.tensor(-2.0), falls).tolist() == [0.5, -1, 2]
    assert ablation_cam_weights(torch.tensor(0.0), falls).tolist() == [1, -2, 4]


def test_score_cam_weights():
    weights = score_cam_weights(torch.tensor([[0.0, math.log(3)], [7, 7]]))
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75], [0.5, 0.5]]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, -3], [0, 2]], [[-1, 3], [0, -2]]),
        ([[1, -2], [0, 2]], [[1, -2], [0, 2]]),
        ([[-3, -1], [-2, -2]], [[3, 1], [2, 2]]),
        ([[-3, -3], [-3, -3]], [[-3, -3], [-3, -3]]),
        ([[4, 1], [2, 3]], [[4, 1], [2, 3]]),
    ],
)
def test_strongest_positive(values, expected):
    maps = torch.tensor([values, [[0, 0], [0, 5]]])
    assert strongest_positive(maps).tolist() == [expected, [[0, 0], [0, 5]]]


def test_rescaled():
    biases = [torch.tensor([-2.0, 1]), torch.tensor([2.0, 0.5])]
    gradients = [torch.tensor([[[2.0, 0], [2, 1]], [[0.5, 1.5], [3, 5]]]), torch.tensor([[[1.0, 0], [0, 0]]] * 2)]
    found = Contributions.of(biases, gradients).rescaled()
    assert found.tolist() == [[[1.5, 0.25], [1, 0]], [[0.5, 1.5], [1, 0]]]
    assert not Contributions.of([torch.tensor([-0.1, 0.1])], [torch.ones(1, 2, 2, 2)]).rescaled().any()


def test_min_max():
    maps = torch.tensor([[[1.0, 3], [2, 5]], [[7, 7], [7, 7]], [[2, 3], [2, 2]]])
    assert min_max(maps).tolist() == [[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]]


def test_axes_and_sizes_of_maps():
    maps = torch.rand(2, 3, 4, 5)
    assert spatial_axes(maps) == (2, 3)
    assert over_positions(maps[..., 0, 0], maps).shape == (2, 3, 1, 1)
    assert over_positions(maps, maps).shape == maps.shape
    assert resize(maps, (4, 5)) is maps
    assert resize(torch.tensor([[[0.0, 4.0]]]), [4]).tolist() == [[[0, 1, 3, 4]]]
    assert resize(torch.tensor([[[0.0, 6.0]]]), [4], align_corners=True).tolist() == [[[0, 2, 4, 6]]]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_full_precision(dtype, expected):
    assert full_precision(torch.ones(1, dtype=dtype)).dtype is expected


def test_product_of_layers():
    first, second = torch.tensor([[[[1.0, 2, 3]]], [[[-1, 0, 2]]]]), torch.tensor([[[[0.0, 4, 8]]], [[[5, 6, 6]]]])
    assert product_of_layers([first, second]).tolist() == [[[0, 0.25, 1]], [[0, 0, 1]]]


def test_channels_by_energy():
    """Energies 2, 1, 1 and 0 (a constant channel) of the first image, half of which one channel has; 1, 4, 0, 4."""
    first = [[1.0, -1], [1, 0], [0, -1], [9, 9]]
    second = [[1.0, 0], [0, 2], [0, 0], [2, 0]]
    activations = torch.tensor([first, second])
    assert channels_by_energy(activations, 0.5).tolist() == [[True, False, False, False], [False, True, False, True]]
    assert channels_by_energy(activations, 0.9).tolist() == [[True, True, True, False], [True, True, False, True]]
    assert channels_by_energy(activations, 1).tolist() == [[True, True, True, False], [True, True, False, True]]
    assert channels_by_energy(torch.tensor([[[1e10, 0], [1, 0]]]), 1).all(), "whatever the rounding"


def test_similar_classes_are_those_of_the_closest_logits():
    """A class with the same logit is the closest; the class itself is none of them."""
    logits = torch.tensor([[2.0, 2, 5, -7], [9, 1, 0, 3]])
    first, second = against_similar_classes(logits, [1, -1], DEFAULT_COMPARISON_CATEGORIES, 0.5)
    assert (first.main_category, first.comparison_categories, first.alpha) == (1, [0, 2, 3], 0.5)
    assert (second.main_category, second.comparison_categories) == (3, [1, 2, 0])
    (few,) = against_similar_classes(logits[:1], 1, [1, 4], 0.5)
    assert few.comparison_categories == [0]
    (alone,) = against_similar_classes(logits[:1, :1], [ClassifierOutputTarget(0)], [1], 0.5)
    assert (type(alone), alone.category) == (ClassifierOutputTarget, 0)


@pytest.mark.parametrize(
    "target",
    [
        ClassifierOutputSoftmaxTarget(1),
        ClassifierOutputReST(1),
        FinerWeightedTarget(1, [0, 2], 0.5),
        SoftmaxOutputTarget(),
    ],
)
def test_targets_of_rows_are_those_of_each(target):
    rows = torch.tensor([[1.0, 2, 4], [0, -1, 3]])
    torch.testing.assert_close(target(rows), torch.stack([target(row) for row in rows]))


def test_softmax_output_target():
    torch.testing.assert_close(SoftmaxOutputTarget()(torch.tensor([0.0, math.log(3)])), torch.tensor([0.25, 0.75]))


def test_pixels_are_summed_in_full_precision():
    scores = torch.ones(1, 300, 300, dtype=torch.float16)
    assert SemanticSegmentationTarget(0, np.ones((300, 300)))(scores).item() == 90000, "beyond float16"


def test_box_target_at_its_threshold():
    """An IoU of one half is not above one half."""
    detections = {"boxes": torch.tensor([[0.0, 0, 10, 5]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.75])}
    box = [[0.0, 0, 10, 10]]
    assert FasterRCNNBoxScoreTarget([1], box)(detections) == 0
    assert FasterRCNNBoxScoreTarget([1], box, iou_threshold=0.25)(detections) == 1.25


def test_guided_rectifier():
    x = torch.tensor([-1.0, 0, 0.5, 2, 3], requires_grad=True)
    rectified = GuidedBackpropReLU.apply(x)
    assert rectified.tolist() == [0, 0, 0.5, 2, 3]
    (gradient,) = torch.autograd.grad(rectified, x, torch.tensor([1.0, 1, 2, -3, 4]))
    assert gradient.tolist() == [0, 0, 2, 0, 4]


@pytest.mark.parametrize("affine", [True, False])
def test_bias_of_a_batch_normalisation(affine):
    norm = nn.BatchNorm2d(2, eps=0.25, affine=affine).eval()
    norm.running_mean.copy_(torch.tensor([3.0, -1]))
    norm.running_var.copy_(torch.tensor([2.0, 0.75]))
    if affine:
        nn.init.constant_(norm.weight, 4)
        nn.init.constant_(norm.bias, 7)
    x = torch.randn(1, 2, 2, 2, requires_grad=True)
    watch = BiasGradients(norm)
    ((_, (bias, gradient)),), _ = watch.differentiate(watch.run(x).sum(), inputs=[x])
    torch.testing.assert_close(bias, torch.tensor([7 - 4 * 2.0, 7 + 4 * 1.0] if affine else [-2.0, 1]))
    assert gradient.tolist() == torch.ones(1, 2, 2, 2).tolist()


def test_random_weights_are_drawn_from_minus_one_to_one():
    cam = RandomCAM(convolutional(), "last", seed=0)
    weights = cam.get_cam_weights(None, None, None, torch.zeros(100, 50, 1), None)
    assert -1 <= weights.min() < -0.99
    assert 0.99 < weights.max() < 1
    assert abs(weights.mean()) < 0.05


def test_random_cams_without_a_seed_differ():
    model = convolutional()
    assert len({RandomCAM(model, "last").generator.initial_seed() for _ in range(100)}) == 100


def test_windows_on_an_enlarged_image():
    windows = windows_on((6, 8), scales=[6, 9], window_size=6, step_size=6)
    assert {window.scaled_size for window in windows} == {(6, 8), (9, 12)}
    assert [window.start for window in windows] == [(0, 0), (0, 2), (0, 0), (0, 6), (3, 0), (3, 6)]
    assert {window.size for window in windows} == {6}


def test_windows_are_cut_and_pasted_where_they_lie():
    window = Window((1, 2), 2, (3, 4))
    image = torch.arange(12.0).reshape(1, 3, 4)
    assert window.cut(image).tolist() == [[[6, 7], [10, 11]]]
    assert window.paste(torch.ones(2, 2), (3, 4)).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert EnlargedImage(image, [window]).cut([window]).tolist() == [[[[6, 7], [10, 11]]]]


def test_reduced_images_are_antialiased():
    image = torch.zeros(1, 8, 8)
    image[0, ::2, ::2] = 1
    window = Window((0, 0), 2, (2, 2))
    found = EnlargedImage(image, [window]).cut([window])[0]
    torch.testing.assert_close(found, F.interpolate(image[None], size=(2, 2), mode="bilinear", antialias=True)[0])


WINDOWS = [Window((0,), 2, (4,)), Window((1,), 2, (4,)), Window((2,), 2, (4,))]
MAPS = torch.tensor([[1.0, 4.0], [2.0, 4.0], [1.0, 0.0]])
SCORES = torch.tensor([0.25, 0.5, 0.5])


@pytest.mark.parametrize(
    ("pool", "theta", "expected"),
    [
        ("mean", 0.0, [0.5, 2, 2.5, 0]),
        ("mean", 1.0, [0, 2, 4, 0]),
        ("max", 0.0, [0.5, 2, 4, 0]),
    ],
)
def test_fused_windows(pool, theta, expected):
    """The first window's map has half the weight of the others."""
    assert fused(WINDOWS, MAPS, SCORES, (4,), pool, theta, smooth=False).tolist() == expected


def test_fused_windows_without_a_score_have_one_weight():
    assert fused(WINDOWS, MAPS, torch.zeros(3), (4,), "max", 0.0, smooth=False).tolist() == [1, 4, 4, 0]


@pytest.mark.parametrize("size", [(12, 17), (3, 7), (2, 1)])
def test_blur_is_opencvs_with_a_mirrored_border(size):
    torch.manual_seed(0)
    part = torch.rand(1, 20, 20)
    square = Window((0, 0), 20, (20, 20))
    plain, blurred = (fused([square], part, torch.ones(1), size, "max", 0.0, smooth=smooth) for smooth in (False, True))
    expected = cv2.GaussianBlur(plain.numpy(), (11, 11), 5, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


def test_neighbours_of_a_pixel():
    """All eight, direct ones with twice the weight of diagonal ones, one in all."""
    weights = dict(neighbors_weights)
    offsets = {(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)} - {(0, 0)}
    assert weights == {offset: pytest.approx((1 if all(offset) else 2) / 12) for offset in offsets}


def test_pearson_of_maps_that_do_not_vary():
    one, other = np.array([[0.0, 1, 0, 0], [2, 2, 2, 2]]), np.array([[0.0, 0.5, 0, 0], [0, 1, 0, 1]])
    np.testing.assert_allclose(batch_pearson_coherency(one, other), [1, 0])


def test_principal_component_of_one_channel_is_the_channel_centred():
    torch.testing.assert_close(
        first_principal_component(torch.tensor([[[1.0, 2, 6]]])), torch.tensor([[-2.0, -1, 3]]), atol=1e-5, rtol=1e-5
    )


def test_sign_of_a_component_whose_channels_nearly_cancel():
    channels = torch.tensor([[[1.0, -1], [-0.9, 0.9]]])
    torch.testing.assert_close(first_principal_component(channels), torch.tensor([[1.0, -1]]) * 1.81**0.5)


def test_component_of_tiny_values_one_of_them_the_mean():
    tiny = torch.tensor([[[-1e-25, 0, 1e-25]]])
    torch.testing.assert_close(first_principal_component(tiny) * 1e25, torch.tensor([[-1.0, 0, 1]]))


def test_component_with_a_channel_that_does_not_vary():
    channels = torch.tensor([[[1.0, 2, 6, 3], [5, 5, 5, 5]]])
    torch.testing.assert_close(first_principal_component(channels), torch.tensor([[-2.0, -1, 3, 0]]))


def test_component_beside_an_image_whose_component_is_found_at_once():
    """Two axes nearly as long as each other, neither of them a channel, take many squarings."""
    axes = torch.tensor([[1.0, 1, -1, -1], [0.995, -0.995, 0.995, -0.995]])
    turned = torch.tensor([[1.0, 1], [1, -1]]) @ axes
    channels = torch.stack([torch.tensor([[1.0, 2, 6, 3], [5, 5, 5, 5]]), turned])
    found = first_principal_component(channels)[1]
    torch.testing.assert_close(found, 2**0.5 * axes[0], atol=1e-3, rtol=0)


def test_component_in_autocast():
    torch.manual_seed(0)
    channels = torch.randn(1, 4, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = first_principal_component(channels)
    assert torch.equal(found, first_principal_component(channels))


def test_complexity_is_of_absolute_values():
    np.testing.assert_array_equal(Complexity()(np.array([[[1.0, -1]], [[0.0, 0.5]]])), [1, 0.25])


@pytest.mark.parametrize("targetless", [EigenCAM, KPCA_CAM, FEM, RandomCAM])
def test_methods_for_no_class_in_particular_ask_no_target(targetless):
    def target(scores):
        raise AssertionError("asked")

    with targetless(convolutional(), "last") as cam:
        assert cam(images(), target).shape == (2, 12, 16)


def test_elementwise_map_before_it_is_scaled():
    cam = GradCAMElementWise(convolutional(), "last")
    channels = torch.stack([ACTIVATIONS[0] + 1, ACTIVATIONS[0]])
    maps = cam.get_cam_image(None, None, None, channels, torch.ones_like(channels))
    assert maps.tolist() == [[3, 3, 7], [1, 2, 5]]
    smooth = cam.get_cam_image(None, None, None, channels, torch.ones_like(channels), eigen_smooth=True)
    torch.testing.assert_close(smooth, first_principal_component(channels.relu()))


class OneWay(torch.autograd.Function):
    """The identity, without a backward pass."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("differentiated")


@pytest.mark.parametrize("forward_only", [EigenCAM, KPCA_CAM, FEM, RandomCAM, ScoreCAM, AblationCAM])
def test_methods_without_gradients_run_no_backward(forward_only):
    model = convolutional()
    model.head.register_forward_hook(lambda module, inputs, output: OneWay.apply(output))
    with forward_only(model, "last") as cam:
        assert cam(images()).shape == (2, 12, 16)


def test_score_cam_counts_constant_channels_as_blank():
    model, x = convolutional(), images(count=1)
    model.conv.weight.data[2:] = 0
    activations = model[:4](x).detach()
    masks = F.interpolate(activations[0, :2, None], size=x.shape[2:], mode="bilinear", align_corners=True)
    scores = model(torch.cat([x * min_max(masks[:, 0])[:, None], torch.zeros_like(x)]))[:, 3].detach()
    with ScoreCAM(model, "last") as cam:
        weights = cam.get_cam_weights(x, model.last, [ClassifierOutputTarget(3)], activations, None)
    torch.testing.assert_close(weights[0], scores[[0, 1, *[2] * 6]].softmax(0))


def test_kernel_component_of_the_weakest_activations():
    """What is as large as its own rounding only is no component; what is small only is one."""
    torch.manual_seed(0)
    channels = torch.rand(1, 4, 3, 3, dtype=torch.float64)
    weak = first_kernel_component(channels * 1e-10, "linear")
    torch.testing.assert_close(weak * 1e10, first_kernel_component(channels, "linear"))


def test_sign_of_a_kernel_component_whose_channels_nearly_cancel():
    channels = torch.tensor([[[1.0, -1], [-0.9, 0.9]]])
    torch.testing.assert_close(first_kernel_component(channels, "linear"), torch.tensor([[1.0, -1]]) * 1.81**0.5)


class Own(GradCAM):
    """Of a user, with the call of 1.5."""

    def __call__(self, input_tensor, targets=None, aug_smooth=False, eigen_smooth=False):
        return super().__call__(input_tensor, targets, aug_smooth, eigen_smooth)


def test_windows_of_a_users_base_method():
    model, x = convolutional(), images()
    expected = SESS(model, ["last"], num_scales=2)(x, [3, 1])
    np.testing.assert_allclose(SESS(model, ["last"], base_method=Own, num_scales=2)(x, [3, 1]), expected, atol=1e-6)


@pytest.mark.parametrize("bias", [0.0, -1000.0])
def test_windows_with_the_lowest_scores_are_left_out(bias):
    """Of four windows the best, where the score is the image's mean, also where all scores are negative."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., :4, :4] = torch.arange(1, 17.0).reshape(4, 4)
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1))
    nn.init.ones_(model[3].weight)
    nn.init.constant_(model[3].bias, bias)
    options = {"scales": [8], "window_size": 4, "smooth": False, "use_softmax_scores": False}
    maps = SESS(model, model[0], pre_filter_ratio=0.75, **options)(x, 0)
    assert not maps[0, 4:].any()
    assert not maps[0, :, 4:].any()
    assert maps[0, 3, 3] == 1


@pytest.mark.parametrize(("given", "expected"), [(None, torch.device("cpu")), ("meta", "meta")])
def test_device_of_a_guided_model(given, expected):
    assert GuidedBackpropReLUModel(convolutional(), given).device == expected


def test_arcc_clips_road():
    """A road of 0.7, doubled, counts as 1, a negative one as next to nothing."""
    arcc = ARCC(base_method=None)
    arcc.coherency = lambda *_: np.array([0.5, 0.5])
    arcc.complexity = lambda *_: np.array([0.5, 0.5])
    arcc.road = lambda *_: np.array([0.7, -0.1])
    np.testing.assert_allclose(arcc(None, None, None, None), [3 / (2 + 2 + 1), 3e-8], rtol=1e-6)


def test_a_score_that_does_not_change_neither_rises_nor_falls():
    change = np.array([0.0, 2, -3])
    assert IncreaseInConfidence().of_change(change).tolist() == [0, 1, 0]
    assert DropInConfidence().of_change(change).tolist() == [0, 0, 3]


def test_positive_evidence_is_scaled_and_what_is_not_finite_is_blank():
    maps = torch.tensor([[[4.0, 2.0], [-1.0, 0.0]], [[torch.inf, 2.0], [1.0, 0.0]], [[1.0, 2.0], [torch.nan, 0.0]]])
    assert scaled_evidence(maps).tolist() == [[[1, 0.5], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]


def test_shapes_of_maps():
    image = torch.zeros(2, 3, 8, 8)
    check_shape(torch.zeros(2, 5, 4, 4), image)
    with pytest.raises(ValueError, match="4 maps for 2 inputs"):
        check_shape(torch.zeros(4, 5, 4, 4), image)
    with pytest.raises(ValueError, match="as many axes as the input"):
        check_shape(torch.zeros(4, 16, 5), image)


def test_contributions_are_computed_in_float32():
    """Of float16 products would vanish and sums be rounded."""
    bias, gradient = torch.full((3,), 2e-4), 1e-3 * torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = Contributions.of([bias.half()], [gradient.half()]).rescaled()
    contribution = (bias.half().double().reshape(-1, 1, 1) * gradient.half().double()).abs()
    lowest, highest = contribution.amin(), contribution.amax()
    torch.testing.assert_close(found.double(), ((contribution - lowest) / (highest - lowest)).sum(1, keepdim=True))


def test_small_and_large_gradients_contribute_alike(monkeypatch):
    """Small ones wait for others of their shape; large ones are not kept."""
    torch.manual_seed(0)
    watch = BiasContributions(nn.Identity())
    pairs = [
        *zip(torch.randn(3, 4), torch.randn(3, 2, 4, 5, 6), strict=True),
        (torch.randn(2), torch.randn(2, 2, 3, 3)),
    ]
    ((small, waited), _) = by_shape([(number, watch.contribution(*pair)) for number, pair in enumerate(pairs)])
    monkeypatch.setattr(rescaled_contributions, "_SMALL", 0)
    kept = [(number, watch.contribution(*pair)) for number, pair in enumerate(pairs)]
    assert all(isinstance(each, Contributions) for _, each in kept)
    ((large, at_once), _) = by_shape(kept)
    assert small == large == [0, 1, 2]
    torch.testing.assert_close(waited.rescaled(), at_once.rescaled())

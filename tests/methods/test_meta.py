"""FinerCAM, RefineCAM and SESS around any base method."""

import numpy as np
import pytest
import torch
from nets import SIZES, convolutional, images
from torch import nn

from pytorch_grad_cam import (
    SESS,
    AblationCAM,
    EigenCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMPlusPlus,
    RefineCAM,
    ScoreCAM,
    ShapleyCAM,
)
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.refine_cam import product_of_layers
from pytorch_grad_cam.sess import sliding_window, window_starts
from pytorch_grad_cam.utils.model_targets import (
    BinaryClassifierOutputTarget,
    ClassifierOutputTarget,
    FinerWeightedTarget,
    RawScoresOutputTarget,
)

BASES = [GradCAM, GradCAMPlusPlus, EigenCAM, ShapleyCAM, ScoreCAM, AblationCAM, FullGrad, FinerCAM, RefineCAM, SESS]
METAS = [FinerCAM, RefineCAM, SESS]


@pytest.mark.slow
@pytest.mark.parametrize("meta", METAS)
@pytest.mark.parametrize("base", BASES)
def test_any_base_method(meta, base):
    model, x = convolutional(), images()
    with meta(model, None if base is FullGrad else ["last"], base_method=base, **_few_windows(meta)) as cam:
        maps = cam(x, 3, aug_smooth=True, eigen_smooth=True)
        torch.testing.assert_close(cam.outputs, model(x))
        assert cam.model is model
    assert maps.shape == (2, *SIZES[2])
    assert not model.last._forward_hooks


@pytest.mark.parametrize("meta", METAS)
def test_options_go_to_the_base_method(meta):
    cam = meta(convolutional(), ["last"], base_method=ScoreCAM, compute_input_gradient=True)
    assert cam.compute_input_gradient
    cam.batch_size = 3
    assert cam.batch_size == 3
    assert (cam.window_maps if meta is SESS else cam.base_cam).batch_size == 3


@pytest.mark.parametrize("meta", METAS)
def test_forward_takes_the_arguments_of_1_5(meta):
    model, x = convolutional(), images()
    cam = meta(model, ["last"], **_few_windows(meta))
    targets = [ClassifierOutputTarget(3), ClassifierOutputTarget(1)]
    np.testing.assert_array_equal(cam.forward(x, targets, True), cam(x, targets, eigen_smooth=True))
    assert np.abs(cam.forward(x, targets, True) - cam.forward(x, targets)).max() > 0.01


@pytest.mark.parametrize("meta", METAS)
def test_a_failed_constructor_leaves_no_second_error(meta):
    with pytest.raises(ValueError, match="nowhere"):
        meta(convolutional(), ["nowhere"])
    with pytest.raises(AttributeError, match="base_cam"):
        _ = meta.__new__(meta).base_cam


@pytest.mark.parametrize("meta", METAS)
def test_maps_as_a_tensor(meta):
    with meta(convolutional(), ["last"], **_few_windows(meta)) as cam:
        maps = cam(images(), 3, as_tensor=True)
        np.testing.assert_array_equal(maps, cam(images(), 3))
    assert isinstance(maps, torch.Tensor)


def test_refine_cam_is_the_product_of_the_layers_maps():
    model, x = convolutional(), images()
    first, last = (GradCAM(model, [name])(x, [3, 1]) for name in ("first", "last"))
    refined = RefineCAM(model, ["first", "last"], base_method=GradCAM)(x, [3, 1])
    np.testing.assert_allclose(refined, min_max(torch.from_numpy(first * last)), atol=1e-6)
    swapped = RefineCAM(model, ["last", "first"], base_method=GradCAM)(x, [3, 1])
    np.testing.assert_allclose(swapped, refined, atol=1e-6)


def test_refine_cam_tells_where_the_layers_have_nothing_in_common():
    first, second = torch.zeros(2, 2, 1, 1, 4)
    first[:, 0, 0, :2] = second[1, 0, 0, 1:] = second[0, 0, 0, 2:] = 1
    with pytest.warns(CamWarning, match="1 of 2 maps are blank: no position is high in the maps of all layers"):
        maps = product_of_layers([first, second])
    assert maps.tolist() == [[[0, 0, 0, 0]], [[0, 1, 0, 0]]]


def test_finer_cam_explains_the_difference_to_similar_classes():
    model, x = convolutional(), images()
    logits = model(x)
    explicit = []
    for row, category in zip(logits, (3, 1), strict=True):
        others = [d for d in (row - row[category]).abs().argsort().tolist() if d != category]
        explicit.append(FinerWeightedTarget(category, [others[0], others[2]], 0.7))
    expected = GradCAM(model, ["last"])(x, explicit)
    cam = FinerCAM(model, ["last"])
    found = [
        cam(x, [3, 1], alpha=0.7, comparison_categories=[1, 3]),
        cam(x, alpha=0.7, comparison_categories=[1, 3], target_idx=[3, 1]),
        cam(x, explicit),
        cam.forward(x, None, False, 0.7, [1, 3], [3, 1]),
    ]
    for maps in found:
        np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_finer_cam_around_sess_takes_several_classes_an_image():
    model, x = convolutional(), images()
    cam = FinerCAM(model, ["last"], base_method=SESS, num_scales=2)
    expected = np.stack([cam(x, [0, 2]), cam(x, [1, 3])], axis=1)
    np.testing.assert_allclose(cam(x, [[0, 1], [2, 3]]), expected, atol=1e-6)


def test_finer_cam_of_a_single_logit_is_the_base_method():
    model = convolutional()
    model.head = nn.Linear(16, 1)
    x = images()
    np.testing.assert_array_equal(FinerCAM(model, ["last"])(x), GradCAM(model, ["last"])(x))


def test_finer_cam_leaves_out_classes_that_there_are_not():
    model = convolutional()
    model.head = nn.Linear(16, 3)
    assert FinerCAM(model, ["last"])(images()).shape == (2, *SIZES[2])


def test_finer_weighted_target_by_rows():
    torch.manual_seed(0)
    logits = torch.randn(4, 6)
    target = FinerWeightedTarget(2, [0, 5], 0.4)
    p = logits.softmax(1)
    expected = (p[:, 0] * (logits[:, 2] - 0.4 * logits[:, 0]) + p[:, 5] * (logits[:, 2] - 0.4 * logits[:, 5])) / (
        p[:, 0] + p[:, 5]
    )
    torch.testing.assert_close(target(logits), expected)
    torch.testing.assert_close(torch.stack([target(row) for row in logits]), expected)


@pytest.mark.parametrize(
    ("length", "step", "window", "expected"),
    [(224, 224, 224, [0]), (288, 224, 224, [0, 64]), (448, 112, 224, [0, 112, 224]), (100, 50, 224, [0])],
)
def test_window_starts(length, step, window, expected):
    assert window_starts(length, step_size=step, window_size=window) == expected


def test_sliding_window_goes_row_by_row():
    assert sliding_window(288, 224, 224, 224) == [(0, 0), (0, 64)]
    assert sliding_window(224, 288, 224, 224) == [(0, 0), (64, 0)]


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "max"},
        {"theta": 0.5},
        {"smooth": False},
        {"pre_filter_ratio": 0.5},
        {"use_softmax_scores": False},
        {"scales": [12, 15], "window_size": 12, "step_size": 4},
        {"scales": [8], "window_size": 8},
    ],
)
def test_sess_options_change_the_map(options):
    model, x = convolutional(), images(count=1)
    plain = SESS(model, ["last"], num_scales=2)(x, 3)
    other = SESS(model, ["last"], **{"num_scales": 2, **options})(x, 3)
    assert other.shape == plain.shape
    assert (other.min(), other.max()) == (0, 1)
    assert np.abs(other - plain).max() > 1e-3


def test_sess_batches_do_not_matter():
    model, x = convolutional(), images()
    expected = SESS(model, ["last"], num_scales=3)(x, [3, 1])
    found = SESS(model, ["last"], num_scales=3, batch_size=2)(x, [3, 1])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sess_of_one_logit_weighs_windows_by_its_probability():
    one, two, x = convolutional(), convolutional(), images()
    one.head, two.head = nn.Linear(16, 1), nn.Linear(16, 2)
    two.head.weight.data = torch.cat([torch.zeros(1, 16), one.head.weight.data])
    two.head.bias.data = torch.cat([torch.zeros(1), one.head.bias.data])
    options = {"num_scales": 3, "pre_filter_ratio": 0.4}
    expected = SESS(two, ["last"], **options)(x, 1)
    found = SESS(one, ["last"], **options)(x, BinaryClassifierOutputTarget(1))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    flat = nn.Sequential(*one, nn.Flatten(0))
    for batch_size in (1, 32):
        found = SESS(flat, [flat[3]], batch_size=batch_size, **options)(x, RawScoresOutputTarget())
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sess_tells_of_blank_maps_and_not_of_blank_windows(recwarn):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    model = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    model[-1].weight.data.abs_()
    x = torch.zeros(2, 3, 12, 12)
    x[0, :, :3, :3] = torch.rand(3, 3, 3)
    with SESS(model, ["1"]) as cam:
        maps = cam(x, 1)
    assert maps[0].max() == 1
    (warning,) = [each for each in recwarn if issubclass(each.category, CamWarning)]
    assert str(warning.message) == "1 of 2 maps are blank: so are those of all windows"
    assert warning.message.samples == [1]
    assert warning.filename == __file__


def test_sess_of_one_window_is_the_base_method():
    model = convolutional()
    x = torch.randn(2, 3, 12, 12)
    maps = SESS(model, ["last"], num_scales=1, smooth=False)(x, [3, 1])
    np.testing.assert_allclose(maps, GradCAM(model, ["last"])(x, [3, 1]), atol=1e-6)


def test_sess_smoothes_the_maps_of_its_windows():
    model = convolutional()
    x = torch.randn(1, 3, 12, 12)
    maps = SESS(model, ["last"], num_scales=1, smooth=False)(x, 3, aug_smooth=True)
    smoothed = min_max(torch.from_numpy(GradCAM(model, ["last"])(x, 3, aug_smooth=True)))
    np.testing.assert_allclose(maps, smoothed, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "median"}, "pool"),
        ({"pre_filter_ratio": 1.0}, "pre_filter_ratio"),
        ({"num_scales": 0}, "num_scales"),
    ],
)
def test_sess_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        SESS(convolutional(), ["last"], **options)


def test_sess_refuses_a_scale_below_the_window():
    with pytest.raises(ValueError, match="scale 6 is below the window size 12"):
        SESS(convolutional(), ["last"], scales=[6])(images(), 3)


def _few_windows(meta):
    return {"num_scales": 2} if meta is SESS else {}


def test_blank_windows_ask_for_no_other_layer(monkeypatch):
    model, x = convolutional(), images()
    model.head.weight.data.zero_()
    cam, asked = SESS(model, ["last"], num_scales=2), []
    monkeypatch.setattr(cam.base_cam._found_layers, "advice", lambda *asked_for: asked.append(asked_for))
    with pytest.warns(CamWarning):
        cam(x, [3, 1])
    assert asked == []


@pytest.mark.parametrize("targets", [[3, 1, 0], [[3, 1], [0, 2], [1, 4]]], ids=str)
def test_layers_are_found_with_the_targets_of_the_first_images(targets):
    model, x = convolutional(), images(count=3)
    found = FinerCAM(model)(x, targets)
    np.testing.assert_allclose(found, FinerCAM(model, "last")(x, targets), atol=1e-6)

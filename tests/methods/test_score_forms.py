"""What Score-CAM's forms and Smooth Grad-CAM++ do beside their oracles: numbers by hand, costs, what is refused."""

import numpy as np
import pytest
import torch
from nets import convolutional, images

from benchmarks.oracles import OPTIONS, ORACLES, enlarged
from pytorch_grad_cam import ISCAM, ODAM, SSCAM, GroupCAM, GScoreCAM, HiResCAM, ScoreCAM, SmoothGradCAMPlusPlus
from pytorch_grad_cam.demo import example_scene, preprocess_scene
from pytorch_grad_cam.group_cam import group_masks
from pytorch_grad_cam.gscore_cam import highest_gradients
from pytorch_grad_cam.odam import odam_weights
from pytorch_grad_cam.smooth_grad_cam_plusplus import smooth_grad_cam_plusplus_weights
from pytorch_grad_cam.ss_grad_cam import ss_grad_cam_weights


def scored(cam, model, x, targets):
    """How many images the model is shown by a later call."""
    cam.check_place, sizes = False, []
    cam(x, targets)
    handle = model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    cam(x, targets)
    handle.remove()
    return sum(sizes)


def test_costs():
    model, x, channels = convolutional(), images(), 8
    varying = int((model[:4](x).flatten(2).amax(2) > model[:4](x).flatten(2).amin(2)).sum())
    assert varying > channels
    for targets in (1, [[1, 3]] * 2):
        assert scored(SSCAM(model, "last", samples=3), model, x, targets) == 4 + 3 * varying
        assert scored(ISCAM(model, "last", steps=4), model, x, targets) == 4 + 4 * varying
        assert scored(SmoothGradCAMPlusPlus(model, "last", samples=5), model, x, targets) == 2 + 2 * 5
    assert scored(GScoreCAM(model, "last", share=0.25), model, x, 1) <= 4 + 2 * 2
    assert scored(GroupCAM(model, "last", groups=4), model, x, 1) == 2 + 2 + 2 * 4
    assert scored(GroupCAM(model, "last", groups=4), model, x, [[1, 3]] * 2) == 2 + 2 * (2 + 2 * 4)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("layer", ["last", "first"])
def test_group_cam_is_the_formulas(rank, layer):
    """Signed: of networks without training the blurred image often has the higher score."""
    model, x = convolutional(rank).double(), images(rank).double()
    cam = GroupCAM(model, layer, relu=False, normalize=None, **OPTIONS["GroupCAM"])
    for image, category in zip(x, (3, 1), strict=True):
        expected = enlarged(ORACLES["GroupCAM"](model, getattr(model, layer), image, category), x.shape[2:])
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(cam(image[None], category)[0], expected, atol=1e-6, rtol=1e-4)


def test_group_cam_of_the_bundled_network(digits_net):
    scene = preprocess_scene(example_scene())
    cam = GroupCAM(digits_net, "layer4")
    assert scored(cam, digits_net, scene, 5) == 34
    maps = cam(scene.repeat(2, 1, 1, 1), [5, 3])
    assert maps.min() == 0
    assert (maps.max((1, 2)) == 1).all()


def test_all_channels_are_score_cam():
    model, x = convolutional(), images()
    np.testing.assert_allclose(GScoreCAM(model, "last", share=1.0)(x, 1), ScoreCAM(model, "last")(x, 1), atol=1e-6)
    np.testing.assert_allclose(ISCAM(model, "last", steps=1)(x, 1), ScoreCAM(model, "last")(x, 1), atol=1e-6)
    without_noise = SSCAM(model, "last", samples=2, std=0.0)
    np.testing.assert_allclose(without_noise(x, 1), ScoreCAM(model, "last")(x, 1), atol=1e-6)


def test_highest_gradients():
    grads = torch.tensor([[[1.0, 1], [-5, 1], [2, 4], [0, 0]]])
    assert highest_gradients(grads, 0.5).tolist() == [[True, False, True, False]]
    assert highest_gradients(grads, 0.51).tolist() == [[True, False, True, True]]


def test_group_masks():
    """Channels weighted by 2, 1 and -1; the quantile .7 of (2, 6, 10) is 6.8, of (0, 0, 3) 1.2."""
    activations = torch.tensor([[[1.0, 2, 3], [0, 2, 4], [3, 0, -3]]])
    grads = torch.tensor([[[2.0, 2, 2], [1, 1, 1], [-1, -1, -1]]])
    assert group_masks(activations, grads, 2).tolist() == [[[0, 0, 1], [0, 0, 1]]]
    assert group_masks(activations, grads, 9).shape == (1, 3, 3)
    assert not group_masks(activations, 0 * grads, 2).any()


def test_ss_grad_cam_weights():
    grads = torch.tensor([[[2.0, -4, 8], [0, 0, 0], [1, 1, 1]]])
    assert ss_grad_cam_weights(grads).tolist() == [[[0.5, 1, 2], [0, 0, 0], [1, 1, 1]]]


def test_odam_weights():
    """Of a point the Gaussian itself; of a constant gradient nothing is lost at the border."""
    point = torch.zeros(1, 1, 9)
    point[..., 4] = 1
    smoothed = odam_weights(point, 0.8)[0, 0]
    assert smoothed.sum() == pytest.approx(1)
    assert smoothed[3] / smoothed[4] == pytest.approx(np.exp(-1 / (2 * 0.8**2)))
    torch.testing.assert_close(odam_weights(torch.full((1, 2, 3, 4), 2.0), 1.5), torch.full((1, 2, 3, 4), 2.0))


def test_odam_without_smoothing_is_hirescam():
    model, x = convolutional(), images()
    np.testing.assert_allclose(ODAM(model, "last", sigma=0.05)(x, 1), HiResCAM(model, "last")(x, 1), atol=1e-6)


def test_smooth_grad_cam_plusplus_weights():
    """Gradients 1 and 3 of the first position: 2, 5 and 14 on average; A sums to 3. The other says nothing."""
    activations = torch.tensor([[[1.0, 2]]])
    grads = torch.tensor([[[[1.0, 0]]], [[[3.0, 0]]]])
    expected = torch.tensor([[5 / (2 * 5 + 3 * 14) * 2]])
    for scale in (1, 1e-15):
        found = smooth_grad_cam_plusplus_weights(activations / scale, grads * scale)
        torch.testing.assert_close(found / scale, expected)


def test_noise_is_the_seeds():
    model, x = convolutional(), images()
    first, again, other = (SmoothGradCAMPlusPlus(model, "last", std=2.0, seed=seed)(x, 1) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: SSCAM(model, "last", samples=0), "samples is 0, expected at least 1"),
        (lambda model: ISCAM(model, "last", steps=0), "steps is 0, expected at least 1"),
        (lambda model: SmoothGradCAMPlusPlus(model, "last", samples=0), "samples is 0, expected at least 1"),
        (lambda model: GroupCAM(model, "last", groups=0), "groups is 0, expected at least 1"),
        (lambda model: GScoreCAM(model, "last", share=0), r"share is 0, expected a share in \(0, 1\]"),
        (
            lambda model: ODAM(model, "last", sigma=0),
            "sigma is 0, expected above 0; without .* HiResCAM",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(convolutional())

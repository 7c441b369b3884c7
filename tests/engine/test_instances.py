"""More of a prediction than its score: its mask, its keypoints, its angle."""

import numpy as np
import pytest
import torch
from detectors import (
    SQUARES,
    Cells,
    torchvision_faster_rcnn,
    torchvision_keypoint_rcnn,
    torchvision_mask_rcnn,
    two_squares,
)

from pytorch_grad_cam import BoxTarget, DetectionTarget, LayerCAM
from pytorch_grad_cam.engine.detections.forms import detected


def photo():
    return torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))


def returned_by(module, run):
    kept = []
    handle = module.register_forward_hook(lambda *call: kept.append(call[2]))
    run()
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("number", [0, 3])
def test_the_mask_of_a_region_is_the_one_that_is_reported(number):
    net, x = torchvision_mask_rcnn(), [photo()]
    reported = returned_by(net.roi_heads.mask_predictor, lambda: net(x))
    (label,) = net(x)[0]["labels"][[number]]
    cam = LayerCAM(net)
    maps = cam(x, DetectionTarget(number, of="mask"))
    (predictions,) = cam.predictions
    row = predictions.row_of(predictions.detections()[number][None])
    logits = predictions.masks.of(row)
    torch.testing.assert_close(logits, reported[number, label].detach(), rtol=1e-4, atol=1e-5)
    predicted = logits > 0 if (logits > 0).any() else logits == logits
    torch.testing.assert_close(DetectionTarget(number, of="mask")(predictions), logits[predicted].mean())
    assert maps.max() == 1
    x0, y0, x1, y1 = predictions.boxes[row][0].round().int().tolist()
    assert maps[0, max(y0 - 8, 0) : y1 + 8, max(x0 - 8, 0) : x1 + 8].sum() > 0.9 * maps.sum()


def test_the_keypoint_of_a_region_is_the_highest_logit_of_its_heat_map():
    net, x = torchvision_keypoint_rcnn(), [photo()]
    heat = returned_by(net.roi_heads.keypoint_predictor, lambda: net(x))
    cam = LayerCAM(net)
    for keypoint in (0, 3):
        target = DetectionTarget(1, of=f"keypoint:{keypoint}")
        maps = cam(x, target)
        assert maps.max() == 1
        expected = heat[1, keypoint].amax().detach()
        torch.testing.assert_close(target(cam.predictions[0]), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"keypoint:4.*has 4 keypoints, from 0"):
        cam(x, DetectionTarget(1, of="keypoint:4"))


def test_a_region_of_a_resized_image_is_that_of_what_was_shown():
    net, x = torchvision_mask_rcnn(), [torch.rand(3, 50, 40, generator=torch.Generator().manual_seed(0))]
    reported = returned_by(net.roi_heads.mask_predictor, lambda: net(x))
    (label,) = net(x)[0]["labels"][[0]]
    cam = LayerCAM(net)
    maps = cam(x, DetectionTarget(0, of="mask"))
    assert maps.shape == (1, 50, 40)
    (predictions,) = cam.predictions
    logits = predictions.masks.of(predictions.row_of(predictions.detections()[:1]))
    torch.testing.assert_close(logits, reported[0, label].detach(), rtol=1e-3, atol=1e-4)


def test_nothing_of_the_graph_is_kept_with_the_predictions():
    cam = LayerCAM(torchvision_mask_rcnn())
    cam([photo()], 1)
    regions = cam.predictions[0].masks.regions
    assert not any(maps.requires_grad for maps in regions.features.values())
    assert not regions.boxes.requires_grad


def test_keypoints_of_cells():
    model, x = Cells(kpt_shape=(3, 3)).eval(), two_squares()
    for keypoint in range(3):
        cam = LayerCAM(model)
        maps = cam(x, BoxTarget(SQUARES[0], 0, of=f"keypoint:{keypoint}"))
        expected = BoxTarget(SQUARES[0], 0)(cam.predictions[0])
        found = BoxTarget(SQUARES[0], 0, of=f"keypoint:{keypoint}")(cam.predictions[0])
        torch.testing.assert_close(found, 2 * (1 + keypoint) * expected)
        np.testing.assert_allclose(maps, LayerCAM(model)(x, BoxTarget(SQUARES[0], 0)), atol=1e-6)


def test_the_angle_of_an_oriented_box():
    model, x = Cells(angle=0.3).eval(), two_squares()
    cam = LayerCAM(model)
    target = BoxTarget(SQUARES[0], 0, of="angle")
    maps = cam(x, target)
    torch.testing.assert_close(target(cam.predictions[0]), torch.tensor(0.3))
    np.testing.assert_allclose(maps, LayerCAM(model)(x, BoxTarget(SQUARES[0], 0)), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "of", "message"),
    [
        (Cells, "mask", "no masks"),
        (Cells, "angle", "no angles"),
        (Cells, "keypoint:0", "no keypoints with a score"),
        (lambda: Cells(kpt_shape=(3, 2)), "keypoint:0", "no keypoints with a score"),
        (lambda: Cells(kpt_shape=(3, 3)), "keypoint:3", "has 3 keypoints"),
    ],
)
def test_what_a_detector_does_not_have(model, of, message):
    with pytest.raises(ValueError, match=message):
        LayerCAM(model().eval())(two_squares(), BoxTarget(SQUARES[0], 0, of=of))


def test_without_heads_of_their_own_there_are_none():
    net, x = torchvision_faster_rcnn(), [photo()]
    cam = LayerCAM(net)
    cam(x)
    assert cam.predictions[0].masks is cam.predictions[0].keypoints is None
    assert detected(net, net(x), (64, 96)).predictions[0].masks is None


@pytest.mark.parametrize("of", ["keypoint", "keypoint:", "keypoint:-1", "keypoints:0", "masks", 5])
def test_spelling(of):
    with pytest.raises(ValueError, match="'keypoint:0'"):
        BoxTarget((0, 0, 1, 1), of=of)

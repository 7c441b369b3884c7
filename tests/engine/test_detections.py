"""Detectors: predictions by the form of the output, and the one that a target names."""

import math
import threading

import numpy as np
import pytest
import torch
from detectors import (
    REACH,
    SQUARES,
    Cells,
    Queries,
    torchvision_faster_rcnn,
    torchvision_fcos,
    two_squares,
)
from torch import nn
from torch.utils._pytree import tree_map_only
from torchvision import ops

from pytorch_grad_cam import (
    BoxTarget,
    CamWarning,
    DetectionTarget,
    EigenCAM,
    GradCAM,
    HiResCAM,
    LayerCAM,
    Predictions,
    ScoreCAM,
)
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.demo.detectors import load_digits_detector, preprocess_detector
from pytorch_grad_cam.engine.detections.box_targets import resolved
from pytorch_grad_cam.engine.detections.forms import detected
from pytorch_grad_cam.engine.detections.log_odds import log_odds
from pytorch_grad_cam.engine.detections.predictions import Suppression
from pytorch_grad_cam.engine.detections.raw_predictions import (
    raw_predictions_kept,
    raw_predictions_of,
    suppressing_modules,
)
from pytorch_grad_cam.engine.detections.shown_images import shown_by
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget

SIZE = (64, 64)
FORMS = {
    "cells": Cells,
    "bins": lambda: Cells(bins=4),
    "one to one": lambda: Cells(sorted_best=True),
    "masks": lambda: Cells(with_masks=True),
    "softmax": lambda: Queries(no_object=True),
    "sigmoid": lambda: Queries(no_object=False),
}


@pytest.fixture(params=FORMS)
def blobs(request):
    return FORMS[request.param]().eval()


def predictions_of(model, x):
    with torch.no_grad():
        return detected(model, model(x), tuple(x.shape[2:])).predictions


def box_around(row, column, stride=8):
    return ((column + 0.5 - REACH) * stride, (row + 0.5 - REACH) * stride) + (
        (column + 0.5 + REACH) * stride,
        (row + 0.5 + REACH) * stride,
    )


def cell(row, column):
    return 8 * row + column


# The forms


def test_boxes_in_pixels(blobs):
    predictions = predictions_of(blobs, two_squares())[0]
    torch.testing.assert_close(predictions.boxes[cell(2, 5)], torch.tensor(box_around(2, 5)))
    torch.testing.assert_close(predictions.boxes[64 + 4 * 1 + 3], torch.tensor(box_around(1, 3, 16)))
    assert predictions.boxes.shape == (80, 4)
    assert predictions.logits.shape == predictions.scores.shape == (80, 2)
    assert predictions.size == SIZE


def test_images_that_are_no_squares(blobs):
    predictions = predictions_of(blobs, torch.rand(1, 3, 64, 96))[0]
    torch.testing.assert_close(predictions.boxes[12 * 2 + 9], torch.tensor(box_around(2, 9)))


def test_logits_and_scores(blobs):
    x = two_squares()
    _, logits = blobs.maps(x)
    predictions = predictions_of(blobs, x)[0]
    torch.testing.assert_close(predictions.logits, logits[0].mT.detach())
    expected = logits[0].mT.sigmoid()
    if getattr(blobs, "no_object", False):
        expected = torch.cat([logits[0].mT, torch.ones(80, 1)], dim=1).softmax(1)[:, :2]
    torch.testing.assert_close(predictions.scores, expected.detach())


def test_texts_are_no_classes_without_an_object():
    model = Queries(no_object=True)
    model.config.text_config = "any"  # three texts
    assert predictions_of(model, two_squares())[0].scores.shape == (80, 3)


def test_the_upright_box_around_an_oriented_one():
    model = Cells(angle=math.pi / 6)
    box = predictions_of(model, two_squares())[0].boxes[cell(2, 5)]
    corners = [(x, y) for x in (-12.0, 12.0) for y in (-12.0, 12.0)]
    turned = torch.tensor(
        [[x * math.cos(math.pi / 6) - y * 0.5, x * 0.5 + y * math.cos(math.pi / 6)] for x, y in corners]
    )
    expected = torch.cat([turned.amin(0), turned.amax(0)]) + torch.tensor([44.0, 20.0] * 2)
    torch.testing.assert_close(box, expected)


def test_a_form_of_the_users_own():
    class Own(Cells):
        def forward(self, x):
            return torch.stack(super().forward(x)[1]["scores"].unbind(), dim=0)

    def predictions(logits):
        boxes = predictions_of(Cells(), torch.zeros(1, 3, *SIZE))[0].boxes
        return [Predictions(boxes, each.mT, each.mT.sigmoid(), torch.tensor([[10, 11]]), SIZE) for each in logits]

    target = BoxTarget(SQUARES[1], 10)
    maps = LayerCAM(Own().eval(), output_transform=lambda output: predictions(output.clone()))(two_squares(), target)
    np.testing.assert_array_equal(maps, LayerCAM(Cells().eval())(two_squares(), BoxTarget(SQUARES[1], 0)))


def test_a_box_of_what_is_no_detector():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"BoxTarget.*needs a detector's output.*shape \(4,\).*output_transform"):
        LayerCAM(net)(two_squares(), BoxTarget(SQUARES[0]))


# The map of a box


def shares(maps):
    """Which share of a map lies in each square, with half a cell around it."""
    near = [(slice(max(y0 - 4, 0), y1 + 4), slice(max(x0 - 4, 0), x1 + 4)) for x0, y0, x1, y1 in SQUARES]
    return [maps[..., rows, columns].sum((-2, -1)) / maps.sum((-2, -1)) for rows, columns in near]


@pytest.mark.parametrize("kind", [LayerCAM, HiResCAM])
@pytest.mark.parametrize("number", [0, 1])
def test_the_map_lies_on_the_object_of_the_box_and_not_on_one_that_looks_alike(kind, number, blobs):
    maps = kind(blobs)(two_squares(), BoxTarget(SQUARES[number], 0), as_tensor=True)
    assert shares(maps)[number] > 0.99
    assert shares(maps)[1 - number] < 0.01


def test_several_boxes_from_one_forward_and_as_one_by_one(blobs):
    cam, runs = LayerCAM(blobs), []
    targets = [BoxTarget(square, 0) for square in SQUARES]
    alone = [LayerCAM(blobs)(two_squares(), target)[0] for target in targets]
    cam(two_squares(), [targets])
    handle = blobs.heads[0].register_forward_hook(lambda *_: runs.append(1))
    maps = cam(two_squares(), [targets])
    handle.remove()
    assert len(runs) == 1
    np.testing.assert_allclose(maps[0], np.stack(alone), atol=1e-6)


def test_images_with_different_numbers_of_boxes(blobs):
    x = torch.cat([two_squares()] * 2)
    targets = [[BoxTarget(SQUARES[0], 0), BoxTarget(SQUARES[1], 0)], [BoxTarget(SQUARES[1], 0)]]
    cam = LayerCAM(blobs)
    maps = cam(x, targets)
    assert [each.shape for each in maps] == [(2, *SIZE), (1, *SIZE)]
    np.testing.assert_allclose(maps[0][1], maps[1][0], atol=1e-6)
    assert len(cam.predictions) == len(cam.outputs) == 2


@pytest.mark.parametrize("label", [0, None])
def test_the_score_is_the_logit_of_the_prediction_that_overlaps_most(label, blobs):
    predictions = predictions_of(blobs, two_squares())[0]
    target = BoxTarget(box_around(4, 4), label)
    expected = predictions.logits[cell(4, 4)]
    torch.testing.assert_close(target(predictions), expected[0] if label == 0 else expected.max())


def test_of_equal_boxes_the_one_with_the_highest_score():
    boxes = torch.tensor([[0.0, 0, 4, 4]] * 3 + [[8.0, 8, 12, 12]])
    scores, labels = torch.tensor([[0.1], [0.6], [0.3], [0.9]]), torch.tensor([[1], [2], [2], [1]])
    predictions = Predictions(boxes, scores.logit(), scores, labels, SIZE)
    for label, expected in ((None, 0.6), (2, 0.6), (1, 0.1)):
        torch.testing.assert_close(BoxTarget((0, 0, 4, 5), label)(predictions).sigmoid(), torch.tensor(expected))


def test_overlap_and_its_gradient():
    boxes = torch.tensor([[0.0, 0, 4, 4], [2.0, 2, 2, 2], [6.0, 6, 3, 3], [20.0, 20, 30, 30]], requires_grad=True)
    scores = torch.full((4, 1), 0.5)
    predictions = Predictions(boxes, scores, scores, scores.long(), SIZE)
    torch.testing.assert_close(predictions.iou((2, 0, 6, 4)), torch.tensor([1 / 3, 0, 0, 0]))
    (gradient,) = torch.autograd.grad(BoxTarget((2, 0, 6, 4), of="box")(predictions), boxes)
    # Shared (x1 - 2) * 4, the whole 16 + 16 - shared: 4 * 24 + 8 * 4 over 24 ** 2, less the box's growth, 8 * 4.
    torch.testing.assert_close(gradient[0, 2], torch.tensor((4 * 24 + 8 * 4 - 8 * 4) / 24**2))
    assert gradient.isfinite().all()
    assert not gradient[1:].any()


def test_a_class_and_the_best_detection(blobs):
    x = two_squares()
    predictions = predictions_of(blobs, x)[0]
    for label in (0, 1):
        best = int(predictions.scores[:, label].argmax())
        expected = LayerCAM(blobs)(x, BoxTarget(predictions.boxes[best], label))
        np.testing.assert_allclose(LayerCAM(blobs)(x, label), expected, atol=1e-6)
    best, label = divmod(int(predictions.scores.argmax()), 2)
    expected = LayerCAM(blobs)(x, BoxTarget(predictions.boxes[best], label))
    np.testing.assert_allclose(LayerCAM(blobs)(x), expected, atol=1e-6)
    np.testing.assert_allclose(LayerCAM(blobs)(x, DetectionTarget(0)), expected, atol=1e-6)


def test_callables_read_what_they_ever_did():
    x = two_squares()
    for model in (Cells(), Cells(with_masks=True)):
        maps = LayerCAM(model.eval())(x, lambda decoded: decoded[4, cell(2, 2)])
        np.testing.assert_allclose(maps, LayerCAM(model)(x, BoxTarget(box_around(2, 2), 0)), atol=1e-5)
    model = Queries(no_object=True).eval()
    maps = LayerCAM(model)(x, lambda logits: logits[cell(2, 2), 0])
    np.testing.assert_allclose(maps, LayerCAM(model)(x, BoxTarget(box_around(2, 2), 0)), atol=1e-6)


def test_the_mask_of_a_prediction():
    model, x = Cells(with_masks=True).eval(), two_squares()
    cam = LayerCAM(model, [model.stem])
    maps = cam(x, BoxTarget(SQUARES[0], 0, of="mask"), as_tensor=True)
    assert shares(maps)[0] > 0.99
    found = BoxTarget(SQUARES[0], 0, of="mask")(cam.predictions[0])
    torch.testing.assert_close(found, model.stem(x)[0, :2].sum(0)[:24, :24].mean())  # all of its logits are positive
    with pytest.raises(ValueError, match="no masks"):
        LayerCAM(Cells().eval())(x, BoxTarget(SQUARES[0], 0, of="mask"))


def test_detections_are_what_is_left_after_suppression():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [1.0, 0, 11, 10], [30.0, 30, 40, 40], [0.0, 0, 1, 1]])
    scores = torch.tensor([[0.8, 0.1], [0.7, 0.1], [0.1, 0.6], [0.9, 0.1], [0.2, 0.1]])
    predictions = Predictions(boxes, scores.logit(), scores, torch.arange(2)[None], SIZE, Suppression(0.25, 0.5))
    assert predictions.detections().tolist() == [6, 0, 5]
    assert predictions._replace(suppression=Suppression(0.25, 0.5, 2)).detections().tolist() == [6, 0]
    assert predictions._replace(suppression=Suppression(0.25)).detections().tolist() == [6, 0, 2, 5]
    assert DetectionTarget(1)(predictions) == scores.logit()[0, 0]


def test_a_detection_is_the_same_in_changed_copies_of_the_image():
    """ScoreCAM asks masked images: which detection is the first there is another question."""
    model, x = Cells().eval(), two_squares()
    predictions = predictions_of(model, x)[0]
    which = int(predictions.detections()[0])
    same = BoxTarget(predictions.boxes[which // 2], which % 2)
    maps, expected = (ScoreCAM(model)(x, target) for target in (DetectionTarget(0), same))
    np.testing.assert_array_equal(maps, expected)


def test_a_detection_becomes_the_box_that_it_has():
    predictions = predictions_of(Cells().eval(), two_squares())
    which = int(predictions[0].detections()[0])
    (found,) = resolved([None], predictions)
    assert found == BoxTarget(predictions[0].boxes[which // 2], which % 2)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16, torch.float32])
def test_log_odds(half):
    probabilities = torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=half).requires_grad_()
    found = log_odds(probabilities)
    torch.testing.assert_close(found[:2].float(), torch.tensor([0.0, -math.log(3)]), rtol=0.02, atol=0.02)
    assert found.isfinite().all()
    assert found[3] > found[0] > found[1] > found[2]
    (gradient,) = torch.autograd.grad(found.float().sum(), probabilities)
    assert gradient.isfinite().all()
    assert gradient[3] == 1


# What is refused, and what is warned of


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: BoxTarget((8, 8, 8, 24)), "no area"),
        (lambda: BoxTarget((24, 8, 8, 24)), "no area"),
        (lambda: BoxTarget((float("nan"), 8, 8, 24)), "no area"),
        (lambda: BoxTarget((1, 2, 3)), r"a box is \(x0, y0, x1, y1\)"),
        (lambda: BoxTarget((64, 8, 80, 24)), "outside of the image, 64 wide and 64 high"),
        (lambda: BoxTarget((8, -24, 24, 0)), "outside of the image"),
        (lambda: BoxTarget(SQUARES[0], 7), "no prediction of sample 0 is of class 7.*from 0 to 1"),
        (lambda: BoxTarget(SQUARES[0], of="colour"), "'score', 'box', 'mask', 'angle'"),
        (lambda: DetectionTarget(10**6), r"detection 1000000 was asked for, but \d+ were found in sample 0"),
        (lambda: DetectionTarget(-1), "numbered from 0"),
        (lambda: DetectionTarget(0, of="box"), "BoxTarget"),
        (lambda: 7, "no prediction of sample 0 is of class 7"),
        (lambda: -1, "no prediction of sample 0 is of class -1"),
    ],
)
def test_refused(target, message):
    with pytest.raises(ValueError, match=message):
        LayerCAM(Cells().eval())(two_squares(), target())


def test_no_detection():
    model = Cells().eval()
    for head in model.heads:
        nn.init.constant_(head.bias, -20)
    for target in (None, DetectionTarget(0)):
        with pytest.raises(ValueError, match=r"nothing was found in sample 0 with a score above 0\.25: pass a class"):
            LayerCAM(model)(two_squares(), target)
    assert LayerCAM(model)(two_squares(), BoxTarget(SQUARES[0], 0)).max() == 1  # an object that it missed


def test_no_prediction_overlaps_the_box():
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    scores = torch.tensor([[0.5]])

    def predictions(output):
        return [Predictions(boxes, output[:, :1], scores, scores.long(), SIZE)]

    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="no raw prediction of class 0 overlaps the box"):
        LayerCAM(net, output_transform=predictions)(two_squares(), BoxTarget((8, 8, 12, 12), 0))


def test_a_box_that_hardly_fits():
    with pytest.warns(CamWarning, match=r"class 0 nearest to the box.*overlaps it by 0\.\d\d only"):
        LayerCAM(Cells().eval())(two_squares(), BoxTarget((0, 0, 64, 10), 0))


def test_what_a_first_call_warns_of_is_said_once_an_image():
    with pytest.warns(CamWarning) as warned:
        LayerCAM(Cells().eval())(torch.cat([two_squares()] * 2), BoxTarget((0, 0, 64, 10), 0))
    ends = [str(warning.message).partition("only: ")[2] for warning in warned]
    assert ends == [f"in sample {sample} another object may be explained" for sample in range(2)]


@pytest.mark.filterwarnings("error::pytorch_grad_cam.CamWarning")
@pytest.mark.parametrize("kind", [LayerCAM, HiResCAM])
def test_methods_with_weights_for_positions_say_nothing(kind):
    kind(Cells().eval())(two_squares(), BoxTarget(SQUARES[0], 0))


@pytest.mark.parametrize("kind", [GradCAM, ScoreCAM, EigenCAM])
def test_methods_without_weights_for_positions_warn(kind):
    with pytest.warns(CamWarning, match=f"{kind.__name__}.*all objects that look alike.*LayerCAM"):
        maps = kind(Cells().eval())(two_squares(), BoxTarget(SQUARES[0], 0), as_tensor=True)
    assert shares(maps)[1] > 0.1  # as it says


def test_flipped_images_have_no_box():
    for target in (BoxTarget(SQUARES[0], 0), [[BoxTarget(SQUARES[0], 0)]], DetectionTarget(0)):
        with pytest.raises(ValueError, match="flipped"):
            LayerCAM(Cells().eval())(two_squares(), target, aug_smooth=True)
    assert LayerCAM(Cells().eval())(two_squares(), 0, aug_smooth=True).shape == (1, *SIZE)


def test_images_that_are_padded_to_one_batch():
    class Masked(Queries):
        def forward(self, pixel_values, pixel_mask):
            return super().forward(pixel_values)

    mask = torch.ones(1, *SIZE, dtype=torch.long)
    cam = LayerCAM(Masked(no_object=False).eval())
    inputs = {"pixel_values": two_squares(), "pixel_mask": mask}
    expected = LayerCAM(Queries(no_object=False).eval())(two_squares(), BoxTarget(SQUARES[0], 0))
    np.testing.assert_allclose(cam(inputs, BoxTarget(SQUARES[0], 0)), expected, atol=1e-6)
    mask[:, 50:] = 0
    with pytest.raises(ValueError, match=r"padded to one batch.*once for each image"):
        cam(inputs, BoxTarget(SQUARES[0], 0))


def test_why_a_map_is_blank_is_said_of_the_level_that_the_box_is_on():
    """What speaks for nothing on its own level has a gradient there, and none on the others."""
    model, x = Cells().eval(), two_squares()
    nn.init.constant_(model.heads[1].weight, -1)
    on_second = BoxTarget(box_around(1, 3, 16), 0)
    for targets in ([[on_second]], [[BoxTarget(SQUARES[0], 0), on_second]]):
        with pytest.warns(CamWarning, match="all that the layer says speaks against the target"):
            LayerCAM(model)(x, targets)


# torchvision's


@pytest.fixture(params=[torchvision_fcos, torchvision_faster_rcnn])
def torchvision_net(request):
    return request.param()


def photo(height=64, width=96, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def test_raw_predictions_of_torchvision(torchvision_net):
    x = [photo()]
    with torch.no_grad():
        (expected,) = torchvision_net(x)
        with raw_predictions_kept(suppressing_modules(torchvision_net), None):
            (found,) = torchvision_net(x)
            (raw,) = raw_predictions_of([found])
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])
    assert len(raw.boxes) > 4 * len(expected["boxes"]) > 0
    which = raw.detections()
    torch.testing.assert_close(raw.scores.flatten()[which], expected["scores"])
    torch.testing.assert_close(raw.boxes[which], expected["boxes"])
    torch.testing.assert_close(raw.labels.flatten()[which], expected["labels"])
    torch.testing.assert_close(raw.logits.sigmoid(), raw.scores)


def left_of(net):
    return {module: dict(vars(module)) for module in net.modules()}


def test_the_net_is_left_as_it_was(torchvision_net):
    torchvision_net([photo()])  # which it remembers something of
    before = left_of(torchvision_net)
    cam = LayerCAM(torchvision_net)
    cam([photo()], BoxTarget((10, 10, 40, 40)))
    cam([photo(50, 40)], BoxTarget((10, 10, 40, 40)))
    assert left_of(torchvision_net) == before

    def fails(output):
        assert any("postprocess_detections" in vars(module) for module in torchvision_net.modules())
        raise RuntimeError("stop")

    for image in (photo(), photo(50, 40)):
        with pytest.raises(RuntimeError, match="stop"):
            cam([image], fails)
        assert left_of(torchvision_net) == before


def test_what_the_user_put_on_the_net_is_put_back(torchvision_net):
    (module,) = suppressing_modules(torchvision_net)
    own, calls = module.postprocess_detections, []
    module.postprocess_detections = mine = lambda *args: (calls.append(1), own(*args))[1]
    LayerCAM(torchvision_net)([photo()], 1)
    assert calls
    assert module.postprocess_detections is mine


def test_two_threads_and_one_that_only_predicts(torchvision_net):
    """Another thread that runs the model meanwhile gets what it ever gets."""
    x, target = [photo()], BoxTarget((10, 10, 40, 40))
    expected, (plain,) = LayerCAM(torchvision_net)(x, target), torchvision_net(x)
    found, seen = [], []

    def explain():
        found.append(LayerCAM(torchvision_net)(x, target))

    def inside(output):
        thread = threading.Thread(target=lambda: seen.append(torchvision_net(x)[0]))
        thread.start()
        thread.join()
        return output["scores"].sum()

    threads = [threading.Thread(target=explain) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for maps in found:
        np.testing.assert_allclose(maps, expected, atol=1e-6)
    LayerCAM(torchvision_net)(x, inside)
    assert len(found) == 3
    for each in seen:
        assert each.keys() == plain.keys()
        torch.testing.assert_close(each["scores"], plain["scores"])


def test_a_box_that_the_net_does_not_report(torchvision_net):
    for module in suppressing_modules(torchvision_net):
        module.score_thresh = 0.999
    assert not len(torchvision_net([photo()])[0]["boxes"])
    cam = LayerCAM(torchvision_net)
    assert cam([photo()], BoxTarget((10, 10, 50, 50), 1)).max() == 1
    assert cam([photo()], 1).max() == 1
    with pytest.raises(ValueError, match=r"nothing was found.*above 0\.999"):
        cam([photo()])


def test_the_gradient_is_that_of_the_log_odds_by_hand(torchvision_net):
    x, box = photo()[None], (10, 10, 50, 50)
    neck = torchvision_net.backbone.first
    cam = LayerCAM(torchvision_net, [neck])
    maps = cam(x, BoxTarget(box, 1))
    kept = []
    handle = neck.register_forward_hook(lambda *run: kept.append(run[2]))
    with raw_predictions_kept(suppressing_modules(torchvision_net), None):
        (raw,) = raw_predictions_of(torchvision_net(x))
    handle.remove()
    overlap = raw.iou(box) * (raw.labels[:, 0] == 1)
    probability = raw.logits.sigmoid()[overlap.argmax(), 0]
    (gradient,) = torch.autograd.grad((probability / (1 - probability)).log(), kept[0])
    expected = (gradient.relu() * kept[0]).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(expected, size=x.shape[2:], mode="bilinear")[0].detach()
    expected = (expected - expected.amin()) / (expected.amax() - expected.amin())
    np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_images_of_several_sizes(torchvision_net):
    pictures = [photo(64, 96), photo(50, 40, seed=1)]
    targets = [[BoxTarget((10, 10, 40, 40)), DetectionTarget(0)], [BoxTarget((5, 5, 30, 30))]]
    cam = LayerCAM(torchvision_net)
    maps = cam(pictures, targets)
    assert [each.shape for each in maps] == [(2, 64, 96), (1, 50, 40)]
    assert [each.size for each in cam.predictions] == [(64, 96), (50, 40)]
    np.testing.assert_allclose(maps[1], LayerCAM(torchvision_net)([pictures[1]], targets[1][0]), atol=1e-6)


@pytest.mark.parametrize("size", [(32, 48), (100, 70), (128, 128), (50, 41)])
def test_predictions_and_outputs_are_in_pixels_of_the_image_as_it_is_given(size, torchvision_net):
    x = [photo(*size)]
    with torch.no_grad():
        (expected,) = torchvision_net(x)
    cam = LayerCAM(torchvision_net)
    cam(x, 1)
    (predictions,) = cam.predictions
    which = predictions.row_of(predictions.detections())
    for boxes in (predictions.boxes[which], cam.outputs[0]["boxes"]):
        torch.testing.assert_close(boxes, expected["boxes"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(32, 48), (100, 70)])
def test_the_map_lies_where_the_enlarged_image_has_it(size, torchvision_net):
    """An image that the net resizes: its map is the one of the resized image, without the padding."""
    image = photo(*size)
    with torch.no_grad():
        batch, _ = torchvision_net.transform([image])
    rows, columns = batch.image_sizes[0]
    neck, kept = torchvision_net.backbone.first, []
    maps = LayerCAM(torchvision_net, [neck])([image], BoxTarget((5, 5, 25, 25), 1))
    with raw_predictions_kept(suppressing_modules(torchvision_net), size):
        handle = neck.register_forward_hook(lambda *run: kept.append(run[2]))
        (raw,) = raw_predictions_of(torchvision_net([image]))
        handle.remove()
    (gradient,) = torch.autograd.grad(BoxTarget((5, 5, 25, 25), 1)(raw), kept[0])
    expected = (gradient.relu() * kept[0]).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(expected, size=batch.tensors.shape[2:], mode="bilinear")[..., :rows, :columns]
    expected = nn.functional.interpolate(expected, size=size, mode="bilinear")[0, 0].detach()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(maps[0], expected, atol=1e-4)


class Wrapped(nn.Module):
    """A user's module that hands its images to a detector."""

    def __init__(self, net, before=list, behind=lambda found: found):
        super().__init__()
        self.net, self.before, self.behind = net, before, behind

    def forward(self, images):
        return self.behind(self.net(self.before(images)))


@pytest.mark.parametrize("size", [(32, 48), (128, 128)], ids=["padded", "enlarged"])
@pytest.mark.parametrize("wrap", [Wrapped, nn.Sequential])
def test_a_detector_in_a_module_of_the_users_own(wrap, size):
    net, x = torchvision_fcos(min_size=100), photo(*size)[None]
    target = BoxTarget((5, 5, 25, 25), 1)
    cam, own = LayerCAM(wrap(net)), LayerCAM(net)
    np.testing.assert_allclose(cam(x, target), own(x, target), atol=1e-6)
    torch.testing.assert_close(cam.predictions[0].boxes, own.predictions[0].boxes)
    torch.testing.assert_close(cam.outputs[0]["boxes"], own.outputs[0]["boxes"])


OWN_FORMS = {
    "one dict": lambda found: found[0],
    "a tuple": lambda found: tuple(found[0].values()),
    "boxes and scores": lambda found: (found[0]["boxes"], found[0]["scores"]),
    "other names": lambda found: {"xyxy": found[0]["boxes"], "confidence": found[0]["scores"]},
    "behind no losses": lambda found: ({}, found),
    "beside others": lambda found: {"detections": found, "seconds": 0.1},
    "copies": lambda found: [{**image} for image in found],
}


@pytest.fixture(scope="module")
def explained_fcos():
    """The net, its predictions, and maps of its own of several targets."""
    net, x = torchvision_fcos(), two_squares()
    own = LayerCAM(net)
    own(x, DetectionTarget(0))
    targets = (None, 1, DetectionTarget(1), BoxTarget(own.predictions[0].boxes[7].tolist()))
    return net, own.predictions[0], [(target, own(x, target)) for target in targets]


@pytest.mark.parametrize("form", OWN_FORMS)
def test_a_detector_whose_output_is_put_in_another_form(explained_fcos, form):
    net, predictions, explained = explained_fcos
    cam, x = LayerCAM(Wrapped(net, behind=OWN_FORMS[form])), two_squares()
    for target, expected in explained:
        np.testing.assert_allclose(cam(x, target), expected, atol=1e-6)
    torch.testing.assert_close(cam.predictions[0].boxes, predictions.boxes)


def test_a_callable_gets_what_the_users_module_returns():
    net, x = torchvision_fcos(), two_squares()
    model = Wrapped(net, behind=OWN_FORMS["other names"])
    maps = LayerCAM(model)(x, lambda output: output["confidence"].max())
    np.testing.assert_allclose(maps, LayerCAM(net)(x, lambda output: output["scores"].max()), atol=1e-6)


def test_a_module_that_goes_over_all_entries_of_a_detector():
    net, x = torchvision_fcos(), two_squares()

    def best(found):
        return [{key: values[image["scores"] > 0.5] for key, values in image.items()} for image in found]

    cam = LayerCAM(Wrapped(net, behind=best))
    assert cam(x).max() == 1
    assert cam.predictions[0].boxes.shape == cam.outputs[0]["boxes"].shape


class Boxes(Cells):
    """A detector of the user's own: boxes and their scores of one image."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        _, scores = self.maps(x)
        best = scores[0].sigmoid().amax(0)
        return self.form(torch.stack([best * 32, best * 32, best * 64, best * 64], dim=1), best)


@pytest.mark.parametrize("target", [None, 0, DetectionTarget(0)])
@pytest.mark.parametrize(
    "form",
    [lambda boxes, scores: (boxes, scores), lambda boxes, scores: {"confidence": scores, "xyxy": boxes}],
    ids=["tuple", "dict"],
)
def test_boxes_and_scores_are_no_class_scores(form, target):
    with pytest.raises(ValueError, match=r"boxes \(D, 4\) beside their scores.*returns a list of .*Predictions"):
        LayerCAM(Boxes(form).eval())(two_squares(), target)


class Reported(Cells):
    """The best seven boxes of each image, their scores and classes, in a form of the user's own."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        _, logits = self.maps(x)
        best, labels = logits.sigmoid().max(1)
        scores, which = best.topk(7, dim=1)
        corner = torch.stack([which % 8, which // 8], dim=2) * 8 + scores[..., None] * 8
        return self.form(torch.cat([corner, corner + 24], dim=2), scores, labels.gather(1, which))


@pytest.mark.parametrize(
    "form",
    [
        lambda *of_images: of_images,
        lambda *of_images: dict(zip(("boxes", "scores", "labels"), of_images, strict=True)),
    ],
    ids=["tuple", "dict"],
)
def test_all_images_in_one_batch_of_boxes(form):
    x = torch.cat([two_squares(), two_squares().flip(3)])
    model, in_dicts = (
        Reported(each).eval()
        for each in (
            form,
            lambda *of_images: [
                dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*of_images, strict=True)
            ],
        )
    )
    cam, own = LayerCAM(model, [model.stem]), LayerCAM(in_dicts, [in_dicts.stem])
    for target in (None, DetectionTarget(1)):
        np.testing.assert_array_equal(cam(x, target), own(x, target))
        torch.testing.assert_close(cam.predictions[1].boxes, own.predictions[1].boxes)


@pytest.mark.parametrize("target", [None, 0, DetectionTarget(0), BoxTarget((0, 0, 24, 24))])
@pytest.mark.parametrize(
    "form",
    [
        lambda boxes, scores, labels: torch.cat([boxes, scores[..., None], labels[..., None]], dim=2),
        lambda boxes, scores, labels: torch.cat([boxes, scores[..., None]], dim=2),
        lambda boxes, scores, labels: torch.cat([boxes, scores[..., None], labels[..., None]], dim=2)[0],
        lambda boxes, scores, labels: [*torch.cat([boxes, scores[..., None], labels[..., None]], dim=2)],
        lambda boxes, scores, labels: (boxes, scores),
        lambda boxes, scores, labels: (boxes, scores, labels.float()),
    ],
    ids=["(N, D, 6)", "(N, D, 5)", "(D, 6)", "list", "pair", "labels that are floats"],
)
def test_rows_of_boxes_are_no_class_scores(form, target):
    model = Reported(form).eval()
    with pytest.raises(ValueError, match=r"returns a list of .*Predictions|pass a class, for its best raw prediction"):
        LayerCAM(model, [model.stem])(two_squares(), target)


@pytest.mark.parametrize("target", [None, 0, DetectionTarget(0), lambda output: output])
@pytest.mark.parametrize(
    ("form", "what"),
    [
        (
            lambda boxes, scores: {"found": [{"xyxy": boxes, "p": scores}], "seconds": 0.1},
            r"output\['found'\] \(a list",
        ),
        (lambda boxes, scores: ({}, [{"xyxy": boxes, "p": scores}]), "nothing"),
    ],
    ids=["dict", "behind no losses"],
)
def test_an_output_without_scores_says_what_it_has(form, what, target):
    with pytest.raises(ValueError, match=f"could be the scores: {what}"):
        LayerCAM(Boxes(form).eval())(two_squares(), target)


def test_a_detector_behind_changed_images():
    model = Wrapped(torchvision_fcos(), before=lambda images: list(images / 2))
    with pytest.raises(ValueError, match="Wrapped changes the images in front of the FCOS in it, which pads them"):
        LayerCAM(model)(photo(50, 41)[None], 1)
    assert LayerCAM(model)(photo(64, 64)[None], 1).max() == 1


def test_what_is_neither_padded_nor_stretched_is_left_as_it_is():
    net = torchvision_fcos(fixed_size=SIZE)
    for height, covered in ((32, SIZE), (64, None), (128, SIZE)):
        with shown_by(net, photo(height, 64)[None]) as shown:
            assert (shown.given, shown.covered) == ((height, 64), covered)
    with shown_by(net, photo(32, 32)[None]) as shown:
        assert shown.covered is None
        assert shown.inputs.shape == (1, 3, 32, 32)


def test_faster_rcnn_box_score_target_reads_what_is_reported(torchvision_net):
    image = photo(50, 40)
    with torch.no_grad():
        (found,) = torchvision_net([image])
    target = FasterRCNNBoxScoreTarget(found["labels"][:2].tolist(), found["boxes"][:2])
    seen = []

    def asked(output):
        seen.append(target(output))
        return seen[-1]

    LayerCAM(torchvision_net)([image], asked)
    torch.testing.assert_close(seen[-1], target(found), rtol=1e-4, atol=1e-4)


# What a later call costs


def counted(monkeypatch, owner, name):
    calls = []
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **how: calls.append(name) or original(*args, **how))
    return calls


def test_all_predictions_are_there_without_a_second_suppression(torchvision_net, monkeypatch):
    suppressions = counted(monkeypatch, ops.boxes, "batched_nms")
    with torch.no_grad():
        torchvision_net([photo()])
        own = len(suppressions)
        with raw_predictions_kept(suppressing_modules(torchvision_net), None):
            torchvision_net([photo()])
    assert len(suppressions) == 2 * own > 0


def test_all_predictions_of_a_postprocessing_of_the_users_own(torchvision_net):
    (module,) = suppressing_modules(torchvision_net)
    x = [photo()]
    with torch.no_grad(), raw_predictions_kept([module], None):
        (expected,) = raw_predictions_of(torchvision_net(x))

    class Own(type(module)):
        def postprocess_detections(self, *args):
            return super().postprocess_detections(*args)

    module.__class__ = Own
    with torch.no_grad(), raw_predictions_kept([module], None):
        (found,) = raw_predictions_of(torchvision_net(x))
    torch.testing.assert_close(found.boxes, expected.boxes)
    torch.testing.assert_close(found.scores, expected.scores)


@pytest.mark.parametrize(("size", "runs"), [((128, 128), 0), ((50, 41), 1)], ids=["as it is", "padded"])
def test_images_that_stay_as_they_are_are_not_transformed_twice(size, runs, torchvision_net):
    transforms = []
    torchvision_net.transform.register_forward_hook(lambda *_: transforms.append(1))
    for expected in (1, 1 + runs):
        with shown_by(torchvision_net, photo(*size)[None]):
            assert len(transforms) == expected


def test_another_setting_of_the_transform_is_seen(torchvision_net):
    x = photo(128, 128)[None]
    transform = torchvision_net.transform
    with shown_by(torchvision_net, x) as shown:
        assert shown.covered is None
    transform.fixed_size = (128, 64)
    with shown_by(torchvision_net, x) as shown:
        assert shown.covered == (64, 128)


def test_a_box_is_looked_for_once(monkeypatch):
    model, x = Cells().eval(), two_squares()
    cam = LayerCAM(model)
    targets = [[BoxTarget(square) for square in SQUARES]]
    cam(x, targets)
    searches = counted(monkeypatch, Predictions, "nearest")
    cam(x, targets)
    assert len(searches) == len(SQUARES)


def test_a_target_that_was_found_is_looked_for_in_other_predictions():
    predictions = predictions_of(Cells().eval(), two_squares())[0]
    target = BoxTarget(box_around(2, 5), 0).found(predictions, 0)
    others = predictions._replace(logits=predictions.logits.flip(0), boxes=predictions.boxes.flip(0))
    assert target(others) == target(predictions)
    assert target == BoxTarget(box_around(2, 5), 0)


@pytest.mark.parametrize(
    ("image", "targets", "error", "message"),
    [
        (two_squares().to(torch.uint8), 0, TypeError, r"image is torch.uint8, .* image.float\(\) / 255"),
        ([two_squares()[0].to(torch.uint8)], 0, TypeError, r"image is torch.uint8"),
        (np.zeros((64, 64, 3)), 0, TypeError, r"explain\(\) takes pictures and arrays"),
        (two_squares(), (4, 4, 20, 20), ValueError, r"4 targets for 1 samples: .* BoxTarget\(\(x0, y0, x1, y1\)\)"),
    ],
)
def test_what_is_refused_says_the_way_out(image, targets, error, message):
    with pytest.raises(error, match=message):
        LayerCAM(Cells().eval())(image, targets)


def test_a_box_that_was_resized_is_said_in_few_digits():
    with pytest.warns(CamWarning, match=r"the box \(0\.333333, 0, 64, 10\) overlaps it by 0\.\d\d only"):
        LayerCAM(Cells().eval())(two_squares(), BoxTarget((1 / 3, 0, 64, 10), 0))


@pytest.mark.parametrize("style", ["dense", "regions", "queries"])
def test_a_detector_under_no_grad_has_the_same_map_and_one_without_a_gradient_none(style):
    scene = preprocess_detector(example_scene(), style)
    detector, frozen, detached = (load_digits_detector(style) for _ in range(3))
    expected = LayerCAM(detector)(scene, 6)
    frozen.forward = torch.no_grad()(frozen.forward)
    np.testing.assert_allclose(LayerCAM(frozen)(scene, 6), expected, atol=1e-6)
    detached.backbone.register_forward_hook(
        lambda module, inputs, output: tree_map_only(torch.Tensor, torch.Tensor.detach, output)
    )
    with pytest.raises(ValueError, match="no gradient leads from the output to the image"):
        LayerCAM(detached)(scene, 6)
    with pytest.raises(ValueError, match="no gradient leads from the score to layer backbone"):
        LayerCAM(detached, "backbone")(scene, 6)

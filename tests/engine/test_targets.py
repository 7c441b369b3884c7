import numpy as np
import pytest
import torch
from nets import convolutional, images

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.engine.targets import resolve_targets, target_scores
from pytorch_grad_cam.utils.model_targets import (
    BinaryClassifierOutputTarget,
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
    SoftmaxOutputTarget,
)

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, [5, 7]),
        (2, [2, 3]),
        (-1, [2, 3]),
        (np.int64(2), [2, 3]),
        ([0, 2], [1, 3]),
        ((0, -1), [1, 3]),
        (torch.tensor([0, 2]), [1, 3]),
        (torch.tensor(2), [2, 3]),
        (np.array([0, 2]), [1, 3]),
        ([torch.tensor(0), np.array(2)], [1, 3]),
        (ClassifierOutputTarget(torch.tensor([2])), [2, 3]),
        (ClassifierOutputTarget(0), [1, 7]),
        ([ClassifierOutputTarget(0), 1], [1, 0]),
        (lambda output: output[0] + output[1], [6, 7]),
        ([lambda output: output.sum(), ClassifierOutputTarget(2)], [8, 3]),
    ],
)
def test_forms(targets, expected):
    assert target_scores(LOGITS, resolve_targets(targets, LOGITS)).tolist() == expected


def test_softmax_target():
    scores = target_scores(LOGITS, resolve_targets(ClassifierOutputSoftmaxTarget(1), LOGITS))
    torch.testing.assert_close(scores, LOGITS.softmax(1)[:, 1])
    assert ClassifierOutputSoftmaxTarget(1)(LOGITS).shape == (2,)


def test_class_targets_are_gathered_not_called(monkeypatch):
    monkeypatch.setattr(ClassifierOutputTarget, "__call__", None)
    targets = [ClassifierOutputTarget(2), ClassifierOutputTarget(0)]
    assert target_scores(LOGITS, targets).tolist() == [2, 7]


def test_subclass_of_a_class_target_is_called():
    class Negative(ClassifierOutputTarget):
        def __call__(self, model_output):
            return -super().__call__(model_output)

    assert target_scores(LOGITS, [Negative(0), Negative(0)]).tolist() == [-1, -7]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (
            [1],
            ValueError,
            r"1 targets for 2 samples: .*or 1 without the list for all \(1\.5\.7 explained the first",
        ),
        ([1, 1, 1], ValueError, "3 targets for 2 samples"),
        ([], ValueError, "0 targets for 2 samples"),
        (3, IndexError, "class 3: the model's output has 3 classes"),
        (-4, IndexError, "class -4"),
        ("cat", TypeError, "not 'cat'"),
        (["cat", 1], TypeError, "not 'cat'"),
        (1.5, TypeError, "not 1.5"),
        ([1.0, 2.0], TypeError, "not 1.0"),
    ],
)
def test_unusable_forms(targets, error, message):
    with pytest.raises(error, match=message):
        resolve_targets(targets, LOGITS)


def test_class_of_an_output_with_one_value_a_sample():
    with pytest.raises(IndexError, match=r"one value a sample.*RawScoresOutputTarget"):
        resolve_targets(1, torch.zeros(3))


def test_none_needs_class_scores():
    with pytest.raises(ValueError, match=r"needs class scores .* shape \(2, 3, 4\)"):
        resolve_targets(None, torch.zeros(2, 3, 4))


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (lambda output: output, ValueError, r"returned shape \(3,\), expected one value"),
        (lambda output: 1.0, TypeError, "returned 1.0, expected a scalar tensor"),
    ],
)
def test_target_that_gives_no_scalar(target, error, message):
    with pytest.raises(error, match=message):
        target_scores(LOGITS, [target, target])


def test_errors_pass_through_with():
    model = convolutional()
    with pytest.raises(IndexError, match="class 99"), GradCAM(model, model.last) as cam:
        cam(images(), 99)
    with pytest.raises(IndexError), GradCAM(model, model.last):
        [][0]


# Probabilities of classes; softmax of scores; A g^3 against g^2 (and RefineCAM, which wraps it); a callable is not
# compared with other classes.
DEPENDS_ON_THE_SCALE = {
    *("ReciproCAM", "GroupCAM", "ScoreCAM", "GScoreCAM", "ISCAM", "SSCAM"),
    *("GradCAMPlusPlus", "SmoothGradCAMPlusPlus", "RefineCAM", "FinerCAM"),
}


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_map_at_any_scale_of_the_score(method, scale):
    """The same map, where the formula does not depend on the scale as those of DEPENDS_ON_THE_SCALE do."""
    model, x = convolutional().double(), images().double()
    with method(model, model.last) as cam:
        maps = cam(x, lambda output: scale * output[3])
        assert (maps.max((1, 2)) == 1).all()
        if method.__name__ not in DEPENDS_ON_THE_SCALE:
            np.testing.assert_allclose(maps, cam(x, 3), atol=1e-5)


def test_rest_target():
    scores = target_scores(LOGITS, resolve_targets(ClassifierOutputReST(1), LOGITS))
    cross_entropy = torch.nn.functional.cross_entropy(LOGITS, torch.tensor([1, 1]), reduction="none")
    torch.testing.assert_close(scores, LOGITS[:, 1] - cross_entropy)
    torch.testing.assert_close(ClassifierOutputReST(1)(LOGITS), scores)


def test_binary_target():
    logits = torch.tensor([[2.0], [-3.0]])
    targets = resolve_targets([BinaryClassifierOutputTarget(1), BinaryClassifierOutputTarget(0)], logits)
    assert target_scores(logits, targets).tolist() == [2, 3]
    assert BinaryClassifierOutputTarget(True)(logits[0]) == 2
    assert BinaryClassifierOutputTarget(False)(logits[0]) == -2
    with pytest.raises(ValueError, match="category is 2, a classifier with one logit has 0 and 1"):
        BinaryClassifierOutputTarget(2)


@pytest.mark.parametrize("target", [RawScoresOutputTarget(), SoftmaxOutputTarget()])
def test_targets_for_outputs_of_one_value(target):
    regression = torch.tensor([[2.0], [-3.0]])
    assert target_scores(regression, resolve_targets(target, regression)).tolist() == target(regression)[:, 0].tolist()
    with pytest.raises(ValueError, match=r"OutputTarget.* returned shape \(3,\), expected one value"):
        target_scores(LOGITS, resolve_targets(target, LOGITS))


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda mask: torch.as_tensor(mask).bool()])
def test_segmentation_target(kind):
    torch.manual_seed(0)
    scores = torch.randn(2, 4, 6, 8)
    mask = np.zeros((6, 8), np.float32)
    mask[1:3, 2:7] = 1
    found = SemanticSegmentationTarget(2, kind(mask))(scores[1])
    torch.testing.assert_close(found, scores[1, 2, 1:3, 2:7].sum())


def test_segmentation_target_with_a_mask_of_another_size():
    scores = torch.arange(24.0).reshape(1, 4, 6)
    mask = np.zeros((8, 12))
    mask[:4] = 1
    assert SemanticSegmentationTarget(0, mask)(scores) == scores[0, :2].sum()
    assert SemanticSegmentationTarget(0, np.ones(12))(torch.ones(1, 6)) == 6


DETECTIONS = {
    "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 8]]),
    "labels": torch.tensor([7, 1, 2, 1]),
    "scores": torch.tensor([0.9, 0.8, 0.7, 0.6], requires_grad=True),
}


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_box_target_takes_the_best_match_of_the_same_label(kind):
    """The first box has IoU 1 with a detection of another label and 0.9 with one of its own; the last has no match."""
    target = FasterRCNNBoxScoreTarget(kind([1, 2, 2]), kind([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]))
    score = target(DETECTIONS)
    assert score.item() == pytest.approx((0.9 + 0.8) + (1 + 0.7))
    (gradient,) = torch.autograd.grad(score, DETECTIONS["scores"])
    assert gradient.tolist() == [0, 1, 1, 0]


def test_box_target_below_the_threshold_and_without_boxes():
    box = [[0.0, 0, 10, 10]]
    assert FasterRCNNBoxScoreTarget([1], box, iou_threshold=0.95)(DETECTIONS) == 0
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    assert FasterRCNNBoxScoreTarget([1], box)(nothing) == 0
    assert FasterRCNNBoxScoreTarget([], [])(DETECTIONS) == 0


def test_box_target_needs_one_label_a_box():
    with pytest.raises(ValueError, match="1 labels for 2 boxes"):
        FasterRCNNBoxScoreTarget([1], [[0, 0, 10, 10], [20, 20, 30, 30]])

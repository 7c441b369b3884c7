import numpy as np
import pytest
import torch
from nets import convolutional, images

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.target_scores import resolve_targets, target_scores
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget

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
        ([1], ValueError, "1 targets for 2 samples"),
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


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_map_at_any_scale_of_the_score(method, scale):
    """The same map; but the formulas of ScoreCAM (softmax of scores) and Grad-CAM++ depend on the scale."""
    model, x = convolutional().double(), images().double()
    with method(model, model.last) as cam:
        maps = cam(x, lambda output: scale * output[3])
        assert (maps.max((1, 2)) == 1).all()
        if method.__name__ not in ("ScoreCAM", "GradCAMPlusPlus"):
            np.testing.assert_allclose(maps, cam(x, 3), atol=1e-5)

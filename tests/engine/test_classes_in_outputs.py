"""What a class, or None, means for outputs that are not (N, classes): masks, raw predictions, detections."""

import warnings

import numpy as np
import pytest
import torch
from nets import images
from torch import nn

from pytorch_grad_cam import (
    SESS,
    AblationCAM,
    FinerCAM,
    GradCAM,
    GuidedBackpropReLUModel,
    ScoreCAM,
    SegmentationTarget,
)
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.targets import RowScores, resolve_targets, scores_of_lists, target_lists, target_scores
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget

IMAGES = (2, 3, 12, 16)


def dense(classes=4, spatial=(6, 8)):
    torch.manual_seed(0)
    return torch.randn(2, classes, *spatial)


def in_predicted_mask(outputs, category):
    return [sample[category][sample.argmax(0) == category].sum() for sample in outputs]


@pytest.mark.parametrize("spatial", [(6, 8), (2, 4, 6)])
@pytest.mark.parametrize("category", [2, -1, np.int64(1), ClassifierOutputTarget(3)])
def test_a_class_within_its_predicted_mask(category, spatial):
    outputs = dense(spatial=spatial)
    number = category.category if isinstance(category, ClassifierOutputTarget) else int(category) % 4
    expected = torch.stack(in_predicted_mask(outputs, number))
    torch.testing.assert_close(target_scores(outputs, resolve_targets(category, outputs)), expected)
    half = outputs.bfloat16()
    assert target_scores(half, resolve_targets(category, half)).dtype == torch.float32


def test_as_the_target_with_that_mask():
    outputs = dense().requires_grad_()
    targets = [SemanticSegmentationTarget(1, sample.argmax(0) == 1) for sample in outputs]
    expected = torch.autograd.grad(target_scores(outputs, targets).sum(), outputs)
    found = torch.autograd.grad(target_scores(outputs, resolve_targets(1, outputs)).sum(), outputs)
    torch.testing.assert_close(found, expected)


def test_one_class_a_sample_several_and_mixed():
    outputs = dense()
    lists, several = target_lists([[0, 3], [1, lambda output: output.sum()]], outputs, True, IMAGES)
    assert several
    found = scores_of_lists(outputs, lists)
    expected = [in_predicted_mask(outputs, category) for category in range(4)]
    torch.testing.assert_close(
        found, torch.tensor([[expected[0][0], expected[1][1]], [expected[3][0], outputs[1].sum()]])
    )


def test_a_class_that_is_predicted_nowhere():
    outputs = dense()
    outputs[1, 2] -= 100
    with pytest.warns(CamWarning, match=r"class 2 of sample 1: predicted nowhere.*all pixels.*; SegmentationTarget"):
        targets = resolve_targets(2, outputs)
    expected = [in_predicted_mask(outputs, 2)[0], outputs[1, 2].sum()]
    torch.testing.assert_close(target_scores(outputs, targets), torch.stack(expected))


@pytest.mark.parametrize("category", [0, -1])
def test_one_logit_a_pixel(category):
    outputs = dense(classes=1)
    expected = outputs.relu().sum((1, 2, 3))
    torch.testing.assert_close(target_scores(outputs, resolve_targets(category, outputs)), expected)
    probabilities = outputs.sigmoid()
    expected = (probabilities * (probabilities > 0.5)).sum((1, 2, 3))
    torch.testing.assert_close(target_scores(probabilities, resolve_targets(category, probabilities)), expected)


@pytest.mark.parametrize("category", [3, -1])
def test_the_best_raw_prediction(category):
    """As DETRs give them: (N, queries, classes)."""
    outputs = torch.randn(2, 10, 4).requires_grad_()
    scores = target_scores(outputs, resolve_targets(category, outputs, IMAGES))
    torch.testing.assert_close(scores, outputs[:, :, category].amax(1))
    (gradient,) = torch.autograd.grad(scores.sum(), outputs)
    assert gradient.sum() == 2


def detections(labels=((7, 1, 7), (7, 3))):
    return [
        {
            "boxes": torch.rand(len(of_image), 4),
            "labels": torch.tensor(of_image, dtype=torch.int64),
            "scores": torch.linspace(0.9, 0.5, len(of_image)).requires_grad_(),
        }
        for of_image in labels
    ]


@pytest.mark.parametrize(("targets", "expected"), [(7, [0.9, 0.9]), ([1, 3], [0.7, 0.5]), (None, [0.9, 0.9])])
def test_the_best_detection_with_a_label(targets, expected):
    outputs = detections()
    scores = target_scores(outputs, resolve_targets(targets, outputs, IMAGES))
    assert scores.tolist() == pytest.approx(expected)
    assert scores.requires_grad
    lists, _ = target_lists([[7, 1], [7, 3]], outputs)
    assert scores_of_lists(outputs, lists).flatten().tolist() == pytest.approx([0.9, 0.9, 0.7, 0.5])


@pytest.mark.parametrize("kind", ["dense", "queries", "detections"])
def test_rows_are_scored_as_the_samples_are(kind):
    outputs = {"dense": dense(), "queries": torch.randn(2, 10, 4), "detections": detections(((1, 2), (2, 1, 2)))}[kind]
    lists, _ = target_lists([[1, 2], [2, 1]], outputs, True, IMAGES)
    rows = Rows.of([1, 0, 1], torch.device("cpu"))
    of_rows = [outputs[index] for index in (1, 0, 1)]
    of_rows = torch.stack(of_rows) if kind != "detections" else of_rows
    found = RowScores(lists, torch.device("cpu"))(of_rows, rows)
    torch.testing.assert_close(found, scores_of_lists(outputs, lists)[:, [1, 0, 1]])
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    if kind == "detections":  # a change of the image may take a detection away
        assert not RowScores(lists, torch.device("cpu"))([nothing] * 3, rows).any()


@pytest.mark.parametrize(
    ("targets", "outputs", "shape", "error", "message"),
    [
        (None, dense(), IMAGES, ValueError, r"shape \(2, 4, 6, 8\).*a class.*predicted.* SegmentationTarget"),
        (None, torch.zeros(2, 10, 4), IMAGES, ValueError, r"\(2, 10, 4\): pass a class.*best raw prediction.*callable"),
        (4, dense(), IMAGES, IndexError, "class 4: the model's output has 4 classes"),
        (-5, dense(), IMAGES, IndexError, "class -5"),
        (1, dense(classes=1), IMAGES, IndexError, "class 1: the model's output has 1 class, 0: its positive pixels"),
        (4, torch.zeros(2, 10, 4), IMAGES, IndexError, "class 4: the model's output has 4 classes"),
        (
            2,
            detections(),
            IMAGES,
            ValueError,
            r"no detection with label 2 in sample 0.*labels 1, 7.*FasterRCNNBoxScore",
        ),
        (
            1,
            detections(((1,), ())),
            IMAGES,
            ValueError,
            r"no detection with label 1 in sample 1, where nothing was found",
        ),
        (None, detections(((1,), ())), IMAGES, ValueError, r"sample 1, where nothing was found"),
        (
            1,
            torch.zeros(2, 4, 24),
            (2, 3, 24),
            ValueError,
            r"\(N, classes, length\) or \(N, steps, classes\).*callable",
        ),
        (1, torch.zeros(2, 3, 4, 6, 8), IMAGES, ValueError, r"shape \(2, 3, 4, 6, 8\) has no classes that.*callable"),
        (1, torch.zeros(2, 12, 16, 4), IMAGES, ValueError, r"classes last.*output_transform.*movedim\(-1, 1\)"),
        (1, torch.zeros(2, 5, 4, 6, 8), (2, 3, 5, 6, 8), ValueError, r"classes on axis 2: .*movedim\(2, 1\)"),
        (SegmentationTarget(1), torch.zeros(2, 12, 16, 4), IMAGES, ValueError, "seems to have its classes last"),
        (1, torch.zeros(9, 2, 4), IMAGES, ValueError, r"\(9, 2, 4\) for 2 images.*output\.transpose\(0, 1\)"),
        (1, [{"masks": torch.zeros(3)}] * 2, IMAGES, ValueError, r"dict with masks.*callable"),
        (None, [{"masks": torch.zeros(3)}] * 2, IMAGES, ValueError, r"needs class scores.*list.*callable"),
    ],
)
def test_what_is_refused(targets, outputs, shape, error, message):
    with pytest.raises(error, match=message):
        resolve_targets(targets, outputs, shape)


@pytest.mark.parametrize("axis", [1, 2])
def test_boxes_beside_scores_are_refused(axis):
    """As YOLOs give them: (N, 4 + classes, anchors) or (N, anchors, 5 + classes), where number 3 is a height."""
    outputs = torch.cat([640 * torch.rand(2, 50, 4), torch.rand(2, 50, 8)], 2)
    with pytest.raises(ValueError, match=r"boxes.*output_transform"):
        resolve_targets(3, outputs if axis == 2 else outputs.mT, IMAGES)


def test_few_queries_are_no_boxes():
    outputs = torch.cat([3 * torch.ones(2, 6, 4), torch.full((2, 6, 3), 0.5)], 2)
    assert target_scores(outputs, resolve_targets(4, outputs, IMAGES)).tolist() == [0.5, 0.5]


class Segmenter(nn.Module):
    """Scores (N, 4, 6, 8) of (N, 3, 12, 16), behind the convolution `body`."""

    def __init__(self, end=None):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.head, self.end = nn.Conv2d(8, 4, 1), end or nn.Identity()

    def forward(self, x):
        return self.end(self.head(self.body(x)))


def predicted_class(model, x):
    """One that is predicted in every image, at some pixels."""
    counts = nn.functional.one_hot(model(x).argmax(1), 4).flatten(1, 2).sum(1)
    return int(counts.amin(0).argmax())


@pytest.mark.parametrize("layers", ["body", None])
@pytest.mark.parametrize("cam_class", [GradCAM, ScoreCAM, AblationCAM, FinerCAM])
def test_maps_of_a_segmentation(cam_class, layers):
    model, x = Segmenter().eval(), images()
    category = predicted_class(model, x)
    masks = [SemanticSegmentationTarget(category, sample.argmax(0) == category) for sample in model(x).detach()]
    expected = cam_class(model, layers)(x, masks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cam_class(model, layers)(x, category)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.max() == 1


def test_augmentations_and_windows_have_masks_of_their_own():
    model, x = Segmenter().eval(), images()
    x[..., 8:] = 0
    category = predicted_class(model, x)
    flipped = GradCAM(model, "body")(x.flip(-1), category)[..., ::-1]
    plain = GradCAM(model, "body")(x, category)
    smooth = GradCAM(model, "body")(x, category, aug_smooth=True)
    several = GradCAM(model, "body")(x, [[category]] * 2, aug_smooth=True)[:, 0]
    np.testing.assert_allclose(smooth, several, atol=1e-6)
    assert smooth.shape == plain.shape == flipped.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert SESS(model, "body", num_scales=2)(x, category).shape == (2, 12, 16)


def test_guided_backpropagation_of_a_segmentation():
    model, x = Segmenter().eval(), images(count=1)
    assert GuidedBackpropReLUModel(model)(x, predicted_class(model, x)).shape == (12, 16, 3)


def test_maps_of_queries():
    model, x = Segmenter(nn.Flatten(2)).eval(), images()
    cam = GradCAM(model, "body", output_transform=lambda output: output.mT)
    expected = GradCAM(model, "body")(x, lambda output: output[2].amax())
    np.testing.assert_allclose(cam(x, 2), expected, atol=1e-6)


def test_boxes_in_shares_of_the_image_are_refused():
    """RT-DETR returns (N, 300, 4 + classes), boxes and probabilities from 0 to 1: class 1 is no coordinate."""
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="seems to have boxes in front of scores"):
        resolve_targets(1, torch.rand(2, 300, 9), (2, 3, 64, 64))
    resolve_targets(1, torch.randn(2, 300, 9).softmax(2), (2, 3, 64, 64))
    resolve_targets(1, torch.randn(2, 300, 9), (2, 3, 64, 64))


@pytest.mark.parametrize("axis", [1, 2])
def test_probabilities_of_a_readers_times_are_no_boxes(axis):
    """PP-OCR returns (N, 40 times, 18385 characters), probabilities that add up to one for each time."""
    outputs = torch.randn(2, 60, 60, generator=torch.Generator().manual_seed(0)).softmax(axis)
    expected = outputs[:, :, 3].amax(1)
    assert torch.equal(target_scores(outputs, resolve_targets(3, outputs, (2, 3, 48, 320))), expected)

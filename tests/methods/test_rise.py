"""RISE, and D-RISE: masks, weights, any callable, detections."""

import numpy as np
import pytest
import torch
from detectors import SQUARES, Cells, torchvision_faster_rcnn, torchvision_fcos, two_squares
from nets import convolutional, images

from pytorch_grad_cam import RISE, BoxTarget, CamWarning, DetectionTarget, Predictions
from pytorch_grad_cam.engine.detections.similarity import Similarity, similarity_to
from pytorch_grad_cam.perturbation.random_masks import RandomMasks
from pytorch_grad_cam.rise import rise_weights


@pytest.mark.parametrize("size", [(40,), (24, 32), (8, 10, 12)])
def test_masks(size):
    masks = RandomMasks.drawn(400, len(size), 4, 0.3, seed=5)
    found = masks.of(torch.arange(400), size)
    assert found.shape == (400, *size)
    assert 0 <= found.min() < 0.01
    assert 0.99 < found.max() <= 1
    np.testing.assert_allclose(found.mean(0).numpy(), 0.3, atol=0.12)  # at each position
    torch.testing.assert_close(masks.of(torch.tensor([7, 3]), size), found[[7, 3]])
    assert (RandomMasks.drawn(400, len(size), 4, 0.3, seed=6).of(torch.arange(2), size) != found[:2]).any()


def test_a_mask_by_hand():
    """Two cells on four pixels, shifted by a quarter of a cell: pixel centres at 0.25, 0.75, 1.25, 1.75 cells."""
    masks = RandomMasks(torch.tensor([[0.0, 1, 0, 1]]), torch.tensor([[0.25]]), cells=2)
    torch.testing.assert_close(masks.of(torch.tensor([0]), (4,)), torch.tensor([[0.5, 1.0, 0.5, 0.0]]))


def test_weights():
    weights = rise_weights(torch.tensor([[1.0, 2.0, 6.0], [0.1, 0.1, 0.1], [1e6, 1e6 + 0.5, 1e6]]))
    torch.testing.assert_close(weights, torch.tensor([[-2.0, -1, 3], [0, 0, 0], [0, 0, 0]]))


def test_similarity_is_the_literal_loop():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(20, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + torch.rand(20, 2, generator=generator) * 30], dim=1)
    scores = torch.rand(20, 3, generator=generator)
    predictions = Predictions(boxes, scores.logit(), scores, torch.tensor([[4, 5, 6]]), (64, 64))
    box = (10.0, 5.0, 40.0, 30.0)
    for label in (4, 6, None):
        best = 0.0
        for (x0, y0, x1, y1), of_classes in zip(boxes.tolist(), scores.tolist(), strict=True):
            width, height = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
            shared = max(width, 0) * max(height, 0)
            iou = shared / ((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - shared)
            asked = [score for score, each in zip(of_classes, (4, 5, 6), strict=True) if label in (each, None)]
            best = max(best, iou * max(asked))
        assert Similarity(box, label)(predictions).item() == pytest.approx(best, rel=1e-5)
    nothing = Predictions(boxes[:0], scores[:0], scores[:0], torch.tensor([[4, 5, 6]]), (64, 64))
    assert Similarity(box, 4)(nothing) == 0


def test_what_is_compared_by_similarity():
    assert similarity_to(BoxTarget((0, 0, 1, 1), 3)) == Similarity((0, 0, 1, 1), 3)
    for other in (BoxTarget((0, 0, 1, 1), 3, of="box"), DetectionTarget(0), len):
        assert similarity_to(other) is other


@pytest.mark.parametrize("number", [0, 1])
def test_the_object_of_the_box_and_not_one_that_looks_alike(number):
    maps = RISE(Cells().eval(), masks=400)(two_squares(), BoxTarget(SQUARES[number], 0), as_tensor=True)[0]
    means = [maps[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in SQUARES]
    assert means[number] > 3 * means[1 - number]


@pytest.mark.parametrize("net", [torchvision_fcos, torchvision_faster_rcnn])
def test_detections_of_torchvision(net):
    model, x = net(), [torch.rand(3, 50, 40, generator=torch.Generator().manual_seed(0))]
    cam = RISE(model, masks=20)
    maps = cam(x, [[DetectionTarget(0), DetectionTarget(1)]])
    assert maps.shape == (1, 2, 50, 40)
    np.testing.assert_allclose(cam(x)[0], maps[0, 0], atol=1e-6)


def test_any_callable():
    net, x = convolutional(), images()
    expected = RISE(net, masks=30)(x, 3)
    scripted = torch.jit.trace(net, x)
    for model in (lambda batch: net(batch), lambda batch: net(batch).detach().numpy(), scripted):
        np.testing.assert_allclose(RISE(model, masks=30)(x, 3), expected, atol=1e-6)
    with pytest.raises(TypeError, match="model is int, expected a module or another callable"):
        RISE(5)


def test_seeds_and_batches():
    net, x = convolutional(), images()
    cam = RISE(net, masks=30)
    first = cam(x, 3)
    cam.batch_size = 7
    np.testing.assert_allclose(cam(x, 3), first, atol=1e-6)
    assert np.abs(RISE(net, masks=30, seed=1)(x, 3) - first).max() > 0.1


def test_as_many_forwards_as_masks():
    net, rows = convolutional(), []
    net.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    RISE(net, masks=30)(images(), [[1, 2, 3]] * 2)
    assert sum(rows) == 2 + 2 * 30


def test_a_score_that_does_not_depend_on_the_image():
    with pytest.warns(CamWarning, match="2 of 2 maps are blank: the score is the same whatever of the image is masked"):
        assert not RISE(lambda x: torch.ones(len(x), 2), masks=5)(images(), 0).any()
    with pytest.warns(CamWarning, match="non-finite scores"):
        assert not RISE(lambda x: torch.full((len(x), 2), torch.nan), masks=5)(images(), 0).any()


@pytest.mark.parametrize("options", [{"masks": 1}, {"cells": 0}, {"share": 0.0}, {"share": 1.0}])
def test_options(options):
    with pytest.raises(ValueError, match="expected at least 2 masks of at least 1 cell"):
        RISE(convolutional(), **options)


def test_layers_are_not_used():
    with pytest.warns(UserWarning, match="RISE masks the image"):
        RISE(convolutional(), "last")

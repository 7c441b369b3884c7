"""The map of a box against PyTorch's own gradients: by LayerCAM's formula on each level, the highest of all."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectors import Cells, torchvision_faster_rcnn
from torch import nn

from pytorch_grad_cam import BoxTarget, LayerCAM
from pytorch_grad_cam.engine.detections.forms import detected
from pytorch_grad_cam.engine.detections.raw_predictions import raw_predictions_kept, suppressing_modules

SIDE = 128


NETS = [Cells, pytest.param(torchvision_faster_rcnn, marks=pytest.mark.slow)]


def scaled(evidence):
    lowest, highest = evidence.min(), evidence.max()
    return (evidence - lowest) / (highest - lowest) if highest > lowest else evidence * 0


def literal(model, layers, x, which):
    """The LayerCAM of one of the raw predictions, by hooks of our own on the levels."""
    kept = []
    handles = [layer.register_forward_hook(lambda *run: kept.append(run[2])) for layer in layers]
    with raw_predictions_kept(suppressing_modules(model), tuple(x.shape[2:])):
        predictions = detected(model, model(x), tuple(x.shape[2:])).predictions[0]
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(predictions.logits.flatten()[which], kept, allow_unused=True)
    levels = []
    for activations, gradient in zip(kept, gradients, strict=True):
        evidence = (activations * (0 if gradient is None else gradient.relu())).sum(1, keepdim=True).relu()
        levels.append(F.interpolate(scaled(evidence), size=x.shape[2:], mode="bilinear")[0, 0])
    return scaled(torch.stack(levels).amax(0)).detach()


@pytest.mark.parametrize("build", NETS)
@pytest.mark.filterwarnings("ignore::pytorch_grad_cam.CamWarning")
def test_the_map_is_that_of_autograd(build):
    torch.manual_seed(0)
    model, x = build().eval(), torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.5)
    cam = LayerCAM(model)
    cam(x, 1)
    (predictions,) = cam.predictions
    sides = predictions.boxes[:, 2:] - predictions.boxes[:, :2]
    scores = predictions.scores.amax(1).masked_fill((sides < 8).any(1) | (predictions.boxes < 0).any(1), -1)
    row = int(scores.argmax())
    box = predictions.boxes[row].tolist()
    label = int(predictions.labels.expand_as(predictions.scores)[row, predictions.scores[row].argmax()])
    maps = cam(x, BoxTarget(box, label))
    (predictions,) = cam.predictions
    expected = literal(model, cam.target_layers, x, predictions.nearest(box, label))
    assert maps.max() == 1
    np.testing.assert_allclose(maps[0], expected, rtol=0, atol=1e-5)

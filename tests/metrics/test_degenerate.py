"""Every metric of `evaluate` with maps and images that say nothing: a value, or an error that says what is wrong."""

import pytest
import torch
from torch import nn

from pytorch_grad_cam.evaluation.metrics import available_metrics
from pytorch_grad_cam.metrics.shared_scores import scored_in_common

SIZE = (12, 16)
CLASSES = [0, 1, 2, 3]
BOXES = torch.tensor([[[2.0, 2.0, 8.0, 9.0]]] * 4)
METRICS = available_metrics()
every_metric = pytest.mark.parametrize("name", METRICS)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Softmax(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *tail)


class Constant:
    """Makes maps of one value."""

    def __init__(self, model, value):
        self.model, self.value = model, value

    def __call__(self, input_tensor, targets, **_):
        return torch.full((len(input_tensor), *input_tensor.shape[2:]), self.value)


def numbers(name, model, images, value):
    metric, maps = METRICS[name], torch.full((len(images), *SIZE), value)
    if metric.needs == "scores":
        (found,) = scored_in_common([metric.function], images, maps, CLASSES, model)
    elif metric.needs == "maps":
        found = metric.function(maps)
    elif metric.needs == "truth":
        found = metric.function(maps, BOXES)
    elif metric.needs == "model":
        found = metric.function(model, images, maps, CLASSES)
    else:
        found = metric.function(Constant(model, value), images, CLASSES)
    return torch.as_tensor(found)


@every_metric
def test_maps_that_are_not_finite(name, model):
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            numbers(name, model, torch.rand(4, 3, *SIZE), value)


@every_metric
def test_blank_maps_have_a_value(name, model):
    found = numbers(name, model, torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(1)), 0.0)
    assert len(found) == 4
    assert found.isfinite().all()


@every_metric
def test_images_of_one_colour_have_a_value(name, model):
    assert numbers(name, model, torch.full((4, 3, *SIZE), 0.5), 0.5).isfinite().all()


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.needs == "truth"])
@pytest.mark.parametrize(
    "truth",
    [
        torch.tensor([[[20.0, 2.0, 30.0, 9.0]]]),  # beside the image
        torch.tensor([[[5.0, 5.0, 5.0, 9.0]]]),  # without an area
        torch.zeros(1, *SIZE, dtype=torch.bool),
    ],
)
def test_an_image_without_an_object(name, truth):
    with pytest.raises(ValueError, match="ground truth of image 0 has no pixel"):
        METRICS[name].function(torch.rand(1, *SIZE), truth)

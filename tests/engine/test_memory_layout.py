"""Many forwards with channels-last images on the CPU."""

import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.engine.torch_quirks.memory_layout import in_fastest_layout


class Viewing(nn.Module):
    """`view` behind a convolution, as in old models: it needs memory in the order of the axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.head, self.layouts = nn.Conv2d(3, 4, 3), nn.Linear(4 * 10 * 14, 5), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layouts.append(x.is_contiguous())
        features = self.features(x)
        return self.head(features.view(len(x), -1))


class Reshaping(Viewing):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layouts.append(x.is_contiguous())
        return self.head(self.features(x).reshape(len(x), -1))


def test_images_lie_channels_last_where_the_model_does_not_mind():
    model, x = Reshaping(), images(count=4)
    expected = model(x)
    torch.testing.assert_close(in_fastest_layout(model, model, x), expected)
    assert model.layouts == [True, False]


def test_a_model_that_minds_gets_them_as_they_come_and_is_asked_once():
    model, x = Viewing(), images(count=4)
    expected = model(x)
    for _ in range(2):
        torch.testing.assert_close(in_fastest_layout(model, model, x), expected)
    assert model.layouts == [True, False, True, True]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_any_rank(rank):
    model, x = convolutional(rank), images(rank)
    torch.testing.assert_close(in_fastest_layout(model, model, x), model(x))


def test_an_error_of_the_models_own_comes_through_and_nothing_is_learned_from_it():
    model = Reshaping()

    def failing(x):
        raise RuntimeError("of the model's own")

    with pytest.raises(RuntimeError, match="of the model's own"):
        in_fastest_layout(model, failing, images())
    in_fastest_layout(model, model, images())
    assert model.layouts == [False]


def test_score_cam_of_both():
    viewing, reshaping = Viewing(), Reshaping()
    maps = [ScoreCAM(model, "features")(images(), [1, 2], as_tensor=True) for model in (viewing, reshaping)]
    torch.testing.assert_close(*maps, atol=1e-5, rtol=0)
    assert False in reshaping.layouts

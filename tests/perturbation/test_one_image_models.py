"""Methods that ask a model many things at once, of models that take one image: converted graphs fix the batch."""

import numpy as np
import pytest
import torch
from torch import nn

from pytorch_grad_cam import LIFTCAM, RISE, AblationCAM, GroupCAM, LayerIntegratedGradients, ReciproCAM, ScoreCAM


class Net(nn.Module):
    """`end` is what the graph does with the batch."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(2)
        self.end = end
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.ReLU())
        self.hidden, self.head = nn.Linear(6 * 12, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.hidden(self.end(self.last(self.stem(x)))).tanh())


def of_any_batch(maps):
    return maps.flatten(1)


def refuses_several(maps):
    return maps.reshape(1, 72)


def answers_once_for_several(maps):
    return maps.flatten(1).amax(0, keepdim=True)


@pytest.mark.parametrize("end", [refuses_several, answers_once_for_several])
@pytest.mark.parametrize(
    "explainer", [AblationCAM, ScoreCAM, ReciproCAM, LayerIntegratedGradients, LIFTCAM, GroupCAM, RISE]
)
def test_one_at_a_time_gives_the_map(explainer, end):
    x = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    expected = explainer(Net(of_any_batch).eval(), **options_of(explainer))(x, 1)
    np.testing.assert_allclose(explainer(Net(end).eval(), **options_of(explainer))(x, 1), expected, atol=1e-5)


def options_of(explainer):
    return {"masks": 64} if explainer is RISE else {"target_layers": "last", "check_place": False}


def test_what_fails_with_one_image_is_raised():
    def fails_behind_zeros(maps):
        if not maps[:, 0].any():
            raise KeyError("no first channel")
        return maps.flatten(1)

    x = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    with pytest.raises(KeyError, match="no first channel"):
        AblationCAM(Net(fails_behind_zeros).eval(), "last", check_place=False)(x, 1)

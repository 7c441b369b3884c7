"""Models that give identities in training mode and features else."""

import warnings

import numpy as np
import pytest
import torch
from nets import convolutional, images, state_of
from torch import nn

from pytorch_grad_cam import EigenCAM, FinerCAM, GradCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning


class Identities(nn.Module):
    """As in re-identification. forwards: how many in training mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base, self.neck, self.identity = nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm1d(8), nn.Linear(8, 5)
        self.drop, self.forwards = nn.Dropout(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.neck(self.base(x).relu().mean((2, 3)))
        if not self.training:
            return features
        self.forwards += 1
        return self.identity(self.drop(features))


def said(run) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(warning.message) for warning in caught if "training mode" in str(warning.message)]


@pytest.mark.parametrize("ours", [GradCAM, FinerCAM])
@pytest.mark.parametrize("count", [1, 3])
def test_another_output_in_training_mode(ours, count):
    model, x = Identities().train(), images(count=count)
    before, random = state_of(model), torch.get_rng_state()
    cam = ours(model, "base")
    (message,) = said(lambda: cam(x, 2))
    assert "training mode, where it gives (5,) for an image" in message
    assert "in evaluation mode, (8,)" in message
    assert not said(lambda: cam(x, 2)), "once"
    assert model.forwards == 1
    after = state_of(model)
    assert str(after) == str(before), "statistics too"
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("mended", [lambda model: model.eval(), lambda model: model.identity])
def test_what_is_meant_is_not_warned_of(mended):
    model = Identities().train()
    meant = mended(model)
    transform = None if meant is model else meant
    assert not said(lambda: GradCAM(model, "base", output_transform=transform)(images(), 2))


class WithLabels(Identities):
    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if self.training:
            self.forwards += 1
            return nn.functional.cross_entropy(self.neck(self.base(x)), labels)
        return self.identity(self.neck(self.base(x).mean((2, 3))))


def test_a_model_that_fails_without_labels():
    model = WithLabels().train()
    np.testing.assert_array_equal(
        GradCAM(model, "base")(images(), 2), GradCAM(WithLabels().eval(), "base")(images(), 2)
    )
    assert model.forwards == 1


def test_no_forward_where_no_code_asks_for_the_mode():
    runs = []
    model = convolutional().train()
    model.stem.register_forward_hook(lambda *_: runs.append(1))
    GradCAM(model, "last", check_place=False)(images(), 2)
    assert len(runs) == 1
    assert model.training


def test_a_method_without_a_target():
    assert not said(lambda: EigenCAM(Identities().train(), "base", uses_gradients=False)(images()))


def test_the_warning_is_one_of_ours():
    with pytest.warns(CamWarning, match=r"pass an output_transform that makes it of the latter"):
        GradCAM(Identities().train(), "base")(images(), 2)

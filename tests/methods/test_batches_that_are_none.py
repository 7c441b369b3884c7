"""Outputs whose first axis is not the images: bags of them, sequences in time; and heads that need several."""

import numpy as np
import pytest
import torch
from nets import images
from torch import nn

from pytorch_grad_cam import SESS, AblationCAM, CamWarning, GradCAM, ScoreCAM


class Bag(nn.Module):
    """Multiple instance learning: all images have one output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).relu().mean((2, 3)).amax(0, keepdim=True).tanh())


class Sequence(Bag):
    """As for CTC: (time, N, classes)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).relu().mean(2).permute(2, 0, 1))


@pytest.mark.parametrize("targets", [1, [1], None])
@pytest.mark.parametrize("ours", [ScoreCAM, AblationCAM, SESS])
def test_a_bag_has_no_output_for_each_image(ours, targets):
    with pytest.raises(ValueError, match=r"1 outputs for 3 images \(a bag of them\?\).* such as GradCAM"):
        ours(Bag(), "stem")(images(count=3), targets)


def test_gradients_of_a_bag():
    assert GradCAM(Bag(), "stem")(images(count=3), [1]).shape == (3, *images().shape[2:])


@pytest.mark.parametrize("layers", ["stem", None])
def test_images_of_a_bag_that_the_score_does_not_depend_on(layers):
    """Of each feature the highest one of the bag counts: an image without any has a blank map, and is told why."""
    bag = images(count=3)
    bag[1] = 0
    with pytest.warns(CamWarning, match="1 of 3 maps are blank: zero gradient"):
        maps = GradCAM(Bag(), layers)(bag, [1])
    assert not maps[1].any()
    assert maps[[0, 2]].any()


@pytest.mark.parametrize("targets", [1, [1, 2, 3]])
def test_a_sequence_says_how_to_be_read(targets):
    with pytest.raises(ValueError, match=r"\(time, N, classes\), as for CTC, needs output_transform=lambda output: o"):
        GradCAM(Sequence(), "stem")(images(count=3), targets)


def test_a_sequence_read_with_the_batch_first():
    cam = GradCAM(Sequence(), "stem", output_transform=lambda output: output.transpose(0, 1))
    found = cam(images(count=3), lambda output: output[:, 1].sum())
    alone = [cam(images(count=3)[[index]], lambda output: output[:, 1].sum()) for index in range(3)]
    np.testing.assert_allclose(found, np.concatenate(alone), atol=1e-5)


def test_the_layer_of_a_head_that_normalises_over_the_batch():
    torch.manual_seed(0)
    head = nn.BatchNorm1d(6, track_running_stats=False)
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(stem, head, nn.Linear(6, 5))
    expected = GradCAM(model, "0.1")(images(count=3), 1)
    np.testing.assert_array_equal(GradCAM(model)(images(count=3), 1), expected)

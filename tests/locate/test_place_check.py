"""The check of a new map's place: silent where the layer answers in place, a warning where it does not."""

import warnings

import pytest
import torch
from nets import Transformer, convolutional, images
from tokens import Tokens
from torch import nn

from pytorch_grad_cam import EigenCAM, FinerCAM, GradCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.locate import place_check
from pytorch_grad_cam.locate.readings import Readings

SIZE = (32, 48)  # 8 x 12 patches
WRONG = "may lie in the wrong place"


def picture(count=1, seed=1):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if WRONG in str(each.message)]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (convolutional(), None),
        (convolutional(), "last"),
        (Transformer(), None),
        (Tokens([0]), "norms.1"),
        (Tokens([50]), "norms.1"),
    ],
)
def test_right_maps_are_not_warned_of(model, layer, samples):
    x = images(count=samples) if layer != "norms.1" else picture(samples)
    for cam_class in (GradCAM, EigenCAM):
        assert not said(lambda cam_class=cam_class: cam_class(model.eval(), layer)(x, 1))


@pytest.mark.parametrize("places", [[50], [96], [*range(96, 196)], [7, 20, 40]])
def test_without_verification_tokens_one_off_are_warned_of(places, monkeypatch):
    """A class token in the middle or at the end, detection tokens behind the patches, read as if in front."""
    model, x = Tokens(places).eval(), picture()
    monkeypatch.setattr(Readings, "by_answers", lambda self, entry, clearly=False: self.by_numbers(entry)[0])
    assert said(lambda: GradCAM(model, "norms.1")(x, 1))


def test_a_transform_that_swaps_the_axes_is_warned_of():
    def columns_first(tokens):
        return tokens[:, 1:].unflatten(1, (12, 8)).movedim(-1, 1).mT

    assert said(lambda: GradCAM(Tokens([0]).eval(), "norms.1", columns_first)(picture(), 1))
    assert said(lambda: FinerCAM(Tokens([0]).eval(), "norms.1", columns_first)(picture(), 1))


def test_tokens_that_left_their_places_are_warned_of_under_a_transform():
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    model = Tokens([], what=lambda tokens: tokens[:, order]).eval()
    assert said(
        lambda: GradCAM(model, "norms.1", lambda tokens: tokens.unflatten(1, (8, 12)).movedim(-1, 1))(picture(), 1)
    )


def test_it_is_made_once_for_each_layer_and_size():
    model, runs = convolutional(), []
    model.register_forward_hook(lambda _, inputs, __: runs.append(len(inputs[0])))
    cam = GradCAM(model, "last")
    cam(images(count=3), 1)
    assert runs == [3, 2], "the first sample and its changed copy"
    cam(images(count=1), 1)
    assert runs == [3, 2, 1]
    cam(torch.randn(1, 3, 20, 20), 1)
    assert len(runs) > 4, "a new size"


def test_it_is_left_out_where_it_is_not_wanted():
    model, runs = convolutional(), []
    model.register_forward_hook(lambda *_: runs.append(1))
    GradCAM(model, "last", check_place=False)(images(), 1)
    assert len(runs) == 1


def test_the_warning_names_the_ways_out():
    with pytest.warns(CamWarning, match=r"the map of norms.1 .*reshape_transform.*axes=.*check_place=False"):
        GradCAM(Tokens([0]).eval(), "norms.1", lambda t: t[:, 1:].unflatten(1, (12, 8)).movedim(-1, 1).mT)(picture(), 1)


@pytest.mark.parametrize("samples", [1, 2])
def test_halves_of_the_image_decide_where_two_cells_show_nothing(samples, monkeypatch):
    """Of networks whose cells look nearly everywhere a single pair tells little."""
    monkeypatch.setattr(place_check, "_LEAST_OF_MAPS", 1.1)
    model, runs = convolutional().eval(), []
    model.register_forward_hook(lambda *_: runs.append(1))
    assert not said(lambda: GradCAM(model, "last")(images(count=samples), 1))
    assert len(runs) == 1 + 1 + 4, "the call, two cells, four quarters"
    assert said(lambda: GradCAM(model, "last", lambda cells: cells.flip(2))(images(count=samples), 1))


def test_a_little_noise_decides_where_much_of_it_tells_nothing(monkeypatch):
    """Deep networks with random weights are chaotic."""
    monkeypatch.setattr(place_check, "_LEAST_OF_MAPS", 1.1)
    model, x = convolutional().eval(), images(count=1)
    much = []
    model.register_forward_pre_hook(lambda _, inputs: much.append((inputs[0] - x).abs().amax() > x.std() / 2))
    model.first.register_forward_hook(lambda _, __, cells: cells.flip(2, 3) if much[-1] else cells)
    assert not said(lambda: GradCAM(model, "last")(x, 1))
    assert much == [False, *[True] * 5, *[False] * 4]
    monkeypatch.setattr(place_check, "_STRENGTHS", (1,))
    assert said(lambda: GradCAM(model, "last", lambda cells: cells)(x, 1))


def test_the_name_of_a_misplaced_layer_that_is_no_module_of_the_model():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = [convolutional().eval()]

        def forward(self, x):
            return self.net[0](x)

    model = Hidden()
    assert (
        "the map of ReLU may lie"
        in said(lambda: GradCAM(model, [model.net[0].last], lambda tensor: tensor.roll(4, 3))(images(), 1))[0]
    )


def test_only_a_place_that_was_right_is_remembered():
    """A second CAM of the same model warns again, and another reading of the layer is another place."""

    def columns_first(tokens):
        return tokens[:, 1:].unflatten(1, (12, 8)).movedim(-1, 1).mT

    model = Tokens([0]).eval()
    assert not said(lambda: GradCAM(model, "norms.1")(picture(), 1))
    for _ in range(2):
        assert said(lambda: GradCAM(model, "norms.1", columns_first)(picture(), 1))

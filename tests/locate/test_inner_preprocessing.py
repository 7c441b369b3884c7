"""Models that pad, crop or resize their images themselves: a map of another part than the image is warned of."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from nets import CLASSES
from torch import nn

from pytorch_grad_cam import EigenCAM, GradCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.locate.inner_preprocessing import ends_of_reads

SIZE = (48, 64)


def picture(count=1, size=SIZE):
    smooth = torch.rand(count, 3, *[length // 8 for length in size], generator=torch.Generator().manual_seed(1))
    return F.interpolate(smooth, size=size, mode="bilinear" if len(size) == 2 else "linear")


class Inside(nn.Module):
    """Does something to the image in front of its own layers."""

    def __init__(self, does, rank=2):
        super().__init__()
        torch.manual_seed(0)
        convolution, self.does = {1: nn.Conv1d, 2: nn.Conv2d}[rank], does
        self.body = nn.Sequential(convolution(3, 8, 3, 4, 1), nn.ReLU(), convolution(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.body(self.does(x)).flatten(2).mean(2))


def said(model, x, layer="body", cam_class=GradCAM, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cam_class(model.eval(), layer, **options)(x, 1)
    return [str(each.message) for each in caught if "may lie in the wrong place" in str(each.message)]


def letterboxed(x):
    return F.pad(x, (0, 0, 8, 8), value=0.5)


def normalised_by_image(x):
    padded = F.pad(x, (0, 0, 0, 16))
    return (padded - padded.mean((1, 2, 3), keepdim=True)) / padded.std((1, 2, 3), keepdim=True)


def centre_cropped(x):
    return F.interpolate(x, size=(60, 80), mode="bilinear")[..., 6:-6, 8:-8]


def through_numpy(x):
    return torch.as_tensor(F.pad(x.detach(), (0, 32)).numpy())


ELSEWHERE = {
    "padded below": lambda x: F.pad(x, (0, 0, 0, 16)),
    "letterboxed": letterboxed,
    "enlarged and padded": lambda x: F.pad(F.interpolate(x, scale_factor=2.0, mode="bilinear"), (0, 0, 0, 32)),
    "padded by its mirrored image": lambda x: F.pad(x, (16, 0, 0, 0), mode="reflect"),
    "normalised with its padding": normalised_by_image,
    "cropped": lambda x: x[..., 8:-8, :],
    "cropped to the size that was given": centre_cropped,
    "without a graph": through_numpy,
    "only its middle": lambda x: x[..., 18:-18, 24:-24],
}
IN_PLACE = {
    "as it is": lambda x: x,
    "scaled and shifted": lambda x: (x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.2,
    "colours turned": lambda x: x.flip(1),
    "resized": lambda x: F.interpolate(x, size=(80, 80), mode="bilinear"),
    "made small": lambda x: F.interpolate(x, size=(32, 32), mode="area"),
    "padded by less than half a cell": lambda x: F.pad(x, (1, 1, 1, 1)),
    "rounded": lambda x: (x * 255).round() / 255,
    "blurred": lambda x: F.avg_pool2d(x, 9, 1, 4),
}


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind in ELSEWHERE if kind != "only its middle"])
def test_a_map_of_another_part_than_the_image_is_warned_of(kind, samples):
    for layer in ("body", None) if kind != "without a graph" else ("body",):
        (message,) = said(Inside(ELSEWHERE[kind]), picture(samples), layer)
        assert "pads or crops the 48x64 image" in message


def test_the_warning_says_where_the_image_lies():
    with pytest.warns(CamWarning, match=r"the map of body .* which reads the part 0 to 64 x 0 to 64 of it"):
        GradCAM(Inside(ELSEWHERE["padded below"]).eval(), "body")(picture(), 1)
    with pytest.warns(CamWarning, match=r"reads the part 8 to 40 x 0 to 64 of it .*Pad, crop or resize .*check_place"):
        GradCAM(Inside(ELSEWHERE["cropped"]).eval(), "body")(picture(), 1)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_stays_in_place_is_not_warned_of(kind, samples):
    assert not said(Inside(IN_PLACE[kind]), picture(samples))
    assert not said(Inside(IN_PLACE[kind]), picture(samples), cam_class=EigenCAM)


@pytest.mark.parametrize(("kind", "runs"), [("as it is", 2), ("scaled and shifted", 2), ("colours turned", 5)])
def test_it_costs_three_forwards_where_the_first_layer_reads_another_image(kind, runs):
    model, seen = Inside(IN_PLACE[kind]), []
    model.register_forward_hook(lambda *_: seen.append(1))
    said(model, picture())
    assert len(seen) == runs
    said(model, picture())
    assert len(seen) == runs + 1, "the place is known"


def test_every_cam_of_such_a_model_says_so():
    model = Inside(ELSEWHERE["padded below"])
    assert [len(said(model, picture())) for _ in range(2)] == [1, 1]
    assert not said(model, picture(), check_place=False)


def test_a_signal_that_is_padded():
    assert said(Inside(lambda x: F.pad(x, (0, 100)), rank=1), picture(size=(160,)))
    assert not said(Inside(lambda x: x / x.std(), rank=1), picture(size=(160,)))


def test_the_first_layers_that_read_another_input_are_passed_by():
    class TwoInputs(Inside):
        def __init__(self, does):
            super().__init__(does)
            self.of_depth = nn.Conv2d(1, 8, 3, 8, 1)

        def forward(self, x, depth):
            first = self.of_depth(depth)
            return self.head((self.body(self.does(x)) + first).flatten(2).mean(2))

    depth = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(2))
    assert not said(TwoInputs(IN_PLACE["as it is"]), (picture(), depth))
    assert not said(TwoInputs(IN_PLACE["colours turned"]), (picture(), depth))
    assert said(TwoInputs(lambda x: x.roll(24, 2)), (picture(), depth))


class Positions(nn.Module):
    """Adds a parameter of its own, so that it counts as a learned layer, which reads the input as it was given."""

    def __init__(self, shape):
        super().__init__()
        self.added = nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return x + self.added


class FramesFirst(nn.Module):
    """Clips (N, frames, C, H, W): positions are added, then each frame is convolved."""

    def __init__(self, does):
        super().__init__()
        torch.manual_seed(0)
        self.does, self.positions = does, Positions((1, 1, 1, 1, 1))
        self.body, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        clips = self.positions(self.does(x))
        return self.head(self.body(clips.flatten(0, 1)).unflatten(0, (len(x), -1)).mean((1, 3, 4)))


class Sequence(nn.Module):
    """Features (N, T, features) through an encoder."""

    def __init__(self, does):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 2, 16, 0.0, batch_first=True)
        self.does, self.body, self.head = does, nn.TransformerEncoder(layer, 1), nn.Linear(32, CLASSES)

    def forward(self, x):
        return self.head(self.body(self.does(x)).mean(1))


def test_images_whose_channels_are_not_the_second_axis():
    clips = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert not said(FramesFirst(lambda x: x), clips)
    assert not said(FramesFirst(lambda x: (x - 0.5) / 0.2), clips)
    assert said(FramesFirst(lambda x: F.pad(x, (0, 0, 0, 16))), clips, axes="NTCHW")
    features = torch.rand(2, 16, 32, generator=torch.Generator().manual_seed(1))
    assert not said(Sequence(lambda x: x), features)
    assert not said(Sequence(lambda x: x), features, axes="NTC")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("as it is", [(0, 48), (0, 64)]),
        ("resized", [(0, 48), (0, 64)]),
        ("padded below", [(0, 64), (0, 64)]),
        ("letterboxed", [(-8, 56), (0, 64)]),
        ("padded by its mirrored image", [(0, 48), (-16, 64)]),
        ("normalised with its padding", [(0, 64), (0, 64)]),
        ("cropped", [(8, 40), (0, 64)]),
        ("blurred", [(0, 48), (0, 64)]),
        ("cropped to the size that was given", [(4.8, 43.2), (6.4, 57.6)]),
        ("only its middle", [(torch.inf, -torch.inf)] * 2),
    ],
)
def test_the_ends_of_what_is_read(kind, expected):
    does = {**ELSEWHERE, **IN_PLACE}[kind]
    found = ends_of_reads(picture(), lambda image: [does(image)])
    if kind == "only its middle":
        assert found in ([], [expected])
    else:
        torch.testing.assert_close(torch.tensor(found), torch.tensor([expected]).float(), atol=1.5, rtol=0)


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        (lambda x: x.flip(-1), [(0, 48), (64, 0)]),
        (lambda x: x.flip(-2), [(48, 0), (0, 64)]),
        (lambda x: F.pad(x.flip(-1), (0, 16)), [(0, 48), (64, -16)]),
        (lambda x: F.avg_pool2d(x, 8), [(0, 48), (0, 64)]),
    ],
)
def test_the_ends_of_what_is_mirrored_or_coarse(does, expected):
    (found,) = ends_of_reads(picture(), lambda image: [does(image)])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected).float(), atol=1, rtol=0)


@pytest.mark.parametrize("does", [lambda x: x.flip(-1), lambda x: x.rot90(2, (2, 3))])
def test_a_mirrored_image_is_called_so(does):
    (message,) = said(Inside(does), picture())
    assert "mirrors or turns the 48x64 image" in message
    assert "inf" not in message


class Warped(Inside):
    """A spatial transformer: what it shows its layers is a parameter of its own."""

    def __init__(self):
        super().__init__(self.lower_right)
        self.theta = nn.Parameter(torch.tensor([[[0.5, 0, 0.5], [0, 0.5, 0.5]]]))

    def lower_right(self, x):
        grid = F.affine_grid(self.theta.expand(len(x), -1, -1), x.shape, align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


def test_a_model_with_parameters_of_its_own_is_not_its_first_layer():
    (message,) = said(Warped(), picture())
    assert "crops the 48x64 image before its first layer, which reads a part of it" in message


class LinearFirst(nn.Module):
    """Squares of pixels as features of a linear layer, channels last as in Swin and ConvNeXt."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.head = nn.Linear(48, 16), nn.LayerNorm(16), nn.Linear(16, CLASSES)
        self.body = nn.Sequential(nn.Linear(16, 16), nn.GELU())

    def forward(self, x):
        return self.head(self.body(self.norm(self.embed(F.pixel_unshuffle(x, 4).movedim(1, -1)))).mean((1, 2)))


@pytest.mark.parametrize("size", [(64, 48), (64, 64)])
@pytest.mark.parametrize("layer", ["body", None])
def test_a_linear_layer_reads_channels_last(size, layer):
    assert not said(LinearFirst(), picture(size=size), layer)


def test_what_does_not_depend_on_the_image_has_no_ends():
    assert ends_of_reads(picture(), lambda image: [torch.zeros(1, 3, 8, 8)]) == []

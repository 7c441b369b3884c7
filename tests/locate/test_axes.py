"""Images with other axes than (N, C, *spatial): found or named, and equal to the same network behind a permute."""

import inspect

import literal
import numpy as np
import pytest
import torch
from nets import CLASSES, CONVOLUTIONS, convolutional, images
from torch import nn
from torch.nn import functional as F

from pytorch_grad_cam import (
    AblationCAM,
    BaseCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.engine.inputs import ImagePlace, image_of, place_of, with_image
from pytorch_grad_cam.engine.targets import TargetRule
from pytorch_grad_cam.locate import layout_of, locate
from pytorch_grad_cam.locate.found_axes import found_axes

TOLERANCE = 1e-6


class Permuted(nn.Module):
    """The network for images whose axes are to be permuted in front of it; None adds a channel."""

    def __init__(self, net, order):
        super().__init__()
        self.net, self.order = net, order

    def forward(self, x):
        return self.net(x[:, None] if self.order is None else x.permute(*self.order))


class Frames(nn.Module):
    """A convolution of each frame (N, frames, 3, H, W), and a mean that weighs later frames more."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Linear(8, CLASSES)

    def forward(self, x):
        seen = self.act(self.conv(x.flatten(0, 1))).mean((2, 3)).unflatten(0, x.shape[:2])
        return self.head((seen * torch.linspace(1, 2, x.shape[1])[:, None]).mean(1))


class Spectrogram(nn.Module):
    """Patches of (N, time, mel) as maps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.head = nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.act(self.conv(x[:, None])).mean((2, 3)))


class AudioTransformer(nn.Module):
    """Patches of (N, time, mel), transposed to mel by time, as tokens behind two extra ones."""

    def __init__(self, stride=4):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.norm, self.head = nn.Conv2d(1, 10, 4, stride), nn.LayerNorm(10), nn.Linear(10, CLASSES)
        self.extra = nn.Parameter(torch.randn(1, 2, 10))

    def forward(self, x):
        tokens = self.patch(x[:, None].mT).flatten(2).mT
        tokens = torch.cat([self.extra.expand(len(x), -1, -1), tokens], dim=1)
        return self.head(self.norm(tokens).square().mean(1))


class Sequence(nn.Module):
    """Steps (N, T, features), each read alone; later ones count more."""

    def __init__(self, given=16):
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.act, self.head = nn.Linear(32, given), nn.GELU(), nn.Linear(given, CLASSES)

    def forward(self, x):
        return self.head((self.act(self.enc(x)) * torch.linspace(1, 2, x.shape[1])[:, None]).mean(1))


class Filtered(nn.Module):
    """A convolution over the steps (N, T, features)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.act, self.head = nn.Conv1d(32, 16, 3, 2, 1), nn.GELU(), nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.act(self.enc(x.mT)).mean(2))


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def to_ordinary(x, axes):
    """The image (N, C, *spatial)."""
    return x.movedim(axes.index("C"), 1) if "C" in axes else x[:, None]


def from_ordinary(axes):
    """The order of a permute from (N, C, *spatial) to these axes."""
    ordinary = ["N", "C", *(axis for axis in axes if axis not in "NC")]
    return tuple(ordinary.index(axis) for axis in axes)


class Unpermuted(nn.Module):
    """The network for ordinary images."""

    def __init__(self, net, axes):
        super().__init__()
        self.net, self.axes = net, axes

    def forward(self, x):
        return self.net(x.permute(*from_ordinary(self.axes)) if "C" in self.axes else x[:, 0])


# Of each the network, its axes, an image of two samples, a layer that may be named, and the image's spatial axes.
CASES = {
    "channels last": (lambda: Permuted(convolutional(), (0, 3, 1, 2)), "NHWC", (2, 12, 16, 3), "net.last"),
    "signal, channels last": (lambda: Permuted(convolutional(1), (0, 2, 1)), "NLC", (2, 24, 3), "net.last"),
    "volume, channels last": (
        lambda: Permuted(convolutional(3), (0, 4, 1, 2, 3)),
        "NDHWC",
        (2, 6, 8, 10, 3),
        "net.last",
    ),
    "frames first": (lambda: Permuted(convolutional(3), (0, 2, 1, 3, 4)), "NTCHW", (2, 6, 3, 8, 10), "net.last"),
    "frames folded": (Frames, "NTCHW", (2, 6, 3, 16, 24), "act"),
    "spectrogram": (Spectrogram, "NTM", (2, 40, 24), "act"),
    "steps, filtered": (Filtered, "NTC", (2, 20, 32), "act"),
    "steps": (Sequence, "NTC", (2, 12, 32), "act"),
}


@pytest.fixture(params=CASES)
def case(request):
    """The network, its axes, an image and the name of a layer."""
    make, axes, shape, name = CASES[request.param]
    return make().eval(), axes, drawn(*shape), name


# Found and named


@pytest.mark.parametrize("named_layer", [False, True])
@pytest.mark.parametrize("named_axes", [False, True])
def test_maps_are_those_of_the_network_behind_a_permute(case, named_axes, named_layer):
    model, axes, x, name = case
    cam = GradCAM(model, name if named_layer else None, axes=axes if named_axes else None)
    maps = cam(x, 1)
    ordinary = GradCAM(
        Unpermuted(model, axes),
        f"net.{name}" if named_layer else None,
        axes="NC" + axes.replace("N", "").replace("C", ""),
    )
    expected = ordinary(to_ordinary(x, axes), 1)
    assert maps.shape == to_ordinary(x, axes).shape[:1] + to_ordinary(x, axes).shape[2:]
    assert expected.max() == 1
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE)
    np.testing.assert_allclose(cam(x, 1), maps, atol=TOLERANCE)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_any_number_of_images(case, samples):
    model, _, x, _ = case
    x = torch.cat([x, x.flip(1)])[:samples]
    maps = GradCAM(model)(x, 1)
    for sample in range(samples):
        np.testing.assert_allclose(maps[sample], GradCAM(model)(x[sample : sample + 1], 1)[0], atol=1e-5)


def test_cells_are_where_the_image_changes(case):
    """One place of the image is changed: of the layer's map the cells beside it change, and no others."""
    model, axes, x, name = case
    place = place_of(axes, None)
    layer = model.get_submodule(name)
    reading = layout_of(model, x, layer, place)
    image = place.image_in(x)
    changed = image.clone()
    corner = [size - 2 if axis == 0 else 1 for axis, size in enumerate(image.shape[2:])]
    changed[(slice(None), slice(None), *corner)] += 10
    kept = []
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(reading(output.detach())))
    model(x)
    model(place.with_image(x, changed))
    handle.remove()
    difference = (kept[0] - kept[1])[0].norm(dim=0)
    assert difference.shape == reading.grid
    where = difference.nonzero().float().mean(0) + 0.5
    scale = torch.tensor([size / cells for size, cells in zip(image.shape[2:], reading.grid, strict=True)])
    assert ((where * scale - torch.tensor(corner) - 0.5).abs() <= 2 * scale).all()


@pytest.mark.parametrize("layer", [None, "act"])
def test_steps_of_fewer_features_than_steps(layer):
    """(N, 20, 16) are 20 steps, and not 16 cells of 20 channels."""
    model, x = Sequence().eval(), drawn(2, 20, 32)
    maps = GradCAM(model, layer, axes="NTC")(x, 1)
    expected = literal.grad_cam(model, model.act, x, lambda output: output[:, 1].sum(), (20,), lambda t: t.mT)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("axes", [None, "NTM"])
@pytest.mark.parametrize("layer", [None, "norm"])
@pytest.mark.parametrize("size", [(40, 24), (24, 40), (40, 40)])
def test_patches_of_a_transposed_spectrogram(size, layer, axes):
    model, x = AudioTransformer().eval(), drawn(2, *size)
    maps = GradCAM(model, layer, axes=axes)(x, 1)
    grid = tuple(length // 4 for length in size)

    def as_map(tensor):
        return tensor[:, 2:].mT.unflatten(2, grid[::-1]).mT

    expected = literal.grad_cam(model, model.norm, x, lambda output: output[:, 1].sum(), size, as_map)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [None, "norm"])
def test_patches_that_overlap_along_time_alone(layer):
    """10 x 8 cells of about as many steps as bands: 8 x 10 would have a stride that differs less."""
    model, x = AudioTransformer(stride=(4, 3)).eval(), drawn(2, 31, 32)
    expected = literal.grad_cam(
        model,
        model.norm,
        x,
        lambda output: output[:, 1].sum(),
        (31, 32),
        lambda t: t[:, 2:].mT.unflatten(2, (8, 10)).mT,
    )
    np.testing.assert_allclose(GradCAM(model, layer)(x, 1), expected, atol=1e-5)


def test_ordinary_images_stay_as_they_are():
    for rank in CONVOLUTIONS:
        cam = GradCAM(convolutional(rank))
        np.testing.assert_array_equal(
            cam(images(rank), 1), GradCAM(convolutional(rank), axes="NC" + "XYZ"[:rank])(images(rank), 1)
        )
        assert cam.spatial_from is None


def test_an_ordinary_image_with_as_many_rows_as_channels_is_not_turned():
    x = drawn(2, 3, 12, 3)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert GradCAM(model.eval())(x, 1).shape == (2, 12, 3)


def test_of_axes_as_long_as_the_channels_that_which_leaves_the_others_in_order():
    """(N, 6, 3, 8, 3): the third axis is as long as the last."""
    model, x = Permuted(convolutional(3), (0, 4, 1, 2, 3)).eval(), drawn(2, 6, 3, 8, 3)
    cam = GradCAM(model)
    np.testing.assert_allclose(cam(x, 1), GradCAM(model, axes="NDHWC")(x, 1), atol=TOLERANCE)
    assert cam.spatial_from == ImagePlace(None, 4)


def test_a_normalised_signal_without_a_convolution_is_channels_first():
    """The normalisation reads (N, C, L) as it is, the linear layer behind it (N, L, C)."""

    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.norm, self.steps = nn.BatchNorm1d(32), Sequence()

        def forward(self, x):
            return self.steps(self.norm(x).mT)

    assert GradCAM(Normalised().eval())(drawn(2, 32, 12), 1).shape == (2, 12)


def test_axes_that_are_found_cost_one_forward_at_the_first_call():
    model, x = Permuted(convolutional(), (0, 3, 1, 2)).eval(), images().movedim(1, -1)
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    cam, counts = GradCAM(model, check_place=False), []
    for _ in range(2):
        cam(x, 1)
        counts.append(len(runs))
    named = GradCAM(model, axes="NHWC", check_place=False)
    named(x, 1)
    assert [*counts, len(runs)] == [2, 3, 4]


def test_axes_that_nothing_tells_are_looked_for_once():
    """Grey images that the model repeats for its three channels."""

    class Grey(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return self.net(x.expand(-1, 3, -1, -1))

    model, x = Grey().eval(), images()[:, :1]
    runs, counts = [], []
    model.register_forward_hook(lambda *_: runs.append(1))
    cam = GradCAM(model, check_place=False)
    for _ in range(3):
        assert cam(x, 1).shape == (2, 12, 16)
        counts.append(len(runs))
    assert counts == [2, 3, 4]


def test_the_image_is_left_as_it_was():
    model, x = Permuted(convolutional(), (0, 3, 1, 2)).eval(), images().movedim(1, -1).contiguous()
    before = x.clone()
    GradCAM(model)(x, 1)
    assert torch.equal(x, before)
    assert x.is_contiguous()


# Names


@pytest.mark.parametrize("axes", ["", "N", "NC", "CHW", "HWNC", "NHH", "NCHWC", "nchw", "NTHWDC"])
def test_other_strings_are_refused(axes):
    with pytest.raises(ValueError, match=r"expected 'N' \(the batch\), then 'C'.* as 'NTCHW' or 'NHWC'"):
        GradCAM(convolutional(), axes=axes)


@pytest.mark.parametrize(("axes", "channels"), [("NCHW", 1), ("NHWC", 3), ("NTCHW", 2), ("NTM", None), ("NLC", 2)])
def test_what_a_string_says(axes, channels):
    place = place_of(axes, "pixels")
    assert place == ImagePlace("pixels", channels, axes)
    x = drawn(*range(2, 2 + len(axes)))
    image = place.image_in({"pixels": x})
    assert image.shape[2:] == tuple(size for size, axis in zip(x.shape, axes, strict=True) if axis not in "NC")
    assert torch.equal(place.with_image({"pixels": x}, image)["pixels"], x)
    assert image_of({"pixels": x}, place).data_ptr() == x.data_ptr()
    assert torch.equal(with_image({"pixels": x}, image + 1, place)["pixels"], x + 1)


def test_names_of_another_number_of_axes_are_refused():
    """A map (2, 3, 16) of images (2, 3, 12, 16) comes without a word."""
    with pytest.raises(ValueError, match="axes"):
        GradCAM(convolutional(), axes="NTCHW")(images(), 1)


def test_axes_are_an_option_of_every_method():
    assert inspect.signature(BaseCAM.__init__).parameters["axes"].kind is inspect.Parameter.KEYWORD_ONLY
    for cam_class in (GradCAM, ScoreCAM, AblationCAM, EigenCAM):
        assert cam_class(convolutional(), axes="NCHW")(images(), 1).shape == (2, 12, 16)


# With the rest of the library


def pair(cam_class, options=None, call=None, layer="last", wrap=lambda x: x):
    """The maps of channels last, and those of the ordinary image."""
    x, options, call = images(), options or {}, call or {}
    model = convolutional()
    turned = Permuted(model, (0, 3, 1, 2)).eval()
    torch.manual_seed(5)
    maps = cam_class(turned, None if layer is None else f"net.{layer}", **options)(x.movedim(1, -1), 1, **call)
    torch.manual_seed(5)
    return maps, cam_class(model, layer, **options)(x, 1, **call)


@pytest.mark.parametrize("layer", [None, "last"])
@pytest.mark.parametrize("cam_class", [GradCAMPlusPlus, XGradCAM, LayerCAM, EigenCAM, ScoreCAM, AblationCAM])
def test_methods(cam_class, layer):
    maps, expected = pair(cam_class, layer=layer)
    assert expected.max() == 1
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE)


@pytest.mark.parametrize("call", [{"aug_smooth": True}, {"eigen_smooth": True}, {"as_tensor": True}], ids=str)
def test_options_of_the_call(call):
    maps, expected = pair(GradCAM, call=call)
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE)


@pytest.mark.parametrize("options", [{"align": "receptive_field"}, {"detach": False}], ids=str)
def test_options_of_the_constructor(options):
    maps, expected = pair(GradCAM, options)
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(*[np.shape(each) for each in (maps, expected)])


@pytest.mark.parametrize("layer", [None, "net.last"])
def test_the_gradient_of_the_input(layer):
    class Seen(GradCAM):
        def get_cam_weights(self, image, *rest):
            seen.append(image.grad.clone())
            return super().get_cam_weights(image, *rest)

    seen = []
    model, x = Permuted(convolutional(), (0, 3, 1, 2)).eval(), images()
    Seen(model, layer, compute_input_gradient=True, axes="NHWC")(x.movedim(1, -1), 1)
    leaf = x.clone().requires_grad_()
    convolutional()(leaf)[:, 1].sum().backward()
    torch.testing.assert_close(seen[0], leaf.grad)


class WithMask(nn.Module):
    """Takes a scale for each sample beside the image with its channels last."""

    def __init__(self):
        super().__init__()
        self.net = convolutional()

    def forward(self, scale, pixels):
        return self.net(pixels.permute(0, 3, 1, 2) * scale[:, None, None, None])


@pytest.mark.parametrize("named_axes", [None, "NHWC"])
@pytest.mark.parametrize("layer", [None, "net.last"])
@pytest.mark.parametrize("cam_class", [GradCAM, ScoreCAM])
@pytest.mark.parametrize("kind", ["tuple", "dict", "dict, named"])
def test_several_inputs(kind, cam_class, layer, named_axes):
    x, scale = images(), torch.tensor([1.0, 2.0])
    turned = x.movedim(1, -1)
    inputs = (scale, turned) if kind == "tuple" else {"scale": scale, "pixels": turned}
    key = {"tuple": 1, "dict": None, "dict, named": "pixels"}[kind]
    maps = cam_class(WithMask().eval(), layer, axes=named_axes, spatial_from=key)(inputs, 1)
    expected = cam_class(convolutional(), "last")(x * scale[:, None, None, None], 1)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_the_layers_of_the_search_take_a_place():
    model, x = Permuted(convolutional(), (0, 3, 1, 2)).eval(), images().movedim(1, -1)
    location = locate(model, x, spatial_from=place_of("NHWC", None))
    assert (location.name, location.layout.grid) == ("net.last", (6, 8))


# Lists of images


class OfList(nn.Module):
    """Takes a list of images, returns a dict for each, as torchvision's detectors."""

    def __init__(self):
        super().__init__()
        self.net = convolutional()

    def forward(self, pictures):
        scores = self.net(torch.stack(pictures))
        return [{"scores": of_picture} for of_picture in scores]


def second_score(output):
    return output["scores"][1]


@pytest.mark.parametrize("layer", [None, "net.last"])
@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("cam_class", [GradCAM, ScoreCAM])
def test_a_list_of_images(cam_class, samples, layer):
    x = images(count=samples)
    cam = cam_class(OfList().eval(), layer)
    maps = cam([*x], second_score)
    np.testing.assert_allclose(maps, cam_class(convolutional(), "last")(x, 1), atol=1e-5)
    np.testing.assert_allclose(cam([*x], [second_score] * samples), maps, atol=1e-5)
    rule = TargetRule(lambda outputs, targets: [second_score] * len(outputs))
    np.testing.assert_allclose(cam([*x], rule), maps, atol=1e-5)


def test_images_of_several_sizes_have_a_map_each():
    x = images()
    pictures = [x[0], x[1, :, :8]]
    for layer in (None, "net.last"):
        cam = GradCAM(OfList().eval(), layer)
        maps = cam(pictures, second_score)
        assert [each.shape for each in maps] == [(12, 16), (8, 16)]
        for picture, each in zip(pictures, maps, strict=True):
            np.testing.assert_allclose(each, GradCAM(OfList().eval(), layer)([picture], second_score)[0], atol=1e-6)
        assert len(cam.outputs) == 2
    with pytest.raises(ValueError, match="3 targets for 2 images"):
        cam(pictures, [second_score] * 3)


def test_a_list_of_one_image_smoothed():
    x = images(count=1)
    maps = GradCAM(OfList().eval(), "net.last")([*x], second_score, aug_smooth=True)
    np.testing.assert_allclose(maps, GradCAM(convolutional(), "last")(x, 1, aug_smooth=True), atol=1e-5)


# Without a convolution of PyTorch, as in Keras


class Foreign(nn.Module):
    """A convolution of its own over images (N, H, W, 3), run without being a module of the model, as Keras does."""

    def __init__(self, rank=2):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = [OwnConvolution(rank)], nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.layers[0](x).flatten(1, -2).square().mean(1))


class OwnConvolution(nn.Module):
    def __init__(self, rank):
        super().__init__()
        self.kernel, self.apply_it = nn.Parameter(torch.randn(6, 3, *[4] * rank)), getattr(F, f"conv{rank}d")

    def forward(self, x):
        return self.apply_it(x.movedim(-1, 1), self.kernel, stride=4).movedim(1, -1)


@pytest.mark.parametrize(("size", "axes"), [((64, 48), "NHWC"), ((8, 24, 16), "NTHWC")])
@pytest.mark.parametrize("found", [True, False])
def test_images_that_seem_channels_last_are_refused_with_the_spelling(size, axes, found):
    model, x = Foreign(len(size)).eval(), drawn(2, *size, 3)
    with pytest.raises(ValueError, match=rf"seem to be its last axis.*pass axes='{axes}', or axes='NC{axes[1:-1]}'"):
        GradCAM(model, None if found else [model.layers[0]])(x, 1)


@pytest.mark.parametrize(("size", "axes"), [((64, 48), "NHWC"), ((8, 24, 16), "NTHWC")])
def test_a_layer_that_is_no_module_of_the_model_is_read_by_named_axes(size, axes):
    model, x = Foreign(len(size)).eval(), drawn(2, *size, 3)
    layer = model.layers[0]
    maps = GradCAM(model, [layer], axes=axes)(x, 1)
    expected = literal.grad_cam(model, layer, x, lambda o: o[:, 1].sum(), size, lambda t: t.movedim(-1, 1))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_a_model_without_modules_has_none_to_find():
    with pytest.raises(ValueError, match="no module whose output is a map of the 64x48 input"):
        GradCAM(Foreign().eval(), axes="NHWC")(drawn(2, 64, 48, 3), 1)


@pytest.mark.parametrize("shape", [(2, 3, 64, 48), (2, 1, 64, 4), (2, 64, 48, 16), (2, 4, 8, 4)])
def test_other_images_without_a_convolution_are_channels_first(shape):
    assert found_axes(nn.Linear(shape[-1], 4), drawn(*shape), None) is None


def test_one_image_without_the_axis_of_the_batch():
    with pytest.raises(ValueError, match=r"the image is \(3, 12, 16\), .* takes 3 channels: .* pass image\[None\]"):
        GradCAM(convolutional())(images()[0], 3)
    with pytest.raises(RuntimeError, match="to have 3 channels"):
        GradCAM(convolutional())(images()[:, 0], 3)


@pytest.mark.parametrize("size", [(16, 8), (8, 16)])
def test_few_patches_of_a_turned_spectrogram_have_one_stride(size):
    """4 x 2 cells answer nearly alike when they are read as 2 x 4, with a stride of 8 and of 2."""
    cam = GradCAM(AudioTransformer().eval())
    cam(drawn(1, *size), 1)
    assert cam.location.layout[1:] == ((size[0] // 4, size[1] // 4), 2, (), (1, 0), 1)

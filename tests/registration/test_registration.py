"""Where the cells of a layer look, against nets of known geometry and against a bright dot moved over the image."""

import gc
import weakref

import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images, state_of
from torch import nn
from torch.nn import functional as F
from torchvision import models

import pytorch_grad_cam
from benchmarks.digits import evaluate, scenes_got_right
from pytorch_grad_cam import FullGrad, GradCAM, ScoreCAM, explain
from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import DeepFeatureFactorization
from pytorch_grad_cam.registration import Registration, registration_of
from pytorch_grad_cam.registration.mirror_test import Displacement, displacement
from pytorch_grad_cam.utils.image import scale_accross_batch_and_channels, scale_cam_image


def identity(output):
    return output


def conv(inputs=3, outputs=4, **options):
    return nn.Conv2d(inputs, outputs, **options)


class Functional(nn.Module):
    """A function of the image as the layer `map`."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.modules_used, self.map = function, nn.ModuleList(modules), nn.Identity()

    def forward(self, x):
        return self.map(self.function(x, *self.modules_used)).flatten(1).sum(1, keepdim=True)


def space_to_depth(x, project):
    n, c, h, w = x.shape
    patches = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, (h // 4) * (w // 4), -1)
    return project(patches).mT.reshape(n, -1, h // 4, w // 4)


def merged(x, project):
    """A Swin's patch merging: four grids, one pixel apart, as channels."""
    x = x.permute(0, 2, 3, 1)
    corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    return project(torch.cat(corners, -1)).permute(0, 3, 1, 2)


def gated(x, first, second):
    y = first(x)
    return y * second(y.mean((2, 3), keepdim=True)).sigmoid() + y


GEOMETRIES = {
    "odd kernel": ((conv(kernel_size=3, stride=2, padding=1),), (0, 0), (2, 2)),
    "even kernel": ((conv(kernel_size=4, stride=2, padding=1),), (0.5, 0.5), (2, 2)),
    "no padding": ((conv(kernel_size=5, stride=3),), (2, 2), (3, 3)),
    "dilation": ((conv(kernel_size=3, stride=2, padding=1, dilation=3),), (2, 2), (2, 2)),
    "two strides": ((conv(kernel_size=(3, 5), stride=(1, 4), padding=(1, 0)),), (0, 2), (1, 4)),
    "asymmetric padding": ((nn.ZeroPad2d((0, 1, 2, 0)), conv(kernel_size=3, stride=2)), (-1, 1), (2, 2)),
    "same padding of an even kernel": ((conv(kernel_size=4, padding="same"),), (0.5, 0.5), (1, 1)),
    "replicated padding": ((nn.ReplicationPad2d(2), conv(kernel_size=3, stride=2)), (-1, -1), (2, 2)),
    "pooling with ceil_mode": (
        (conv(kernel_size=3, padding=1), nn.MaxPool2d(3, 2, ceil_mode=True)),
        (1, 1),
        (2, 2),
    ),
    "average pooling": ((conv(kernel_size=3, padding=1), nn.AvgPool2d(2)), (0.5, 0.5), (2, 2)),
    "adaptive pooling": ((conv(kernel_size=3, padding=1), nn.AdaptiveAvgPool2d((6, 4))), (1.5, 3.5), (4, 8)),
    "a ResNet's stem": (
        (conv(kernel_size=7, stride=2, padding=3), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)),
        (0, 0),
        (4, 4),
    ),
    "enlarged again": (
        (conv(kernel_size=4, stride=4), nn.Upsample(scale_factor=2, mode="bilinear")),
        (0.5, 0.5),
        (2, 2),
    ),
    "transposed convolution": (
        (conv(kernel_size=4, stride=4), nn.ConvTranspose2d(4, 4, kernel_size=2, stride=2)),
        (0.5, 0.5),
        (2, 2),
    ),
    "patches by reshaping": (Functional(space_to_depth, nn.Linear(48, 4)), (1.5, 1.5), (4, 4)),
    "patch merging": (Functional(merged, nn.Linear(12, 4)), (0.5, 0.5), (2, 2)),
    "gate": (Functional(gated, conv(kernel_size=3, stride=2, padding=1), conv(4, 4, kernel_size=1)), (0, 0), (2, 2)),
    "pixel unshuffle": ((nn.PixelUnshuffle(2), conv(12, 4, kernel_size=3, padding=1)), (0.5, 0.5), (2, 2)),
}


def net_of(parts):
    torch.manual_seed(0)
    net = parts if isinstance(parts, nn.Module) else nn.Sequential(*parts)
    for parameter in net.parameters():
        parameter.data = torch.rand(parameter.shape)  # positive: every cell grows with the light that it sees
    layer = net.map if isinstance(net, Functional) else net[-1]
    return net.eval(), layer


@pytest.mark.parametrize(("parts", "first", "step"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_geometry(parts, first, step):
    net, layer = net_of(parts)
    found = registration_of(net, layer, torch.randn(1, 3, 24, 32), identity, measure=False)
    assert found.source == "geometry"
    assert found.first == pytest.approx(first)
    assert found.step == pytest.approx(step)


@pytest.mark.parametrize(("parts", "first", "step"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_bright_dot_excites_a_cell_most_where_it_looks(parts, first, step):
    """Brute force: the mean place of the dots that excite four neighbouring cells, weighted by how much; all weights 1.

    Four, because behind a transposed convolution every second cell looks a bit to the left, and the next to the right.
    """
    net, layer = net_of(parts)
    for parameter in net.parameters():
        parameter.data = torch.ones_like(parameter)
    kept = []
    layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    height, width = 24, 32
    dots = torch.zeros(height * width + 1, 3, height, width)
    dots[:-1].flatten(2)[torch.arange(height * width), :, torch.arange(height * width)] = 1
    with torch.no_grad():
        net(dots)
    maps = kept[0].sum(1)
    cell = tuple(size // 2 - 1 for size in maps.shape[1:])
    excited = (maps[:-1] - maps[-1])[:, cell[0] : cell[0] + 2, cell[1] : cell[1] + 2]
    excited = excited.relu().sum((1, 2)).reshape(height, width)
    y = (excited.sum(1) @ torch.arange(height).float() / excited.sum()).item()
    x = (excited.sum(0) @ torch.arange(width).float() / excited.sum()).item()
    assert (y, x) == pytest.approx([a + b * (i + 0.5) for a, b, i in zip(first, step, cell, strict=True)], abs=0.05)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_any_number_of_axes(rank):
    """Two convolutions of 3, one of stride 2 with padding 1: cells at 0, 2, ..."""
    net = convolutional(rank)
    found = registration_of(net, "last", images(rank), identity)
    assert found.geometry == pytest.approx([0] * rank)
    assert found.step == pytest.approx([2] * rank)
    assert len(found.first) == len(found.measured) == rank
    enlarged = found.enlarge(torch.rand(2, 1, *found.grid))
    assert enlarged.shape == (2, 1, *images(rank).shape[2:])


def test_tokens():
    found = registration_of(Transformer(), "norm", images())
    assert (found.grid, found.geometry, found.step) == ((3, 4), (1.5, 1.5), (4, 4))


def test_layers_that_mix_all_places_leave_the_plain_path():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, 8, 4, stride=4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

        def forward(self, x):
            x = self.patches(x).flatten(2).mT
            x = self.norm(x + self.attention(x, x, x)[0])
            return self.head(x.mean(1))

    found = registration_of(Mixed().eval(), "norm", torch.randn(1, 3, 32, 32))
    assert (found.source, found.geometry, found.step) == ("tiles", (1.5, 1.5), (4, 4))
    assert found.shift == (0, 0)
    assert "(by tiles; measured " in str(found), "too little to rule tiles out"
    assert max(map(abs, found.difference)) < 1
    assert found.by_geometry().first == (1.5, 1.5)


class Sorted(nn.Module):
    """Its plain path is lost in an index; the cells look at 0, 4, ..., as kernels of 5 with padding 2 do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.Conv2d(16, 32, 3, stride=2, padding=1))
        self.map, self.head = nn.Identity(), nn.Linear(32, 5)

    def forward(self, x):
        x = self.body(x)
        x = x.flatten(2)[:, :, torch.arange(x[0, 0].numel())].reshape(x.shape)
        return self.head(self.map(x).mean((2, 3)))


def test_measurement_where_geometry_does_not_tell():
    found = registration_of(Sorted().eval(), "map", torch.randn(1, 3, 64, 96), identity)
    assert found.source == "measurement"
    assert (found.grid, found.step) == ((16, 24), (4, 4))
    assert max(map(abs, found.first)) < 1, "of tiles it is 1.5"
    assert found.geometry is None
    assert found.difference is None


def test_cells_out_of_order_are_drawn_as_tiles():
    class Shuffled(Sorted):
        def forward(self, x):
            x = self.body(x)
            order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))
            return self.head(self.map(x.flatten(2)[:, :, order].reshape(x.shape)).mean((2, 3)))

    found = registration_of(Shuffled().eval(), "map", torch.randn(1, 3, 64, 64), identity)
    assert (found.first, found.step) == ((1.5, 1.5), (4, 4))


def test_a_layer_that_does_not_see_the_image_is_drawn_as_tiles():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.map(torch.ones_like(x).detach()[:, :, ::2, ::2]).mean((2, 3)) + x.mean()

    assert registration_of(Blind().eval(), "map", torch.randn(1, 3, 16, 16), identity).source == "tiles"


def looking_at(row, column):
    """Of all that a cell could see, 7 x 7 pixels around every fourth, only one counts."""
    net = nn.Sequential(conv(kernel_size=7, stride=4, padding=3))
    weight = torch.zeros(4, 3, 7, 7)
    weight[:, :, row, column] = 1
    net[0].weight.data = weight
    return net.eval()


def test_a_trained_net_that_looks_elsewhere_is_told():
    net = looking_at(6, 5)
    found = registration_of(net, net[0], torch.randn(1, 3, 64, 64), identity)
    assert found.geometry == (0, 0)
    assert found.difference == pytest.approx((3, 2), abs=0.3)
    assert found.first == pytest.approx((3, 2), abs=0.3)
    assert found.looks_elsewhere
    assert "more than a quarter of a cell beside" in str(found)
    plain = looking_at(3, 3)
    found = registration_of(plain, plain[0], torch.randn(1, 3, 64, 64), identity)
    assert found.first == pytest.approx((0, 0), abs=0.3)
    assert not found.looks_elsewhere
    assert "more than a quarter of a cell beside" not in str(found)


def blobs(count, moved, cells=12):
    """Strengths (3, count, cells, cells) of smooth random blobs, seen and mirrored, by cells that look `moved` beside
    where they are drawn.
    """
    places = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * (cells - 5) + 2

    def at(centres):
        y, x = ((torch.arange(cells) - centre[:, None]) ** 2 for centre in centres.T)
        return torch.exp(-(y[:, :, None] + x[:, None]) / 18)

    y, x = torch.eye(2)
    here, there = (
        at(places - torch.tensor(moved)),
        [at(places - torch.tensor(moved) * (1 - 2 * axis)) for axis in (y, x)],
    )
    return torch.stack([here, *there])


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.25, -0.1), (-0.4, 0.3)])
def test_displacement_of_blobs(moved):
    """In cells; whatever else is the same in all images: a border, a cell that looks everywhere."""
    views = blobs(16, moved)
    found = displacement(views)
    assert found.cells == pytest.approx(moved, abs=0.03), "the mean's slope is taken from cell to cell"
    fixed = torch.zeros(12, 12)
    fixed[:, -1], fixed[3, 4] = 2, 5
    assert displacement(views + fixed).cells == pytest.approx(moved, abs=0.03)


def test_errors_of_displacements():
    """That of the jackknife, and a tenth of a cell."""
    views = blobs(8, (0.3, 0.0))
    scattered = views + 0.2 * torch.rand(views.shape, generator=torch.Generator().manual_seed(1))
    found = displacement(scattered)
    without = [displacement(scattered[:, [i for i in range(8) if i != left]]) for left in range(8)]
    for axis in (0, 1):
        jackknife = np.std([each.cells[axis] for each in without]) * 7**0.5
        assert found.error[axis] == pytest.approx(np.hypot(jackknife, 0.1), rel=0.15)
    assert displacement(views[..., :2]).cells[1] == 0, "too few cells for a derivative"
    assert displacement(torch.ones(3, 8, 5, 5)) is None


def test_shrinking():
    """Of the axes the more certain one keeps more; nothing is left where even tiles are not ruled out."""
    assert Displacement((0.1, -0.1), (0.2, 0.1)).shrunk() == (0, 0)
    variance = ((0.5**2 - 0.1**2) + (0.3**2 - 0.2**2)) / 2
    expected = 0.5 * variance / (variance + 0.01), -0.3 * variance / (variance + 0.04)
    assert Displacement((0.5, -0.3), (0.1, 0.2)).shrunk() == pytest.approx(expected)


@pytest.mark.parametrize(("axes", "limit"), [(1, 3.84), (2, 5.99), (3, 7.81)])
def test_tiles_are_left_where_they_are_ruled_out(axes, limit):
    """At 95 %, by a table of the chi-square distribution: a last layer that seems to look a sixth of a cell beside its
    tiles, at an error of a tenth along each axis, is drawn as tiles.
    """
    along_one = (0.1 * limit**0.5, *[0.0] * (axes - 1))
    for share, ruled_out in ((0.99, False), (1.01, True)):
        found = Displacement(tuple(share * cells for cells in along_one), (0.1,) * axes)
        assert found.is_certain() == ruled_out
        assert (found.shrunk()[0] > 0.1) == ruled_out
    assert Displacement((-0.08, -0.21), (0.16, 0.14)).shrunk() == (0, 0)


class Counting(nn.Module):
    """Keeps the batches that it is called with; takes one size alone, as a graph with the batch in a reshape does."""

    def __init__(self, batch):
        super().__init__()
        torch.manual_seed(0)
        self.batch, self.seen = batch, []
        self.features, self.head = nn.Sequential(conv(kernel_size=3, stride=2, padding=1), nn.ReLU()), nn.Linear(4, 5)

    def forward(self, x):
        self.seen.append(x.clone())
        return self.head(self.features(x).mean((2, 3)).reshape(self.batch, 4))


@pytest.mark.parametrize(("batch", "batches"), [(1, 8), (3, 3), (9, 1)])
def test_images_are_measured_in_batches_as_large_as_those_explained(batch, batches):
    """The user's own, where they are several, and noise of their mean and deviation; each as it is and mirrored.

    For one image noise of mean 0: the answer does not depend on the image.
    """
    net, x = Counting(batch).eval(), 3 + torch.randn(batch, 3, 16, 16)
    mean = x.mean((0, 2, 3)) if batch > 1 else torch.zeros(3)
    probes = displacement_probes(net, x)
    assert len(probes) == 3 * batches
    for plain, rows, columns in zip(*[iter(probes)] * 3, strict=True):
        torch.testing.assert_close(rows, plain.flip(2))
        torch.testing.assert_close(columns, plain.flip(3))
        torch.testing.assert_close(plain.mean((0, 2, 3)), mean, atol=0.7, rtol=0)
    assert torch.equal(probes[0], x) == (batch > 1)


@pytest.mark.parametrize("cam_class", [GradCAM, FullGrad])
def test_maps_do_not_depend_on_the_images_of_the_first_call(cam_class):
    first, others = images(count=1), 5 + 3 * images(count=4, seed=8)
    of_both = []
    for before in (first, others):
        cam = cam_class(convolutional(), align="receptive_field")
        cam(before, 3)
        of_both.append(cam(first, 3))
    np.testing.assert_array_equal(*of_both)


def test_several_images_measure_anew():
    net, photos = Counting(-1).eval(), torch.randn(9, 3, 16, 16)
    registration_of(net, "features", photos[:1], identity)
    net.seen.clear()
    registration_of(net, "features", photos[:1], identity)
    assert not net.seen
    registration_of(net, "features", photos, identity)
    assert len(net.seen) == 3


def displacement_probes(net, x):
    batch, net.batch = net.batch, -1
    registration_of(net, "features", x, identity, measure=False)  # geometry looks at one image
    net.batch = batch
    net.seen.clear()
    registration_of(net, "features", x, identity)
    return net.seen


def test_a_model_that_takes_one_image():
    net, x = Counting(1).eval(), torch.randn(1, 3, 16, 16)
    assert GradCAM(net, align="receptive_field")(x).shape == (1, 16, 16)
    assert len(explain(net, np.zeros((16, 16, 3), np.uint8), top=1).maps) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "AblationCAM"])
def test_registered_maps_point_better(name):
    """The pointing game on the digits, whose boxes are known; measured with other scenes."""
    net = load_digits_net()
    scenes = scenes_got_right(net, 120, seed=2)
    others = torch.cat([preprocess_scene(scene.image) for scene in scenes_got_right(net, 60, seed=3)])
    registration_of(net, "layer4", others)
    figures = {
        align: evaluate(getattr(pytorch_grad_cam, name)(net, "layer4", align=align), scenes)
        for align in ("cell", "receptive_field")
    }
    registered, plain = figures["receptive_field"], figures["cell"]
    assert registered["hit"] > max(plain["hit"], 0.95)
    assert registered["energy"] >= plain["energy"]
    assert registered["IoU"] >= plain["IoU"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer3"), ("vgg11", "features")])
def test_with_random_weights_cells_look_near_where_geometry_says(name, layer):
    torch.manual_seed(0)
    net = models.get_model(name, weights=None).eval()
    found = registration_of(net, layer, torch.randn(1, 3, 224, 224), identity)
    assert found.difference == pytest.approx((0, 0), abs=found.stride[0] / 4)


def test_shifting_the_image_by_a_stride_shifts_the_registered_map_by_a_stride():
    """Seven cells of a net without padding: each sees the same in the shifted image as its neighbour did before."""
    torch.manual_seed(0)
    net = nn.Sequential(conv(kernel_size=5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    wide = torch.zeros(1, 3, 29, 33)
    wide[:, :, 10:18, 10:18] = torch.rand(1, 3, 8, 8)
    cam = GradCAM(net, net[0], align="receptive_field")
    before, after = cam(wide[..., 4:], 1, as_tensor=True), cam(wide[..., :-4], 1, as_tensor=True)
    assert before.any()
    torch.testing.assert_close(before[..., 4:-8], after[..., 8:-4])


@pytest.mark.parametrize("align", ["cell", "receptive_field"])
def test_flipped_augmentations_are_turned_back_onto_the_registered_map(align):
    """A symmetric image and net: the smoothed map is as symmetric as the plain one."""
    net = load_digits_net()
    x = preprocess_scene(example_scene())
    cam = GradCAM(net, net.layer4, align=align)
    flipped = cam(x.flip(-1), 5, as_tensor=True).flip(-1)
    smoothed = cam(x, 5, aug_smooth=True, as_tensor=True)
    factors = [cam(image * factor, 5, as_tensor=True) for image in (x,) for factor in (0.9, 1, 1.1)]
    mirrored = [cam(x.flip(-1) * factor, 5, as_tensor=True).flip(-1) for factor in (0.9, 1, 1.1)]
    torch.testing.assert_close(mirrored[1], flipped)
    torch.testing.assert_close(smoothed, torch.stack([*factors, *mirrored]).mean(0))


def test_enlarging():
    found = Registration((6,), (3,), (1.0,), (2.0,), "geometry")
    assert found.enlarge(torch.tensor([[[0.0, 1.0, 0.0]]])).flatten().tolist() == [0, 0, 0.5, 1, 0.5, 0]
    outside = Registration((4,), (2,), (1.0,), (1.0,), "geometry").enlarge(torch.tensor([[[0.25, 1.0]]]))
    assert outside.flatten().tolist() == [0.25, 0.25, 1, 1]
    one = Registration((3, 2), (1, 1), (1.0, 0.5), (3.0, 2.0), "tiles").enlarge(torch.tensor([[[[0.5]]]]))
    assert torch.equal(one, torch.full((1, 1, 3, 2), 0.5))
    with pytest.raises(ValueError, match=r"\(2, 2\) cells"):
        found.enlarge(torch.zeros(1, 1, 2, 2))


def test_even_tiles_are_what_cell_alignment_draws():
    maps = torch.rand(2, 1, 7, 5)
    tiles = Registration((56, 60), (7, 5), (3.5, 5.5), (8.0, 12.0), "tiles")
    torch.testing.assert_close(tiles.enlarge(maps), F.interpolate(maps, (56, 60), mode="bilinear"))


@pytest.mark.slow
@pytest.mark.except_for("RISE", reason="has no layers, its masks are at the image's size")
def test_every_method_moves_its_maps(method):
    """The digits' cells look half a cell up and left of tiles: the registered map is the other one, moved there."""
    net, x = load_digits_net(), preprocess_scene(example_scene())
    registration_of(
        net, "layer4", preprocess_scene(np.stack([make_scene(np.random.default_rng(seed)).image for seed in range(8)]))
    )
    options = {"num_scales": 1} if method.__name__ == "SESS" else {}
    layers = [] if method is FullGrad else ["layer4"]
    maps = {}
    for align in ("cell", "receptive_field"):
        torch.manual_seed(0)
        with method(net, layers, align=align, **options) as cam:
            maps[align] = cam(x, 5, as_tensor=True)[0]
    assert maps["receptive_field"].min() >= 0
    assert maps["receptive_field"].max() <= 1
    assert not torch.allclose(maps["cell"], maps["receptive_field"])


def test_layers_are_each_registered_before_their_mean():
    net, x = load_digits_net(), preprocess_scene(example_scene())
    with GradCAM(net, ["layer3", "layer4"], align="receptive_field") as both:
        both(x, 5)
        assert {each.step for each in both.registrations.values()} == {(4, 4), (8, 8)}


def test_a_registration_as_alignment():
    net, x = load_digits_net(), preprocess_scene(example_scene())
    tiles = Registration((64, 64), (8, 8), (3.5, 3.5), (8.0, 8.0), "tiles")
    given, plain = GradCAM(net, "layer4", align=tiles)(x, 5), GradCAM(net, "layer4")(x, 5)
    np.testing.assert_allclose(given, plain, atol=1e-6)


def test_masks_of_score_cam_are_registered_too(monkeypatch):
    seen, enlarged = [], LayerRun.enlarged

    def watched(run, maps, size, align_corners=False):
        seen.append(enlarged(run, maps, size, align_corners))
        return seen[-1]

    monkeypatch.setattr(LayerRun, "enlarged", watched)
    net, x = load_digits_net(), preprocess_scene(example_scene())
    ScoreCAM(net, "layer4", align="receptive_field")(x, 5)
    assert len(seen) > 1
    assert all(torch.equal(masks[..., 60:], masks[..., 60:61].expand(-1, -1, -1, 4)) for masks in seen)


def test_functions_that_enlarge_maps():
    net, x = load_digits_net(), preprocess_scene(example_scene())
    place = registration_of(net, "layer4", x, measure=False)
    assert place.first == (0, 0)
    maps = np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    scaled = scale_cam_image(maps, (64, 64), place)
    np.testing.assert_allclose(scaled[:, ::8, ::8], scale_cam_image(maps), atol=1e-6)
    assert np.array_equal(scale_accross_batch_and_channels(maps[None], (64, 64), place)[0], scaled)
    with pytest.raises(ValueError, match=r"images of \(64, 64\)"):
        scale_cam_image(maps, (32, 32), place)
    with pytest.raises(ValueError, match="registration_of"):
        scale_cam_image(maps, (64, 64), "receptive_field")


def test_factorisation():
    net, x = load_digits_net(), preprocess_scene(example_scene())
    shown = {}
    by_geometry = registration_of(net, "layer4", x, measure=False)
    for name, align in (("cell", "cell"), ("receptive_field", by_geometry)):
        with DeepFeatureFactorization(net, "layer4", align=align) as factorisation:
            shown[name] = factorisation(x, 2)[1][0]
    assert np.array_equal(shown["receptive_field"][:, 60:, 0], np.repeat(shown["receptive_field"][:, 60:61, 0], 4, 1))
    assert not np.allclose(shown["cell"], shown["receptive_field"])


def test_unknown_alignment():
    with pytest.raises(ValueError, match="align is 'corner', expected 'cell', 'receptive_field' or a Registration"):
        GradCAM(load_digits_net(), "layer4", align="corner")


def test_model_is_left_as_it_was_and_the_answer_is_kept():
    net, x = convolutional().train(), images(count=1)
    before = state_of(net)
    found = registration_of(net, "last", x, identity)
    assert state_of(net) == before
    runs = []
    net.register_forward_hook(lambda *_: runs.append(1))
    assert registration_of(net, "last", x, identity) == found
    assert not runs
    assert registration_of(net, "last", images()[..., :-4], identity).image_size != found.image_size
    assert runs


@pytest.mark.usefixtures("own_garbage")
def test_nothing_keeps_the_model_alive():
    net = convolutional()
    GradCAM(net, "last", align="receptive_field")(images(), 1)
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


def test_cost_of_a_registered_map():
    """After the first call no more forwards than a plain one."""
    net = convolutional()
    runs = []
    net.register_forward_hook(lambda *_: runs.append(1))
    cam = GradCAM(net, "last", align="receptive_field")
    cam(images(), 1)
    assert len(runs) == 27  # the map, geometry, 8 images in 3 views, the place check
    cam(images(), 1)
    assert len(runs) == 28


def test_an_overflow_is_not_remembered():
    """Of a gradient that is not finite nothing is measured; in float32 the same model is."""
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, 4, kernel_size=3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net[0].weight.data *= 300_000  # gradients of single cells overflow in float16
    x = 50 * torch.randn(1, 3, 16, 16)
    with pytest.warns(pytorch_grad_cam.engine.cam_warning.CamWarning):
        GradCAM(net.half(), [net[1]], align="receptive_field")(x.half(), 1)
    found = registration_of(net.float(), net[1], x)
    assert np.isfinite(found.first).all()


def test_the_larger_of_two_maps():
    """torch.max of two maps, as the maxout of LightCNN has, is no reduction."""
    net = Functional(lambda x, stride: torch.max(*stride(x).chunk(2, 1)), conv(kernel_size=3, stride=2, padding=1))
    found = registration_of(net, "map", torch.randn(1, 3, 16, 16), identity, measure=False)
    assert (found.source, found.step) == ("geometry", (2.0, 2.0))


class Pyramid(nn.Module):
    """One head for maps of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = conv(kernel_size=2, stride=2), conv(4, kernel_size=2, stride=2)
        self.shared = conv(4, kernel_size=1)

    def forward(self, x):
        fine = self.fine(x)
        return sum(self.shared(each).mean((2, 3)) for each in (fine, self.coarse(fine)))


def test_a_layer_that_runs_for_maps_of_several_sizes():
    net, x = Pyramid().eval(), torch.randn(1, 3, 16, 16)
    assert GradCAM(net, "shared", align="receptive_field")(x, 1).shape == (1, 16, 16)
    for cells in (8, 4):
        found = registration_of(net, "shared", x, grid=(cells, cells))
        assert (found.grid, found.step) == ((cells, cells), (16 / cells, 16 / cells))


class Remembers(nn.Module):
    """A layer that keeps a tensor of its first forward, as rotary position embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.kept = convolutional(), None

    def forward(self, x):
        if self.kept is None:
            self.kept = x.new_ones(1, requires_grad=False) * x.mean().detach()
        return self.net(x * self.kept)


def test_what_the_model_remembers_can_be_trained_with():
    net, x = Remembers(), images()
    registration_of(net, net.net.last, x, identity)
    net.train()(x).sum().backward()
    assert net.net.stem.weight.grad.any()

"""A tensor is read as a map by how it answers to noise on the image: tokens of every order, convolutions, strides."""

import warnings
from contextlib import contextmanager

import literal
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import CLASSES
from tokens import DIM, Tokens
from torch import nn

from pytorch_grad_cam import LIFTCAM, AblationCAM, GradCAM, LayerIntegratedGradients, ReciproCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.layouts import Layout
from pytorch_grad_cam.locate import layout_of, locate

SIZE, GRID = (24, 32), (6, 8)
CELLS = 48
BOTH = [None, "norms.1"]


def picture(count=1, size=SIZE, seed=1):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


@contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def map_of_tokens(places, axes="NTC", grid=GRID):
    """By hand: the tokens of the image in their order."""

    def as_map(tensor):
        tokens = tensor.permute(*(axes.index(axis) for axis in "NTC"))
        of_image = [place for place in range(tokens.shape[1]) if place not in places]
        return tokens[:, of_image].mT.unflatten(2, grid)

    return as_map


def class_one(output):
    return output[:, 1].sum()


# Tokens that are not of the image


PLACES = {
    "none": [],
    "front": [0],
    "middle": [CELLS // 2],
    "end": [CELLS],
    "class and registers": [0, 1, 2, 3, 4],
    "both ends": [0, CELLS + 1],
    "detection": [0, *range(CELLS + 1, CELLS + 101)],
    "detection alone": [*range(CELLS, CELLS + 100)],
    "mixed": [0, 24, 25, 50],
    "within": [7, 20, 40],
}


@pytest.mark.parametrize(
    ("kind", "layer"),
    [(kind, layer) for kind in PLACES for layer in BOTH],
)
def test_tokens_that_are_not_of_the_image_are_found_wherever_they_stand(kind, layer):
    places = PLACES[kind]
    model, x = Tokens(places).eval(), picture()
    cam = GradCAM(model, layer)
    with no_warnings():
        maps = cam(x, 1)
    used = cam.target_layers[0]
    assert used is not model.patch
    expected = literal.grad_cam(model, used, x, class_one, SIZE, map_of_tokens(places))
    assert expected.max() == 1
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    assert layout_of(model, x, used).grid == GRID


def test_a_reading_says_where_the_others_stand():
    model = Tokens([24]).eval()
    assert str(layout_of(model, picture(), model.norms[1])) == "NTC, grid 6 x 8 of the tokens 0 to 23 and 25 to 48"
    model = Tokens([0]).eval()
    assert str(layout_of(model, picture(), model.norms[1])) == "NTC, grid 6 x 8 behind 1 extra tokens"


@pytest.mark.parametrize("place", [24, 48])
def test_a_token_that_does_not_move_tells_without_a_warning(place):
    model = Tokens([place]).eval()
    with no_warnings():
        layout_of(model, picture(size=(48, 64)), model.norms[0])


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_tokens_of_a_batch_are_read_as_those_of_one_image(samples):
    model, x = Tokens([24]).eval(), picture(samples)
    maps = GradCAM(model)(x, 1)
    expected = literal.grad_cam(model, model.norms[1], x, class_one, SIZE, map_of_tokens([24]))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("order", ["NTC", "NCT", "TNC"])
@pytest.mark.parametrize("places", [[], [0], [24], [0, CELLS + 1]])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_tokens_in_every_order_of_axes(order, places, samples):
    model, x = Tokens(places, order).eval(), picture(samples)
    maps = GradCAM(model, "shown.1")(x, 1)
    expected = literal.grad_cam(model, model.shown[1], x, class_one, SIZE, map_of_tokens(places, order))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [None, "norms.1"])
@pytest.mark.parametrize("places", [[], [0], [25], [50]])
def test_tokens_of_a_signal(places, layer):
    model, x = Tokens(places, rank=1).eval(), picture(size=(200,))
    cam = GradCAM(model, layer)
    maps = cam(x, 1)
    assert maps.shape == (1, 200)
    used = cam.target_layers[0]
    expected = literal.grad_cam(model, used, x, class_one, (200,), map_of_tokens(places, grid=(50,)))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("places", [[], [0], [CELLS]])
def test_tokens_of_a_volume(places):
    size, grid = (8, 16, 24), (2, 4, 6)
    model, x = Tokens(places, rank=3).eval(), picture(size=size)
    cam = GradCAM(model)
    maps = cam(x, 1)
    used = cam.target_layers[0]
    expected = literal.grad_cam(model, used, x, class_one, size, map_of_tokens(places, grid=grid))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_static_position_embeddings_with_as_many_tokens_do_not_tell():
    """The first tensor with as many tokens does not change at all: no token of the image stands still in the next."""

    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(1, CELLS + 1, DIM, generator=torch.Generator().manual_seed(2)))

        def forward(self, x):
            return self.table.expand(len(x), -1, -1)

    class Positioned(Tokens):
        def __init__(self):
            super().__init__([24], what=lambda tokens: tokens + self.positions(tokens))
            self.positions = Positions()

        def forward(self, x):
            self.positions(x)
            return super().forward(x)

    for layer in BOTH:
        model, x = Positioned().eval(), picture()
        maps = GradCAM(model, layer)(x, 1)
        expected = literal.grad_cam(model, model.norms[1], x, class_one, SIZE, map_of_tokens([24]))
        np.testing.assert_allclose(maps, expected, atol=1e-5)


def by_norm(tokens, kept=None):
    """The tokens behind the first in the order of their norms: all, or the first `kept`."""
    order = tokens[:, 1:].norm(dim=2).argsort(dim=1)[:, :kept, None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, order)], dim=1)


MOVED = {
    "sorted": by_norm,
    "dropped": lambda tokens: by_norm(tokens, 100),
    "dropped to a square": lambda tokens: by_norm(tokens, 108),
    "pairs": lambda tokens: torch.cat([tokens[:, :1], (tokens[:, 1::2] + tokens[:, 2::2]) / 2], dim=1),
    "merged": lambda tokens: torch.cat([tokens[:, :1], (tokens[:, 1:14] + tokens[:, 14:27]) / 2, tokens[:, 27:]], 1),
}


@pytest.mark.parametrize("kind", MOVED)
def test_tokens_that_left_their_places_are_refused_at_a_named_layer(kind):
    model, x = Tokens([0], what=MOVED[kind]).eval(), picture(size=(48, 64))
    with pytest.raises(ValueError, match=r"no map of the 48x64 input.*pass a reshape_transform.*or choose an earlier"):
        GradCAM(model, "norms.1")(x, 1)
    assert GradCAM(model, "norms.0")(x, 1).max() == 1


def test_the_refusal_of_sorted_tokens_says_what_they_may_be():
    model, x = Tokens([0], what=by_norm).eval(), picture(size=(48, 64))
    with pytest.raises(
        ValueError, match=r"tokens do not lie where they stood in the image \(merged, dropped, sorted\?\)"
    ):
        GradCAM(model, "norms.1")(x, 1)


@pytest.mark.parametrize("kind", MOVED)
def test_tokens_that_left_their_places_are_not_found(kind):
    model, x = Tokens([0], what=MOVED[kind]).eval(), picture(size=(48, 64))
    cam = GradCAM(model)
    maps = cam(x, 1)
    assert cam.location.name in ("norms.0", "befores.0", "shown.0")
    expected = literal.grad_cam(model, cam.location.layer, x, class_one, (48, 64), map_of_tokens([0], grid=(12, 16)))
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_few_merged_tokens_are_no_grid_behind_many_extra_tokens():
    """24 pairs and a class token are read as 3 x 4 behind 13, though no token stands still."""
    model, x = Tokens([0], what=MOVED["pairs"]).eval(), picture()
    with pytest.raises(ValueError, match="no map of the 24x32 input"):
        GradCAM(model, "norms.1")(x, 1)


class Windows(nn.Module):
    """Attention in windows of 4 x 4 cells: `inner` gives (N * windows, 16, C), `outer` all tokens in their places."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.outer, self.inner = nn.Conv2d(3, DIM, 4, 4), nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attention = nn.MultiheadAttention(DIM, 2, batch_first=True)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x):
        cells = self.patch(x)
        rows, columns = cells.shape[2] // 4, cells.shape[3] // 4
        windows = cells.reshape(len(x), DIM, rows, 4, columns, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, DIM)
        normed = self.inner(windows)
        windows = windows + self.attention(normed, normed, normed, need_weights=False)[0]
        tokens = windows.reshape(len(x), rows, columns, 4, 4, DIM).permute(0, 1, 3, 2, 4, 5)
        return self.head(self.outer(tokens.reshape(len(x), -1, DIM)).square().mean(1))


@pytest.mark.parametrize("samples", [1, 2])
def test_tokens_in_windows_are_no_map_and_those_put_together_again_are(samples):
    model, x = Windows().eval(), picture(samples, (32, 64))
    cam = GradCAM(model)
    maps = cam(x, 1)
    assert cam.location.name == "outer"
    expected = literal.grad_cam(model, model.outer, x, class_one, (32, 64), map_of_tokens([], grid=(8, 16)))
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    with pytest.raises(ValueError, match="no map of the 32x64 input"):
        GradCAM(model, "inner")(x, 1)


@pytest.mark.parametrize("layer", BOTH)
@pytest.mark.parametrize("places", [[0], [24], [CELLS]])
def test_a_model_in_half_precision(places, layer):
    model, x = Tokens(places).eval().bfloat16(), picture().bfloat16()
    with no_warnings():
        maps = GradCAM(model, layer)(x, 1)
    expected = literal.grad_cam(model, model.norms[1], x, class_one, SIZE, map_of_tokens(places))
    np.testing.assert_allclose(maps, expected, atol=1e-2)


@pytest.mark.parametrize("level", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("places", [[24]])
def test_a_constant_image(places, level):
    model, x = Tokens(places).eval(), torch.full((1, 3, *SIZE), level)
    assert layout_of(model, x, model.norms[1]) == layout_of(model, picture(), model.norms[1])
    assert locate(model, x, targets=1).name == "norms.1"


def test_a_tokens_reading_is_kept_for_the_size():
    model, cam = Tokens([24]).eval(), None
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    cam = GradCAM(model, "norms.1", check_place=False)
    counts = []
    for size in (SIZE, SIZE, (32, 32), SIZE):
        model.places = [size[0] * size[1] // 32]
        cam(picture(size=size), 1)
        counts.append(len(runs))
        runs.clear()
    assert counts == [3, 1, 3, 1]


# Convolutions


class Cubic(nn.Module):
    """A map with as many channels as rows and columns, of the padded image where `pad`."""

    def __init__(self, seed, pad=False, track=True, stride=4):
        super().__init__()
        torch.manual_seed(seed)
        self.pad = pad
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride, 1), nn.BatchNorm2d(16, track_running_stats=track), nn.ReLU()
        )
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.features(F.pad(x, (0, 31, 0, 31)) if self.pad else x).mean((2, 3)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("image_seed", [0, 100])
@pytest.mark.parametrize(("pad", "track"), [(False, True), (True, True), (False, False)])
def test_a_convolution_with_as_many_channels_as_rows_is_channels_first(pad, track, image_seed, seed):
    model = Cubic(seed, pad, track).eval()
    torch.manual_seed(image_seed)
    x = torch.randn(1, 3, *((33, 33) if pad else (64, 64)))
    with no_warnings():
        assert locate(model, x).layout == Layout("NCSS", (16, 16))
        assert layout_of(model, x, model.features) == Layout("NCSS", (16, 16))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("place", ["0", "1"])
def test_a_convolution_is_channels_first_where_no_answer_tells(place, seed):
    """All cells change alike, because the mean of the image is added to each pixel ten thousandfold."""

    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU())
            self.head = nn.Linear(12, CLASSES)

        def forward(self, x):
            return self.head(self.features(x + 1e4 * x.mean((1, 2, 3), keepdim=True)).mean((2, 3)))

    model, x = Blind().eval(), picture(size=(12, 12), seed=seed)
    with no_warnings():
        assert locate(model, x).layout == Layout("NCSS", (12, 12))
        assert layout_of(model, x, model.features.get_submodule(place)) == Layout("NCSS", (12, 12))


def test_of_two_grids_that_answer_alike_that_of_a_convolution():
    """Channels that change as if they were 3 x 4 cells, of a map of 6 x 8 that a convolution made."""

    class Weighed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.tokens, self.head = nn.Conv2d(3, 12, 4, 4), nn.Identity(), nn.Linear(12, CLASSES)
            self.factors = torch.exp(0.3 * torch.randn(1, 12, 1, generator=torch.Generator().manual_seed(3)))

        def forward(self, x):
            rows, columns = torch.linspace(0, -4 / 3, 3).exp(), torch.linspace(0, -8 / 3, 4).exp()
            weights = (rows[:, None] * columns).reshape(1, 12, 1) * self.factors
            return self.head(self.tokens(self.patch(x).flatten(2) * weights).square().mean(2))

    model = Weighed().eval()
    with no_warnings():
        assert layout_of(model, picture(), model.tokens) == Layout("NCT", (6, 8))


def test_a_map_with_strides_of_its_own_that_does_not_answer_is_not_found():
    """Cells in any order are no map, though the numbers of rows and columns are possible."""

    class Shuffled(Strided):
        def __init__(self):
            super().__init__([(1, 2), (1, 4)], 2)
            self.after, self.order = nn.Identity(), torch.randperm(22 * 15)

        def forward(self, x):
            cells = self.body(x)
            shuffled = cells.flatten(2)[:, :, self.order].reshape(cells.shape)
            return self.head(self.after(shuffled).square().flatten(2).mean(2))

    assert locate(Shuffled().eval(), picture(size=(22, 120))).name.startswith("body")


def test_the_users_image_drawn_with_any_seed_is_not_the_noise():
    """Random numbers drawn as the noise was in 2.0, from PyTorch's generator with seed 0, took the image away."""
    model = Tokens([24]).eval()
    for seed in (0, 1):
        x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
        assert layout_of(model, x, model.norms[1]).spans == ((0, 24), (25, 49))


# Strides and orders of axes


def stack(convolution, strides, channels=(6, 8), kernel=3):
    layers, read = [], 3
    for given, stride in zip(channels, strides, strict=True):
        layers += [nn.Sequential(convolution(read, given, kernel, stride, kernel // 2), nn.ReLU())]
        read = given
    return nn.Sequential(*layers)


class Strided(nn.Module):
    def __init__(self, strides, rank):
        super().__init__()
        torch.manual_seed(0)
        self.body = stack({2: nn.Conv2d, 3: nn.Conv3d}[rank], strides)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).flatten(2).mean(2))


class Tubelets(nn.Module):
    """As VideoMAE: tokens of two frames each, nothing of which mixes them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cut = nn.Conv3d(3, 16, (2, 8, 8), (2, 8, 8))
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.mlp(self.cut(x).flatten(2).mT).mean(1))


def test_axes_as_they_stand_that_answer_best_are_no_question():
    """Three frames and four rows answer nearly as well in each other's place."""
    model, x = Tubelets().eval(), picture(1, (6, 32, 32))
    with no_warnings():
        GradCAM(model, model.mlp, check_place=False)(x, 1)


STRIDES = {
    "EEG": ([(1, 2), (1, 4)], (22, 120)),
    "CRNN": ([(2, 2), (2, 1)], (32, 100)),
    "X3D": ([(1, 2, 2), (1, 2, 2)], (13, 32, 32)),
    "SlowFast": ([(1, 4, 4), (1, 2, 2)], (4, 64, 48)),
    "mc3": ([(1, 2, 2), (1, 4, 4)], (8, 32, 48)),
    "one frame left": ([(2, 2, 2), (4, 2, 2)], (8, 32, 32)),
}


@pytest.mark.parametrize("layer", [None, "body"])
@pytest.mark.parametrize("kind", STRIDES)
@pytest.mark.parametrize("samples", [1, 3])
def test_each_axis_may_have_a_stride_of_its_own(kind, layer, samples):
    strides, size = STRIDES[kind]
    model, x = Strided(strides, len(size)).eval(), picture(samples, size)
    cam = GradCAM(model, layer)
    maps = cam(x, 1)
    assert cam.target_layers in ([model.body], [model.body[1]])
    np.testing.assert_allclose(maps, literal.grad_cam(model, model.body, x, class_one, size), atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", STRIDES)
def test_a_stride_for_each_axis_behind_no_convolution(kind, last):
    """What a module of unknown kind returns, channels first or last.

    Of mc3 the right reading answers with 0.47, another order of its axes with 0.45: a convolution made the first grid.
    """

    class Behind(Strided):
        def __init__(self, *args):
            super().__init__(*args)
            self.after = nn.Identity()

        def forward(self, x):
            cells = self.after(self.body(x).square().movedim(1, -1 if last else 1))
            return self.head(cells.movedim(-1 if last else 1, 1).flatten(2).square().mean(2))

    strides, size = STRIDES[kind]
    model, x = Behind(strides, len(size)).eval(), picture(2, size)
    cam = GradCAM(model)
    maps = cam(x, 1)
    assert cam.location.name == "after"

    def as_map(tensor):
        return tensor.movedim(-1, 1) if last else tensor

    np.testing.assert_allclose(maps, literal.grad_cam(model, model.after, x, class_one, size, as_map), atol=1e-5)


class TwoPathways(nn.Module):
    """Takes a list of a slow clip and of a fast one, as SlowFast does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.slow, self.fast = (stack(nn.Conv3d, [(1, 4, 4), (1, 2, 2)]) for _ in range(2))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, clips):
        seen = [self.slow(clips[0]).mean((2, 3, 4)), self.fast(clips[1]).mean((2, 3, 4))]
        return self.head(torch.cat(seen, dim=1))


@pytest.mark.parametrize("pathway", [0, 1])
def test_clips_in_a_list_have_the_map_of_the_pathway_that_reads_them(pathway):
    sizes = [(4, 32, 48), (16, 32, 48)]
    model, clips = TwoPathways().eval(), [picture(2, size) for size in sizes]
    named = [model.slow, model.fast][pathway]
    expected = literal.grad_cam(model, named, (clips,), class_one, sizes[pathway])
    maps = GradCAM(model, named, spatial_from=pathway)(clips, 1)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    cam = GradCAM(model, spatial_from=pathway)
    np.testing.assert_allclose(cam(clips, 1), expected, atol=1e-5)


@pytest.mark.slow
def test_a_crnn_pooled_in_its_rows_only():
    torch.manual_seed(0)
    body = stack(nn.Conv2d, [(1, 1), (1, 1)])
    features = nn.Sequential(
        body[0], nn.MaxPool2d(2), body[1], nn.MaxPool2d((2, 1)), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()
    )

    class Crnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.rnn, self.head = features, nn.GRU(64, 6, batch_first=True), nn.Linear(6, CLASSES)

        def forward(self, x):
            columns = self.features(x).flatten(1, 2).mT
            return self.head(self.rnn(columns)[0].mean(1))

    model, x = Crnn().eval(), picture(2, (32, 100))
    cam = GradCAM(model)
    maps = cam(x, 1)
    assert cam.location.layout == Layout("NCSS", (8, 50))
    np.testing.assert_allclose(maps, literal.grad_cam(model, features, x, class_one, (32, 100)), atol=1e-5)


class Turned(nn.Module):
    """Transposes the spatial axes of the image before it reads them, as AST does with (time, mel)."""

    def __init__(self, stride, tokens):
        super().__init__()
        torch.manual_seed(0)
        self.tokens = tokens
        self.patch, self.norm = nn.Conv2d(3, DIM, 4, stride), nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x):
        cells = self.patch(x.mT)
        if self.tokens:
            return self.head(self.norm(cells.flatten(2).mT).square().mean(1))
        return self.head(self.norm(cells.movedim(1, -1)).square().mean((1, 2)))


@pytest.mark.parametrize(
    ("tokens", "layer"),
    [
        (False, None),
        (True, None),
        (True, "norm"),
        (False, "norm"),
        (False, "patch"),
        (True, "patch"),
    ],
)
@pytest.mark.parametrize("stride", [4, (4, 2)])
def test_axes_that_the_model_transposes(layer, tokens, stride):
    model, x = Turned(stride, tokens).eval(), picture(size=(48, 32))
    cells = model.patch(x.mT).shape[2:]
    cam = GradCAM(model, layer)
    maps = cam(x, 1)
    used = cam.target_layers[0]

    def as_map(tensor):
        if used is not model.patch:
            tensor = (tensor.unflatten(1, cells) if tokens else tensor).movedim(-1, 1)
        return tensor.mT

    np.testing.assert_allclose(maps, literal.grad_cam(model, used, x, class_one, (48, 32), as_map), atol=1e-5)


class SpaceBeforeTime(nn.Module):
    """Patches of each frame; the tokens ordered by rows, columns, then frames, as TimeSformer's."""

    def __init__(self, extra):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.norm, self.head = nn.Conv2d(3, DIM, 4, 4), nn.LayerNorm(DIM), nn.Linear(DIM, CLASSES)
        self.token = nn.Parameter(torch.randn(1, extra, DIM))

    def forward(self, x):
        frames = x.shape[2]
        cells = self.patch(x.movedim(2, 1).flatten(0, 1))
        tokens = cells.unflatten(0, (-1, frames)).flatten(3).permute(0, 3, 1, 2).flatten(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1)
        return self.head(self.norm(tokens).square().mean(1))


@pytest.mark.parametrize("layer", [None, "norm"])
@pytest.mark.parametrize("extra", [0, 1])
def test_patches_that_are_ordered_space_before_time(layer, extra):
    size = (5, 24, 32)
    model, x = SpaceBeforeTime(extra).eval(), picture(2, size)

    def as_map(tensor):
        return tensor[:, extra:].unflatten(1, (6, 8, 5)).permute(0, 4, 3, 1, 2)

    cam = GradCAM(model, layer)
    maps = cam(x, 1)
    assert cam.target_layers == [model.norm]
    np.testing.assert_allclose(maps, literal.grad_cam(model, model.norm, x, class_one, size, as_map), atol=1e-5)


def test_axes_of_a_clip_whose_ramps_are_alike_are_told_without_a_warning():
    """Eight frames of 4 x 4 patches, ordered space before time: as 4 frames of 4 x 8 they answer nearly as well."""
    x = torch.randn(1, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layout = layout_of(model := SpaceBeforeTime(1).eval(), x, model.norm)
    assert (layout.grid, layout.order) == ((8, 4, 4), (2, 0, 1))


class ColumnByColumn(nn.Module):
    """Square patches, ordered column by column; no module returns them before attention has mixed them."""

    def __init__(self, extra):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(DIM, 2, DIM, 0.0, batch_first=True)
        self.patch, self.encoder = nn.Conv2d(3, DIM, 8, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.token, self.head = nn.Parameter(torch.randn(1, extra, DIM)), nn.Linear(DIM, CLASSES)

    def forward(self, x):
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.patch(x).mT.flatten(2).mT], dim=1)
        return self.head(self.encoder(tokens).mean(1))


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("size", [(32, 48), (48, 48)])
def test_patches_that_are_ordered_column_by_column(size, extra):
    model, x = ColumnByColumn(extra).eval(), torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    layout = layout_of(model, x, model.encoder)
    assert (layout.grid, layout.order, layout.extra) == ((size[0] // 8, size[1] // 8), (1, 0), extra)


class Folded(nn.Module):
    """Each frame of a clip alone, folded into the batch, as maps or as tokens."""

    def __init__(self, tokens, extra=0):
        super().__init__()
        torch.manual_seed(0)
        self.tokens = tokens
        self.patch, self.norm, self.head = nn.Conv2d(3, DIM, 4, 4), nn.LayerNorm(DIM), nn.Linear(DIM, CLASSES)
        self.token = nn.Parameter(torch.randn(1, extra, DIM))

    def forward(self, x):
        cells = self.patch(x.movedim(2, 1).flatten(0, 1))
        if self.tokens:
            tokens = torch.cat([self.token.expand(len(cells), -1, -1), cells.flatten(2).mT], dim=1)
            seen = self.norm(tokens).square().mean(1)
        else:
            seen = self.norm(cells.movedim(1, -1)).square().mean((1, 2))
        weights = torch.linspace(1, 2, x.shape[2])[:, None]
        return self.head((weights * seen.unflatten(0, (len(x), -1))).mean(1))


@pytest.mark.parametrize("layer", [None, "norm", "patch"])
@pytest.mark.parametrize(("tokens", "extra"), [(False, 0), (True, 0), (True, 1)])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_frames_folded_into_the_batch(layer, tokens, extra, samples):
    size = (5, 24, 32)
    model, x = Folded(tokens, extra).eval(), picture(samples, size)
    cam = GradCAM(model, layer)
    maps = cam(x, 1)
    assert maps.shape == (samples, *size)
    used = cam.target_layers[0]

    def as_map(tensor):
        if used is not model.patch:
            tensor = (tensor[:, extra:].unflatten(1, (6, 8)) if tokens else tensor).movedim(-1, 1)
        return tensor.unflatten(0, (-1, 5)).movedim(1, 2)

    np.testing.assert_allclose(maps, literal.grad_cam(model, used, x, class_one, size, as_map), atol=1e-5)
    np.testing.assert_allclose(cam(x, 1), maps, atol=1e-6)


@pytest.mark.parametrize("frames", [2, 4])
def test_folded_frames_react_where_the_clip_changes(frames):
    """Not only of the right shape: the frame and the corner that are bright are those that are shown."""
    model = Folded(tokens=True).eval()
    clip = 0.01 * picture(size=(frames, 24, 32))
    clip[:, :, 1, 16:, 24:] *= 300
    maps = GradCAM(model, "patch")(clip, 1)
    reading = layout_of(model, clip, model.patch)
    seen = []
    handle = model.patch.register_forward_hook(lambda _, __, output: seen.append(reading(output)))
    model(clip)
    handle.remove()
    where = (seen[0] - model.patch.bias.reshape(-1, 1, 1, 1)).norm(dim=1)[0]
    assert where.shape == (frames, 6, 8)
    assert set(map(tuple, (where > where.mean() * 2).nonzero().tolist())) <= {(1, r, c) for r in (4, 5) for c in (6, 7)}
    assert maps.shape == (1, frames, 24, 32)


def test_a_layout_of_folded_frames_is_told():
    model = Folded(tokens=True, extra=1).eval()
    assert layout_of(model, picture(size=(5, 24, 32)), model.norm) == Layout("FTC", (5, 6, 8), 1)
    assert locate(model, picture(size=(5, 24, 32))).shape[0] == 5


def assert_as_by_hand(method, model, x, layer, as_map):
    torch.manual_seed(0)
    np.random.seed(0)
    maps = method(model, layer)(x, 1)
    torch.manual_seed(0)
    np.random.seed(0)
    np.testing.assert_allclose(maps, method(model, layer, reshape_transform=as_map)(x, 1), atol=1e-4)


@pytest.mark.except_for("PathCAM", reason="of its path a transform by hand reads only maps of its own shape")
@pytest.mark.except_for("SESS", reason="shows images of other sizes, which a transform by hand does not fit")
def test_every_method_reads_tokens_around_others(method):
    assert_as_by_hand(method, Tokens([24]).eval(), picture(2), "norms.1", map_of_tokens([24]))


@pytest.mark.except_for("PathCAM", reason="of its path a transform by hand reads only maps of its own shape")
@pytest.mark.except_for("SESS", reason="shows images of other sizes, which a transform by hand does not fit")
def test_every_method_reads_transposed_tokens(method):
    def as_map(tokens):
        return tokens.unflatten(1, (8, 12)).movedim(-1, 1).mT

    assert_as_by_hand(method, Turned(4, tokens=True).eval(), picture(2, (48, 32)), "norm", as_map)


@pytest.mark.except_for("PathCAM", reason="of its path a transform by hand reads only maps of its own shape")
@pytest.mark.except_for("SESS", reason="shows images of other sizes, which a transform by hand does not fit")
@pytest.mark.except_for(
    "AblationCAM",
    "LIFTCAM",
    "LayerIntegratedGradients",
    "ReciproCAM",
    reason="refuse layers that do not have the images on the first axis",
)
def test_every_method_reads_folded_frames(method):
    def as_map(tokens):
        return tokens[:, 1:].unflatten(1, (6, 8)).movedim(-1, 1).unflatten(0, (-1, 5)).movedim(1, 2)

    assert_as_by_hand(method, Folded(tokens=True, extra=1).eval(), picture(2, (5, 24, 32)), "norm", as_map)


@pytest.mark.parametrize("changing", [AblationCAM, LIFTCAM, LayerIntegratedGradients, ReciproCAM])
def test_methods_that_change_the_layer_refuse_folded_frames(changing):
    with pytest.raises(ValueError, match=r"gives \(10, 10, 6, 8\) for 2 images, .* on the first axis"):
        changing(Folded(tokens=False).eval(), "patch")(picture(2, (5, 24, 32)), 1)


def test_a_wrong_number_of_maps_is_still_refused():
    """Views that are no axis of the image."""

    class Crops(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, DIM, 4, 4), nn.Linear(DIM, CLASSES)

        def forward(self, x):
            views = self.conv(torch.cat([x, x.flip(-1)]))
            return self.head(views.mean((2, 3)).unflatten(0, (2, -1)).mean(0))

    with pytest.raises(ValueError, match=r"2 maps for 1 inputs"):
        GradCAM(Crops().eval(), "conv")(picture(), 1)


def test_a_named_layer_that_is_no_map_is_refused_with_the_way_out():
    model = Tokens([0]).eval()
    with pytest.raises(ValueError, match=r"no map of the 24x32 input.*pass a reshape_transform"):
        GradCAM(model, "head")(picture(), 1)


def test_a_reading_that_nothing_tells_is_warned_of():
    class Alike(nn.Module):
        """As many channels as rows, no convolution, and all cells change alike."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.map, self.head = nn.Identity(), nn.Linear(12, CLASSES)

        def forward(self, x):
            seen = self.map(x[:, :, :12, :12].mean() * torch.ones(len(x), 12, 12, 12))
            return self.head(seen.mean((2, 3)))

    model = Alike()
    with pytest.warns(CamWarning, match="can be read as"):
        layout = layout_of(model, picture(size=(12, 12)), model.map)
    assert layout == Layout("NCSS", (12, 12))


class Pyramid(nn.Module):
    """Returns its levels as a list, a dict or a tuple."""

    def __init__(self, gathered, strides=(4, 2)):
        super().__init__()
        torch.manual_seed(0)
        self.levels, self.gathered = stack(nn.Conv2d, strides), gathered

    def forward(self, x):
        first = self.levels[0](x)
        return self.gathered([first, self.levels[1](first)])


class OfPyramid(nn.Module):
    def __init__(self, *how):
        super().__init__()
        self.pyramid, self.heads = Pyramid(*how), nn.ModuleList(nn.Linear(channels, CLASSES) for channels in (6, 8))

    def forward(self, x):
        levels = self.pyramid(x)
        levels = levels.values() if isinstance(levels, dict) else levels
        return sum(head(level.mean((2, 3))) for head, level in zip(self.heads, levels, strict=True))


@pytest.mark.parametrize("gathered", [list, tuple, lambda levels: dict(zip("ab", levels, strict=True))])
def test_a_layer_that_returns_several_levels_is_no_silent_choice_of_the_first(gathered):
    cam, x = GradCAM(OfPyramid(gathered).eval(), "pyramid"), picture(2)
    with pytest.warns(CamWarning, match="Pyramid returns 2 maps, of 6 x 8, 3 x 4 cells, of which the first is explain"):
        cam(x, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cam(x, 1)


def test_other_tensors_beside_a_map_are_no_levels():
    model, x = OfPyramid(list, (4, 1)).eval(), picture(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradCAM(model, "pyramid", check_place=False)(x, 1)
        GradCAM(OfPyramid(list).eval())(x, 1)

"""The automatic choice of layer and layout, one rule a test."""

import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images, state_of
from torch import nn

from pytorch_grad_cam import AblationCAM, EigenCAM, GradCAM, GuidedBackpropReLUModel, ScoreCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.layouts import Layout, layouts_of
from pytorch_grad_cam.engine.trace import module_outputs
from pytorch_grad_cam.locate import locate


def tokens(grid, extra):
    flat = grid.flatten(2).mT
    return torch.cat([flat.new_zeros(len(grid), extra, grid.shape[1]), flat], dim=1)


@pytest.mark.parametrize(
    ("tensor_of", "layout"),
    [
        (lambda grid: grid, Layout("NCSS", (6, 8))),
        (lambda grid: grid.movedim(1, -1), Layout("NSSC", (6, 8))),
        (lambda grid: tokens(grid, 0), Layout("NTC", (6, 8))),
        (lambda grid: tokens(grid, 1), Layout("NTC", (6, 8), 1)),
        (lambda grid: tokens(grid, 5), Layout("NTC", (6, 8), 5)),
        (lambda grid: tokens(grid, 0).mT, Layout("NCT", (6, 8))),
        (lambda grid: tokens(grid, 1).movedim(1, 0), Layout("TNC", (6, 8), 1)),
    ],
)
def test_layouts(tensor_of, layout):
    grid = torch.randn(1, 40, 6, 8)
    tensor = tensor_of(grid)
    assert layouts_of(tensor.shape, 1, (96, 128), set())[0] == layout
    assert torch.equal(layout(tensor), grid)


def test_the_images_proportions_decide_between_grids():
    assert layouts_of((1, 197, 60), 1, (224, 224), set())[0].grid == (14, 14)
    assert layouts_of((1, 197, 60), 1, (112, 448), set())[0].grid == (7, 28)


def test_a_known_grid_is_preferred_then_the_most_channels():
    assert layouts_of((1, 197, 64), 1, (224, 224), {(14, 14)})[0] == Layout("NTC", (14, 14), 1)
    assert layouts_of((1, 64, 196), 1, (224, 224), set())[0] == Layout("NTC", (8, 8))


def test_tokens_have_their_channels_last_where_both_readings_are_sound():
    """A Swin's last stage: 4 x 6 tokens of 384 channels, and not 16 x 24 = 384 positions of 24 channels."""
    assert layouts_of((1, 24, 384), 1, (64, 96), {(16, 24)})[0] == Layout("NTC", (4, 6))


def test_a_token_alone_is_no_map_of_its_channels():
    assert layouts_of((1, 1, 384), 1, (64, 96), {(16, 24)}) == []


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_last_map_before_pooling(rank):
    location = locate(convolutional(rank), images(rank))
    assert location.name == "last"
    assert location.layout.axes == "NC" + "S" * rank


def test_norm_before_the_last_attention_of_a_class_token_transformer():
    location = locate(Transformer(), images())
    assert location.name == "norm"
    assert location.layout == Layout("NTC", (3, 4), 1)
    assert "norm (LayerNorm), output (1, 13, 8): NTC, grid 3 x 4 behind 1 extra tokens" in str(location)


def test_branches_are_no_cut():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.branch = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            x = self.stem(x)
            return (x + self.branch(x)).mean((2, 3))

    assert locate(Residual(), images()).name == "stem"


def test_pooling_gives_way_to_an_equal_map():
    net = convolutional()
    net.pool = nn.AdaptiveAvgPool2d((6, 8))
    net.flatten, net.hidden = nn.Flatten(), nn.Linear(8 * 48, 16)
    assert locate(net, images()).name == "last"


def test_padding_gives_way_to_the_map_that_it_pads():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = convolutional()[:4]
            self.pad, self.head = nn.ZeroPad2d((0, 1, 0, 1)), nn.Linear(8, 5)

        def forward(self, x):
            for layer in self.body:
                x = layer(x)
            return self.head(self.pad(x).mean((2, 3)))

    assert locate(Padded(), images()).name == "body.last"


def test_module_that_runs_several_times_gives_way():
    class SharedRectifier(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
            self.relu, self.head = nn.ReLU(), nn.Linear(6, 5)

        def forward(self, x):
            return self.head(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))

    assert locate(SharedRectifier(), images()).name == "second"


def test_module_that_returns_a_tuple_is_not_chosen():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = convolutional()

        def forward(self, x):
            return self.body[:4](x), x.mean()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.head = Pair(), nn.Linear(8, 5)

        def forward(self, x):
            return self.head(self.pair(x)[0].mean((2, 3)))

    assert locate(Model(), images()).name == "pair.body.last"


def test_untrained_head_of_zeros():
    model = Transformer()
    nn.init.zeros_(model.head.weight)
    assert locate(model, images()).name == "norm"


class Scores(nn.Module):
    """A classifier whose scores go through `way`."""

    def __init__(self, way) -> None:
        super().__init__()
        self.net, self.way = convolutional(), way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(self.net, x)


def test_model_that_runs_under_no_grad():
    assert locate(Scores(torch.no_grad()(lambda net, x: net(x))), images()).name == "net.last"
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "model",
    [
        Scores(lambda net, x: net(x).detach()),
        Scores(lambda net, x: net(x).argmax(1, keepdim=True).float()),
        Scores(torch.inference_mode()(lambda net, x: net(x))),
        torch.ao.quantization.quantize_dynamic(convolutional(), {nn.Linear}),
    ],
)
def test_model_without_a_gradient(model):
    with pytest.raises(ValueError, match=r"no gradient leads (from the output to the image|through).* target_layers"):
        EigenCAM(model)(images(), 0)
    with pytest.raises(ValueError, match=r"no gradient leads (from the score|through Linear, which is quantised)"):
        GradCAM(model, "net.last" if hasattr(model, "net") else "last")(images(), 0)
    with pytest.raises(ValueError, match=r"no gradient leads (from the score to the image|through Linear)"):
        GuidedBackpropReLUModel(model)(images(), 0)
    for cam_class in (EigenCAM, ScoreCAM, AblationCAM):
        maps = cam_class(model, "net.last" if hasattr(model, "net") else "last")(images(), 0)
        assert maps.shape == images().shape[:1] + images().shape[2:]


def test_no_map_at_all():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 16, 5))
    with pytest.raises(ValueError, match="no module whose output is a map of the 12x16 input"):
        locate(model, images())


def test_model_is_left_as_it_was():
    model = Transformer().train().requires_grad_(False)
    before = state_of(model)
    locate(model, images())
    module_outputs(model, images())
    assert state_of(model) == before


def test_tokens_out_of_order_are_no_map():
    """Sorted by windows, or latent vectors that are as many as a grid has cells."""

    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.sorted = convolutional()[:4], nn.LayerNorm(8)
            self.order, self.head = torch.randperm(48), nn.Linear(8, 5)

        def forward(self, x):
            tokens = self.body(x).flatten(2).mT
            return self.head(self.sorted(tokens[:, self.order]).square().mean(1))

    model = Sorted().eval()
    assert locate(model, images()).name == "body"
    model.order = torch.arange(48)
    assert locate(model, images()).name == "sorted"


class AsManyChannelsAsRows(nn.Module):
    """A map with as many channels as rows: (N, 12, 12, 12) or, `last`, with its channels last."""

    def __init__(self, last, blind=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.map, self.blind = nn.Conv2d(3, 12, 3, padding=1), nn.Identity(), blind
        self.head, self.last = nn.Linear(12, 5), last

    def forward(self, x):
        x = self.conv(x)
        if self.blind:
            x = x + 1e4 * self.conv(x.mean((2, 3), keepdim=True)[:, :3].expand(-1, -1, 12, 12)).mean((2, 3), True)
        if self.last:
            return self.head(self.map(x.movedim(1, -1)).square().mean((1, 2)))
        return self.head(self.map(x).square().mean((2, 3)))


def test_of_two_readings_the_one_that_answers_in_its_place():
    assert locate(AsManyChannelsAsRows(last=False), images()[..., :12]).layout == Layout("NCSS", (12, 12))
    assert locate(AsManyChannelsAsRows(last=True), images()[..., :12]).layout == Layout("NSSC", (12, 12))


def test_two_readings_that_answer_alike_are_told():
    with pytest.warns(CamWarning, match="can be read as NCSS, grid 12 x 12 and as NSSC, grid 12 x 12"):
        location = locate(AsManyChannelsAsRows(last=False, blind=True), images()[..., :12])
    assert location.layout == Layout("NCSS", (12, 12))


@pytest.mark.parametrize(("model", "forwards"), [(convolutional(), 1), (Transformer(), 2)])
def test_forwards_of_the_search(model, forwards):
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    locate(model, images())
    assert len(runs) == forwards


def test_first_tensor_of_a_tuple_unless_another_leads_to_the_score_too():
    class Pair(nn.Module):
        def __init__(self, pooled):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.pooled = nn.Conv2d(3, 4, 3, padding=1), pooled

        def forward(self, x):
            x = self.conv(x).relu()
            return x, x.mean((2, 3)) if self.pooled else x.shape

    class Model(nn.Module):
        def __init__(self, pooled):
            super().__init__()
            self.pair, self.head = Pair(pooled), nn.Linear(4, 5)

        def forward(self, x):
            map_, other = self.pair(x)
            return self.head(other if self.pair.pooled else map_.mean((2, 3)))

    assert locate(Model(pooled=False), images()).name == "pair"
    assert EigenCAM(Model(pooled=False))(images()).max() == 1
    assert locate(Model(pooled=True), images()).name == "pair.conv"


def test_a_signals_map_may_be_longer_than_the_signal():
    torch.manual_seed(0)
    body = nn.Conv1d(3, 16, 4, padding=2), nn.ReLU()
    model, x = nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 5)), torch.randn(2, 3, 100)
    assert model[:2](x).shape == (2, 16, 101)
    expected = GradCAM(model, "1", reshape_transform=lambda output: output)(x, 0)
    np.testing.assert_array_equal(GradCAM(model, "1")(x, 0), expected)
    assert locate(model, x).layout == Layout("NCS", (101,))

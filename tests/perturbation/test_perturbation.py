"""AblationCAM and ScoreCAM: what they run, in what chunks, and what they do with the layers of others."""

import weakref
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images, in_threads
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam import (
    AblationCAM,
    AblationLayer,
    AblationLayerFasterRCNN,
    AblationLayerVit,
    GradCAM,
    RandomCAM,
    ScoreCAM,
)
from pytorch_grad_cam.ablation_layer import ablation_layer_for
from pytorch_grad_cam.engine.chunks import rows_at_a_time
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.perturbation.masked_scores import channels_by_energy
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform, vit_reshape_transform


class Counter(nn.Module):
    """Counts the rows of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        return x


def weights_of(model, x, layer, category=3, **options):
    activations = model[: list(model).index(layer) + 1](x).detach()
    return AblationCAM(model, layer, **options).get_cam_weights(x, layer, [category] * len(x), activations, None)


def test_ablation_sign_does_not_depend_on_the_scores_sign():
    model, x = convolutional(), images()
    weights = []
    for bias in (5, -50):
        model.head.bias.data[:] = bias
        weights.append(weights_of(model, x, model.last))
    assert torch.equal(weights[0].sign(), weights[1].sign())
    assert weights[0].abs().sum() > 0


def test_ablation_of_a_zero_score_is_finite():
    model, x = convolutional(), images()
    model.head.weight.data[3], model.head.bias.data[3] = 0, 0
    assert not weights_of(model, x, model.last).any()


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_ablation_does_not_depend_on_the_batch_size(batch_size):
    model, x = convolutional(), images()
    expected = weights_of(model, x, model.conv)
    torch.testing.assert_close(weights_of(model, x, model.conv, batch_size=batch_size), expected, atol=1e-5, rtol=1e-4)


def with_linear_head() -> nn.Sequential:
    """`convolutional` with a tail that is affine: global pooling and one linear layer."""
    return nn.Sequential(*convolutional()[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def rows_of_runs(model, x, targets=3, **options) -> list[int]:
    """How many rows each run of the part behind `model[3]` has in a call that is not the first."""
    runs = []
    with AblationCAM(model, model[3], **options) as cam:
        cam(x, targets)
        with model[4].register_forward_hook(lambda module, inputs, output: runs.append(len(output))):
            cam(x, targets)
    return runs[2:]  # without the forward that gives the activations, and the recorded one


@pytest.mark.parametrize("network", [convolutional, with_linear_head])
@pytest.mark.parametrize("options", [{}, {"batch_size": 5}, {"ratio_channels_to_ablate": 0.4}])
def test_ablation_of_a_batch_is_that_of_its_images(network, options):
    model, x = network(), images(count=3)
    rows = [
        [3, lambda scores: scores[0] - scores[1]],
        [2, lambda scores: scores[4] / 2],
        [-1, lambda scores: scores[3]],
    ]
    with AblationCAM(model, model[3], **options) as cam:
        together = cam(x, rows)
        for image in range(3):
            np.testing.assert_allclose(
                together[image], cam(x[image : image + 1], rows[image : image + 1])[0], atol=1e-5
            )


def test_channels_of_several_images_share_a_run():
    model, x = convolutional(), images(count=3)
    assert rows_of_runs(model, x, batch_size=10) == [1, 10, 10, 4]
    assert rows_of_runs(model, x, [[1, 2]] * 3, batch_size=10) == [1, 10, 10, 4]
    assert rows_of_runs(model, x, batch_size=10, ratio_channels_to_ablate=0.25) == [1, 6]
    assert rows_of_runs(model, x) == [1, 24]
    assert rows_of_runs(model, x, batch_size=10, ablation_layer=HalvedChannels()) == [8, 8, 8]


def test_an_affine_tail_is_run_for_all_images_at_once():
    model, x = with_linear_head(), images(count=3)
    assert rows_of_runs(model, x) == [1, 3, 3, 3, 3]
    assert rows_of_runs(model, x, [[1, 2]] * 3, batch_size=1) == [1, 3, 3, 3, 3]


def test_more_rows_at_a_time_on_a_gpu():
    assert [rows_at_a_time(torch.device(kind)) for kind in ("cpu", "cuda")] == [32, 128]


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: numbers and masks read, and values copied from the host."""

    READ = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "lift_fresh", "_to_copy")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        masks = [leaf for leaf in tree_leaves(args[1:2]) if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool]
        self.count += function.overloadpacket.__name__ in self.READ
        self.count += "index" in function.overloadpacket.__name__ and len(masks) > 0
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("targets", [[3, 1, 2], [[3, 1]] * 3, lambda scores: scores[1]])
def test_no_chunk_waits_for_the_device(targets):
    model, x = convolutional(), images(count=3)
    counts = []
    for batch_size in (1, 24):
        with AblationCAM(model, "last", batch_size=batch_size) as cam:
            cam(x, targets)
            with Waits() as waits:
                cam(x, targets)
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


def test_ablation_of_no_images():
    model = convolutional()
    assert AblationCAM(model, "last")(images()[:0], 3).shape == (0, 12, 16)


def test_rows_of_samples():
    """Of one sample, and of all in their order, views. Tensors of other lengths stay."""
    tensor, other = torch.arange(6.0).reshape(3, 2), torch.ones(2)
    for samples, is_view in [([1, 1, 1, 1], True), ([0, 1, 2], True), ([2, 2, 0], False), ([0, 1], False)]:
        read, same = Rows.of([9, *samples], torch.device("cpu"))[1:].read((tensor, other), 3)
        assert torch.equal(read, tensor[samples])
        assert (read.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()) == is_view
        assert same is other


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.75, 1.0])
def test_ablation_ratio_is_the_share_of_channels_the_strongest_first(ratio):
    model, x = convolutional(), images()
    everything = weights_of(model, x, model.conv)
    some = weights_of(model, x, model.conv, ratio_channels_to_ablate=ratio)
    energy = model[:3](x).square().sum((2, 3))
    for image in range(2):
        strongest = energy[image].argsort(descending=True)[: max(1, round(8 * ratio))]
        expected = torch.zeros(8)
        expected[strongest] = everything[image, strongest]
        torch.testing.assert_close(some[image], expected)
    with pytest.raises(ValueError, match="share in"):
        weights_of(model, x, model.conv, ratio_channels_to_ablate=0)


def test_partial_forward_runs_the_tail_only():
    seen = []

    class Watched(nn.Module):
        def __init__(self, name, module):
            super().__init__()
            self.name, self.module = name, module

        def forward(self, x):
            seen.append((self.name, len(x)))
            return self.module(x)

    net, x = convolutional(), images()
    model = nn.Sequential(Watched("head", net[:3]), Watched("layer", net[3]), Watched("tail", net[4:])).eval()
    with torch.no_grad():
        tail = PartialForward(model, model[1], x)
        assert tail.follows()
        seen.clear()
        output = tail(Rows.of([1] * 5, torch.device("cpu")), lambda layer_output: layer_output)
    assert seen == [("tail", 5)]
    torch.testing.assert_close(output, model(x)[1:].detach().expand(5, -1))


def test_recording_keeps_nothing_of_what_runs_inside_a_module():
    made, alive = [], []

    class Noting(nn.Module):
        def forward(self, x):
            alive.append(sum(reference() is not None for reference in made))
            output = x + 1
            made.append(weakref.ref(output))
            return output

    model = nn.Sequential(nn.Sequential(*[Noting() for _ in range(4)]), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        tail = PartialForward(model, model[1], torch.rand(2, 3, 2, 2))
    assert alive[:4] == [0, 1, 1, 1], "its own input at most"
    assert tail.follows()


class WithInPlaceGlue(nn.Module):
    """Changes, between modules, what a module in front of the layer returned."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()

    def forward(self, x):
        x = self.net.first(self.net.stem(x))
        x += 1
        return self.net[2:](x)


class WithBoundMethod(nn.Module):
    """Holds on to its modules in a way that no replica can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()
        self.run = self.net.forward

    def forward(self, x):
        return self.run(x)


@pytest.mark.parametrize("wrapper", [WithInPlaceGlue, WithBoundMethod])
def test_models_that_a_partial_run_cannot_follow_are_run_whole(wrapper):
    model, x = wrapper().eval(), images()
    layer = model.net.last
    with torch.no_grad():
        assert not PartialForward(model, layer, x).follows()
    with AblationCAM(model, layer) as cam:
        found = cam(x, 3)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()
            self.add = wrapper is WithInPlaceGlue

        def forward(self, x):
            return self.net[2:](self.net[:2](x) + self.add)

    plain = Plain().eval()
    np.testing.assert_allclose(AblationCAM(plain, plain.net.last)(x, 3), found, atol=1e-5)


def test_partial_forward_with_shared_and_repeated_modules():
    class Residual(nn.Module):
        """One rectifier for everything, blocks in a list, a skip from the input to the tail."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 6, 3, padding=1)
            self.blocks = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
            self.relu = nn.ReLU(inplace=True)
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            y = self.relu(self.stem(x))
            for block in self.blocks:
                y = y + self.relu(block(y))
            return self.head(self.relu(y + x.mean()).mean((2, 3)))

    model, x = Residual().eval(), images()
    with torch.no_grad():
        for layer in (model.stem, *model.blocks):
            tail = PartialForward(model, layer, x)
            assert tail.follows()
            torch.testing.assert_close(tail.outputs, model(x))


class HalvedChannels(AblationLayer):
    """A user's layer in the way of 1.5: overrides set_next_batch and __call__."""

    def set_next_batch(self, input_batch_index, activations, num_channels_to_ablate):
        self.activations = activations[input_batch_index].clone().unsqueeze(0).repeat(num_channels_to_ablate, 1, 1, 1)

    def __call__(self, x):
        output = self.activations
        for row in range(output.size(0)):
            output[row, self.indices[row]] /= 2
        self.indices = self.indices[output.size(0) :]
        return output


def test_users_ablation_layer():
    model, x = convolutional(), images()
    last_linear = nn.Sequential(*model[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    whole = weights_of(last_linear, x, last_linear[3])
    halved = weights_of(last_linear, x, last_linear[3], ablation_layer=HalvedChannels(), batch_size=3)
    torch.testing.assert_close(halved, whole / 2, atol=1e-5, rtol=1e-4)


def test_default_ablation_layer_follows_the_layout():
    model, x = Transformer(), images()

    def reshape(tokens):
        return vit_reshape_transform(tokens, 3, 4)

    expected = AblationCAM(model, model.norm, reshape, ablation_layer=AblationLayerVit())(x)
    np.testing.assert_array_equal(AblationCAM(model, model.norm, reshape)(x), expected)


def test_ablation_layers_set_one_channel_a_row_to_zero():
    for layer, shape, axis in [(AblationLayer(), (2, 4, 3, 3), 1), (AblationLayerVit(), (2, 9, 4), -1)]:
        activations = torch.randn(shape)
        layer.activations_to_be_ablated(activations[1].movedim(axis if axis < 0 else 0, 0).numpy())
        layer.set_next_batch(1, activations, 3)
        rows = layer(None)
        for row in range(3):
            channels = rows[row].movedim(axis if axis < 0 else 0, 0)
            expected = activations[1].movedim(axis if axis < 0 else 0, 0).clone()
            expected[row] = 0
            assert torch.equal(channels, expected)
        assert layer.indices.tolist() == [3]


def test_ablation_layers_leave_what_has_no_channels_as_it_is():
    """Of an output of maps, vectors, one number a sample and a name the first two have channels, which count on."""
    maps, vectors, numbers = torch.ones(2, 4, 3, 3), torch.tensor([[1.0, 2], [3, 4]]), torch.ones(2)
    layer = ablation_layer_for(None, [maps, vectors, numbers, "name"], torch.ones(2, 6, 3, 3))
    assert type(layer) is AblationLayer
    assert layer.indices.size == 0
    layer.indices = np.array([1, 5])
    layer.set_next_batch(1, [maps, vectors, numbers, "name"], 2)
    of_maps, of_vectors, *others = layer(None)
    assert of_maps.sum((2, 3)).tolist() == [[9, 0, 9, 9], [9, 9, 9, 9]]
    assert of_vectors.tolist() == [[3, 4], [3, 0]]
    assert others == [numbers, "name"]


def test_ablation_of_maps_behind_a_number_a_sample():
    layer = AblationLayer()
    layer.indices = np.array([1, 2])
    layer.set_next_batch(0, (torch.ones(2), torch.ones(2, 3, 2)), 1)
    numbers, maps = layer(None)
    assert numbers.tolist() == [1, 1]
    assert maps.sum(2).tolist() == [[2, 0, 2]]
    assert layer.indices.tolist() == [2]


def test_at_least_one_channel_is_ablated():
    assert AblationLayer().activations_to_be_ablated(np.array([[1.0], [-3], [2]]), 0.01).tolist() == [1]


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_score_cam_batches(batch_size):
    model, x = convolutional(), images()
    model = nn.Sequential(Counter(), *model).eval()
    counter, sizes = model[0], []
    counter.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    cam = ScoreCAM(model, model[4])
    cam.batch_size = batch_size
    maps = cam(x, 3)
    reference = convolutional()
    np.testing.assert_allclose(maps, ScoreCAM(reference, reference.last)(x, 3), atol=1e-5)
    assert max(sizes[3:-1]) <= batch_size, "behind the look for a rectifier and the image, before the place check"


def test_score_cam_scores_constant_channels_once():
    model, x = convolutional(), images(count=1)
    model.conv.weight.data[2:] = 0
    model = nn.Sequential(Counter(), *model).eval()
    ScoreCAM(model, model[4], check_place=False)(x)
    assert model[0].rows == 1 + 1 + 1 + 2, "the look for a rectifier, the image, the blank one, two channels that vary"


def test_score_cam_of_a_share_of_the_energy():
    """The strongest channels are scored, the others count as the blank image does; all of them with a share of 1."""
    model, x = convolutional(), images(count=1)
    activations = model[:4](x).detach()
    energy = activations[0].square().sum((1, 2))
    order = energy.argsort(descending=True)
    share = float((energy[order[:3]].sum() - energy[order[2]] / 2) / energy.sum())
    assert channels_by_energy(activations, share)[0].nonzero()[:, 0].tolist() == sorted(order[:3].tolist())

    def weights(share_of_energy: float) -> torch.Tensor:
        with ScoreCAM(model, "last", share_of_energy=share_of_energy) as cam:
            return cam.get_cam_weights(x, model.last, [ClassifierOutputTarget(3)], activations, None)[0]

    every, few = weights(1), weights(share)
    blank = model(torch.zeros_like(x))[0, 3].detach()
    scores = (every / every[order[0]]).log()  # of each channel less that of the strongest one
    expected = torch.full_like(every, float(blank))
    strongest = float((few[order[0]] / few[order[3]]).log() + blank)
    expected[order[:3]] = scores[order[:3]] + strongest
    torch.testing.assert_close(few, expected.softmax(0), atol=1e-6, rtol=1e-5)
    assert few[order[3:]].unique().numel() == 1


@pytest.mark.parametrize("share", [0, -1, 1.1])
def test_unusable_share_of_energy(share):
    with pytest.raises(ValueError, match=rf"share_of_energy is {share}, expected a share in \(0, 1\]"):
        ScoreCAM(convolutional(), "last", share_of_energy=share)(images(), 0)


@pytest.mark.parametrize("perturbation", [AblationCAM, ScoreCAM])
def test_chunk_is_halved_when_memory_runs_out(perturbation):
    class SmallDevice(nn.Module):
        largest = 3

        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            if len(x) > self.largest:
                raise torch.cuda.OutOfMemoryError("no room")
            return self.net(x)

    model, x = SmallDevice().eval(), images()
    with perturbation(model.net, model.net.last) as cam:
        expected = cam(x, 3)
    with perturbation(model, model.net.last) as cam:
        np.testing.assert_allclose(cam(x, 3), expected, atol=1e-5)
        model.largest = 0
        with pytest.raises(torch.cuda.OutOfMemoryError):
            cam(x, 3)


@pytest.mark.parametrize("perturbation", [AblationCAM, ScoreCAM])
def test_unusable_batch_size(perturbation):
    model = convolutional()
    cam = perturbation(model, model.last)
    cam.batch_size = 0
    with pytest.raises(ValueError, match="batch_size is 0"):
        cam(images())


def test_layout_that_no_ablation_layer_knows():
    model = convolutional()
    with pytest.raises(ValueError, match="Pass an ablation_layer"):
        AblationCAM(model, model.last, lambda tensor: tensor[:, :3])(images())


def test_no_progress_bar_for_quick_work(capfd):
    model = convolutional()
    AblationCAM(model, model.last)(images(), 3)
    ScoreCAM(model, model.last)(images(), 3)
    assert capfd.readouterr() == ("", "")


class Pyramid(nn.Module):
    """Levels of different sizes and numbers of channels, in a dict or a tuple, as detectors have them."""

    def __init__(self, container):
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Conv2d(3, 5, 3, padding=1)
        self.coarse = nn.Conv2d(5, 3, 3, stride=2, padding=1)
        self.container = container

    def forward(self, x):
        fine = self.fine(x).relu()
        return self.container([("0", fine), ("pool", self.coarse(fine).relu())])


class Detector(nn.Module):
    def __init__(self, container):
        super().__init__()
        self.backbone = Pyramid(container)
        torch.manual_seed(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        levels = self.backbone(x)
        levels = levels.values() if isinstance(levels, dict) else levels
        return self.head(torch.cat([level.mean((2, 3)) for level in levels], dim=1))


def as_tuple(levels):
    return tuple(level for _, level in levels)


def pyramid_transform(levels):
    return fasterrcnn_reshape_transform(levels if isinstance(levels, dict) else dict(enumerate(levels)))


def pyramid_weights(model, x, ablation_layer):
    activations = pyramid_transform(model.backbone(x)).detach()
    cam = AblationCAM(model, model.backbone, pyramid_transform, ablation_layer, batch_size=3)
    return cam.get_cam_weights(x, model.backbone, [3] * len(x), activations, None)


@pytest.mark.parametrize("container", [OrderedDict, as_tuple])
@pytest.mark.parametrize("ablation_layer", [None, AblationLayerFasterRCNN()])
def test_ablation_of_a_pyramids_channels(container, ablation_layer):
    """Channels count on from level to level; the head is linear in their means, so each weight is known."""
    model, x = Detector(container), images()
    found = pyramid_weights(model, x, ablation_layer)
    means = torch.cat([level.mean((2, 3)) for level in tree_leaves(model.backbone(x))], dim=1)
    expected = means * model.head.weight[3] / model(x)[:, 3:4].abs()
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)
    cam = AblationCAM(model, model.backbone, pyramid_transform, batch_size=3)
    assert cam(x, 3).shape == (2, 12, 16)


class DetAblationLayer(AblationLayer):
    """As detectors' tools write one for 1.5: lists of levels, a `__call__` of its own, -1000 for an ablated channel."""

    def __init__(self):
        super().__init__()
        self.activations = None

    def set_next_batch(self, input_batch_index, activations, num_channels_to_ablate):
        if isinstance(activations, torch.Tensor):
            return super().set_next_batch(input_batch_index, activations, num_channels_to_ablate)
        self.activations = [
            activation[input_batch_index, :, :, :].clone().unsqueeze(0).repeat(num_channels_to_ablate, 1, 1, 1)
            for activation in activations
        ]
        return None

    def __call__(self, x):
        result = self.activations
        if isinstance(result, torch.Tensor):
            return super().__call__(x)
        bounds = np.cumsum([level.shape[1] for level in result])
        for row in range(result[0].size(0)):
            level = int(np.searchsorted(bounds, self.indices[row], side="right"))
            result[level][row, self.indices[row] - (bounds[level - 1] if level else 0)] = -1000
        return result


def test_ablation_layer_written_for_1_5():
    model, x = Detector(as_tuple), images()
    found = pyramid_weights(model, x, DetAblationLayer())
    means = torch.cat([level.mean((2, 3)) for level in model.backbone(x)], dim=1)
    expected = (means + 1000) * model.head.weight[3] / model(x)[:, 3:4].abs()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-2)
    plain = convolutional()
    np.testing.assert_array_equal(
        AblationCAM(plain, [plain.last], ablation_layer=DetAblationLayer())(x, 3),
        AblationCAM(plain, [plain.last])(x, 3),
    )


def test_the_old_module_of_ablation_cam_leads_to_the_one():
    from pytorch_grad_cam import ablation_cam_multilayer

    assert ablation_cam_multilayer.AblationCAM is AblationCAM


def test_random_cam_repeats_its_sequence_by_seed():
    model, x = convolutional(), images()
    one, same, other = (RandomCAM(model, "last", seed=seed) for seed in (0, 0, 1))
    sequence = [one(x), one(x)]
    np.testing.assert_array_equal(sequence[0], same(x))
    np.testing.assert_array_equal(sequence[1], same(x))
    assert np.abs(sequence[0] - sequence[1]).max() > 0.1
    assert np.abs(sequence[0] - other(x)).max() > 0.1
    torch.manual_seed(3)
    unseeded = [RandomCAM(model, "last")(x) for _ in range(2)]
    assert np.abs(unseeded[0] - unseeded[1]).max() > 0.1, "each object draws its own"
    torch.manual_seed(3)
    np.testing.assert_array_equal(RandomCAM(model, "last")(x), unseeded[0])
    weights = one.get_cam_weights(x, None, None, torch.zeros(4, 5000, 2, 2), None)
    assert (weights.min(), weights.max()) == pytest.approx((-1, 1), abs=0.01)
    assert weights.mean().abs() < 0.02
    assert not torch.equal(weights[0], weights[1])


def test_threads_share_a_given_ablation_layer():
    model = convolutional()
    batches = [images(seed=seed) for seed in range(4)]
    cam = AblationCAM(model, ["last"], ablation_layer=AblationLayer(), batch_size=2)
    expected = [cam(x, 3) for x in batches]
    found = [None] * len(batches)

    def work(index):
        for _ in range(4):
            found[index] = cam(batches[index], 3)

    in_threads(work, len(batches))
    for maps, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(maps, reference, atol=1e-6)


def test_mask_that_old_ablation_layers_choose_by():
    activations = np.zeros((4, 5, 6), np.float32)
    activations[:2, 1:3, 1:4] = 1
    mask = AblationLayer().objectiveness_mask_from_svd(activations, threshold=0.5)
    np.testing.assert_array_equal(mask, activations[0] > 0)
    around = np.array([[-4.0, 0, 1, 3]])
    assert AblationLayer().objectiveness_mask_from_svd(around, threshold=0.25).tolist() == [True, False, False, True]


class SequenceFirst(nn.Module):
    """A transformer with the tokens on the first axis: (T, N, C)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.block(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0))


@pytest.mark.parametrize("batch_size", [1, 32])
def test_images_on_another_axis_are_refused(batch_size):
    cam = AblationCAM(SequenceFirst().eval(), "block", batch_size=batch_size)
    with pytest.raises(ValueError, match=r"\(12, 2, 8\) for 2 images.*first axis"):
        cam(images(), 3)


def test_tensors_as_long_as_a_later_batch_are_told_from_it():
    class WithTexts(nn.Module):
        """Scores of images by 5 texts."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.texts = nn.Sequential(nn.Embedding(5, 6), nn.Tanh())
            self.net = convolutional()[:4]

        def forward(self, x):
            texts = self.texts(torch.arange(5))
            return self.net(x).mean((2, 3))[:, :6].tanh() @ texts.T

    model, x = WithTexts().eval(), images(count=5)
    with AblationCAM(model, "net") as cam:
        singles = [cam(image[None], 3)[0] for image in x]
        np.testing.assert_allclose(cam(x, 3), singles, atol=1e-5)


def test_outputs_in_objects_are_compared():
    @dataclass
    class Output:
        logits: torch.Tensor

    class InObject(WithInPlaceGlue):
        def forward(self, x):
            return Output(super().forward(x))

    model = InObject().eval()
    with torch.no_grad():
        assert not PartialForward(model, model.net.last, images()).follows()
    with GradCAM(model, model.net.last) as cam:
        cam(images(), 3)
        assert not cam.outputs.logits.requires_grad


def test_models_traced_by_fx():
    model, x = convolutional(), images()
    traced = torch.fx.symbolic_trace(model)
    np.testing.assert_array_equal(AblationCAM(traced, "last")(x, [3, 1]), AblationCAM(model, "last")(x, [3, 1]))


def counted_relu(x):
    """A function that a graph calls as it is."""
    COUNTED.append(len(x))
    return torch.relu(x)


COUNTED: list[int] = []


class WithFunctions(nn.Module):
    """Functions in front of the layer, as converted graphs have them, and a tail that is not affine."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        batch = x.shape[0]
        features = self.act(self.conv(counted_relu(self.stem(x))))
        return self.head(features.mean((2, 3)).reshape(batch, -1)).sigmoid()


def test_functions_of_a_graph_in_front_of_the_layer_run_once():
    net, x = WithFunctions().eval(), images()
    tracer = torch.fx.Tracer(autowrap_functions=(counted_relu,))
    graph = torch.fx.GraphModule(net, tracer.trace(net))
    cam = AblationCAM(graph, "act", check_place=False)
    expected = AblationCAM(net, "act")(x, 1)
    np.testing.assert_allclose(cam(x, 1), expected, atol=1e-6)
    COUNTED.clear()
    np.testing.assert_allclose(cam(x, 1), expected, atol=1e-6)
    assert COUNTED == [2, 2], "the forward and the one that is recorded, none for a channel"

"""The search is part of the first call, and what it found is kept for the size and the kind of target."""

import copy
import gc
import threading
import weakref

import literal
import numpy as np
import pytest
import torch
from detectors import BOXES, SIZE, Detector, SingleShot, TwoBranches, UNet
from nets import CLASSES, Transformer, convolutional, images, in_threads
from torch import nn
from torch.nn.functional import interpolate

from pytorch_grad_cam import AblationCAM, EigenCAM, FinerCAM, GradCAM, HiResCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.targets import TargetRule
from pytorch_grad_cam.locate import search
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

MOST_SEARCHES = 10


class Counted:
    """Within: how often the model ran."""

    def __init__(self, model):
        self.model, self.runs = model, 0

    def __enter__(self):
        self.handle = self.model.register_forward_hook(self.count)
        return self

    def count(self, *_):
        self.runs += 1

    def __exit__(self, *_):
        self.handle.remove()


@pytest.fixture
def searches(monkeypatch):
    """Of each search its targets."""
    made = []
    constructor = search.Search.__init__

    def counted(self, model, x, spatial_from, output_transform, targets, *rest):
        made.append(targets)
        if len(made) > MOST_SEARCHES:
            raise RuntimeError("searches without end")
        constructor(self, model, x, spatial_from, output_transform, targets, *rest)

    monkeypatch.setattr(search.Search, "__init__", counted)
    return made


def first_channel(output):
    return output[0]


def first_channel_mean(output):
    return output[0].mean()


def second_channel(output):
    return output[1] * 2


# One forward


@pytest.mark.parametrize("targets", [None, 3, [3, 1], [[0, 1], [2, 3]], ClassifierOutputTarget(2), first_channel])
@pytest.mark.parametrize("samples", [1, 2])
def test_the_first_call_makes_one_forward(samples, targets):
    model, x = convolutional(), images(count=samples)
    targets = targets[:samples] if isinstance(targets, list) else targets
    cam = GradCAM(model, check_place=False)
    with Counted(model) as counted:
        first = cam(x, targets)
        assert counted.runs == 1
        np.testing.assert_array_equal(cam(x, targets), first)
        assert counted.runs == 2
    assert cam.location.name == "last"


class Counting(torch.autograd.Function):
    """The identity, which counts how often it is differentiated."""

    backwards = 0

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        Counting.backwards += 1
        return gradient


class Head(nn.Linear):
    """A linear layer behind which backwards are counted."""

    def forward(self, x):
        return Counting.apply(super().forward(x))


@pytest.mark.parametrize(("cam_class", "targets"), [(GradCAM, 3), (GradCAM, None), (FinerCAM, 3)])
def test_the_gradient_of_the_search_is_that_of_the_call(cam_class, targets):
    model, x = convolutional(), images(count=1)
    model.head = Head(16, CLASSES).eval()
    cam = cam_class(model, check_place=False)
    Counting.backwards = 0
    first = cam(x, targets)
    in_first, Counting.backwards = Counting.backwards, 0
    np.testing.assert_array_equal(cam(x, targets), first)
    assert in_first == Counting.backwards


def test_three_samples_take_a_forward_of_two_for_the_search():
    model, x = convolutional(), images(count=3)
    read = []
    model.register_forward_hook(lambda _, inputs, __: read.append(len(inputs[0])))
    cam = GradCAM(model, check_place=False)
    first = cam(x, [0, 1, 2])
    assert read == [2, 3]
    np.testing.assert_array_equal(cam(x, [0, 1, 2]), first)
    np.testing.assert_array_equal(GradCAM(model, "last")(x, [0, 1, 2]), first)


def test_tokens_take_a_forward_with_noise():
    model, x = Transformer().eval(), images()
    cam = GradCAM(model, check_place=False)
    with Counted(model) as counted:
        cam(x, 1)
        assert counted.runs == 2
        cam(x, 2)
        assert counted.runs == 3


@pytest.mark.parametrize("cam_class", [GradCAM, HiResCAM, LayerCAM, EigenCAM, ScoreCAM])
@pytest.mark.parametrize(
    "options",
    [{}, {"detach": False}, {"compute_input_gradient": True}, {"align": "receptive_field"}, {"uses_gradients": False}],
    ids=str,
)
@pytest.mark.parametrize("samples", [1, 2])
def test_the_first_map_is_that_of_the_second_call_and_of_the_named_layer(cam_class, options, samples):
    if options == {"uses_gradients": False} and cam_class in (GradCAM, HiResCAM, LayerCAM):
        pytest.skip("a method with gradients")
    if options == {"detach": False} and not cam_class.is_differentiable:
        pytest.skip("its maps cannot be differentiated")
    model, x = convolutional(), images(count=samples)
    cam = cam_class(model, **options)
    first = cam(x, 1)
    assert first.max() == 1
    np.testing.assert_array_equal(cam(x, 1), first)
    np.testing.assert_array_equal(cam_class(model, "last", **options)(x, 1), first)


def test_the_graph_of_the_maps_stays_in_the_first_call_without_detach():
    model, x = convolutional(), images()
    of_first, of_named = (
        torch.autograd.grad(GradCAM(model, layer, detach=False)(x, 1, as_tensor=True).sum(), model.stem.weight)[0]
        for layer in (None, "last")
    )
    assert of_first.abs().sum() > 0
    torch.testing.assert_close(of_first, of_named)


def test_the_inputs_gradient_is_there_in_the_first_call():
    class Seen(GradCAM):
        def get_cam_weights(self, image, layer, targets, activations, grads):
            seen.append(image.grad.clone())
            return np.ones(np.asarray(activations).shape[:2], dtype=np.float32)

    seen = []
    model, x = convolutional(), images()
    cam = Seen(model, compute_input_gradient=True)
    cam(x, 1)
    cam(x, 1)
    leaf = x.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    for gradient in seen:
        torch.testing.assert_close(gradient, leaf.grad)
    assert len(seen) == 2


class WritesBehind(nn.Module):
    """Writes in place into what its layer returned."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.body, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, CLASSES)

    def forward(self, x):
        seen = self.body(self.conv(x))
        seen += 0.1
        return self.head(seen.relu_().mean((2, 3)))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(("cam_class", "forwards"), [(GradCAM, 2), (LayerCAM, 2), (EigenCAM, 3)])
def test_a_model_that_writes_into_the_layers_output_takes_a_forward_more(cam_class, forwards, samples):
    """And without gradients one with a graph, in which a rectifier would be seen."""
    model, x = WritesBehind().eval(), images(count=samples)
    cam = cam_class(model, check_place=False)
    with Counted(model) as counted:
        first = cam(x, 1)
        assert counted.runs == forwards
        np.testing.assert_array_equal(cam(x, 1), first)
        assert counted.runs == forwards + 1
    assert cam.location.name == "body"
    np.testing.assert_array_equal(cam_class(model, "body")(x, 1), first)


def test_an_in_place_rectifier_is_the_layer_and_is_read_behind_its_writing():
    model, x = convolutional(in_place=True), images()
    first = GradCAM(model)(x, 1)
    np.testing.assert_array_equal(GradCAM(convolutional(), "last")(x, 1), first)


def test_the_users_image_and_gradients_are_left_alone_by_the_first_call():
    model, x = convolutional(), images()
    before = x.clone()
    GradCAM(model)(x, 1)
    assert torch.equal(x, before)
    assert x.grad is None
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_first_call_leaves_an_image_with_a_gradient_of_its_own_as_it_is():
    model, x = convolutional(), images().requires_grad_()
    first = GradCAM(model)(x, 1)
    assert x.grad is None
    np.testing.assert_array_equal(GradCAM(model)(x.detach(), 1), first)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_first_call_in_the_callers_mode_without_gradients(mode):
    model, x = convolutional(), images()
    expected = GradCAM(model, "last")(x, 1)
    with mode():
        np.testing.assert_array_equal(GradCAM(model)(x, 1), expected)


@pytest.mark.usefixtures("own_garbage")
def test_nothing_of_the_first_forward_is_kept():
    model, x = convolutional(), images()
    made = []
    for module in model:
        module.register_forward_hook(lambda _, __, output: made.append(weakref.ref(output)))
    cam = GradCAM(model)
    cam(x, 1)
    gc.collect()
    assert made
    assert all(reference() is None for reference in made)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_call_that_is_refused_leaves_nothing_behind(samples):
    model, x = convolutional(), images(count=samples)
    cam = GradCAM(model)
    with pytest.raises(IndexError, match="has 5 classes"):
        cam(x, 99)
    with pytest.raises(ValueError, match=f"{samples + 1} targets for {samples} samples"):
        cam(x, [0] * (samples + 1))
    with pytest.raises(ZeroDivisionError):
        cam(x, lambda output: output[1] * (1 / 0))
    np.testing.assert_array_equal(cam(x, 1), GradCAM(model, "last")(x, 1))


# Kept


def test_another_class_is_no_new_search(searches):
    cam, x = GradCAM(convolutional()), images()
    for targets in (None, 0, [3, 1], torch.tensor([1, 2]), ClassifierOutputTarget(2), [[0, 1], [2, 3]]):
        cam(x, targets)
    assert len(searches) == 1


def test_another_kind_of_target_is_a_new_search(searches):
    cam, x = GradCAM(convolutional()), images()
    for targets in (0, first_channel, second_channel, first_channel, 1, second_channel):
        cam(x, targets)
    assert searches == [0, first_channel, second_channel]


def test_callables_of_one_code_are_one_kind(searches):
    cam, x = GradCAM(convolutional()), images()
    for channel in range(3):
        cam(x, lambda output, channel=channel: output[channel])
    assert len(searches) == 1


def test_another_size_is_a_new_search(searches):
    cam, x = GradCAM(convolutional()), images()
    for size in ((12, 16), (24, 16), (12, 16), (24, 16)):
        image = torch.nn.functional.interpolate(x, size)
        maps = cam(image, 1)
        np.testing.assert_array_equal(maps, GradCAM(cam.model, "last")(image, 1))
    assert len(searches) == 2


def test_another_number_of_images_is_no_new_search(searches):
    cam = GradCAM(convolutional())
    for samples in (1, 3, 2, 5):
        assert len(cam(images(count=samples), 1)) == samples
    assert len(searches) == 1


def test_a_kind_has_its_own_layer_again_after_another():
    model, x = Detector().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model)
    of_first, of_last = (lambda output: output[BOXES[0], 2]), (lambda output: output[BOXES[2], 2] * 1)
    names = []
    for target in (of_first, of_last, of_first, of_last):
        maps = cam(x, target)
        names.append(cam.location.name)
        np.testing.assert_array_equal(maps, GradCAM(model)(x, target))
    assert names == ["necks.0", "necks.2"] * 2


def test_a_copy_of_the_object_searches_for_itself(searches):
    cam, x = GradCAM(convolutional()), images()
    first = cam(x, 1)
    other = copy.deepcopy(cam)
    np.testing.assert_array_equal(other(x, 1), first)
    assert len(searches) == 2


def test_threads_with_targets_of_their_own_get_their_own_maps():
    model, x = Detector().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    targets = [(lambda output, number=number: output[number, 2]) for number in BOXES]
    expected = [
        literal.grad_cam(model, neck, x, lambda o, target=target: target(o[0]), SIZE)
        for neck, target in zip(model.necks, targets, strict=True)
    ]
    cam, found, start = GradCAM(model), {}, threading.Barrier(3)

    def work(index):
        start.wait()
        for _ in range(3):
            found.setdefault(index, []).append(cam(x, targets[index]))

    in_threads(work, 3)
    for index, maps in found.items():
        assert len(maps) == 3
        for each in maps:
            np.testing.assert_allclose(each, expected[index], atol=1e-6)


# Looked for again


def test_a_map_that_is_rightly_blank_is_looked_for_once_only(searches):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return self.net(x) * torch.tensor([1.0, 1, 0, 1, 1])

    cam, x = GradCAM(Constant()), images()
    assert cam(x, 1).max() == 1
    for _ in range(3):
        with pytest.warns(CamWarning, match="2 of 2 maps are blank: zero gradient"):
            assert cam(x, 2).max() == 0
    assert len(searches) == 2


def test_a_named_layer_is_never_exchanged():
    model, x = Detector().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model, "necks.0")
    with pytest.warns(CamWarning, match=r"zero gradient.*; try target_layers=\['necks.2'\]"):
        assert cam(x, lambda output: output[BOXES[2], 2]).max() == 0
    assert cam.target_layers == [model.necks[0]]


def test_a_segmentations_choice_is_kept_for_other_regions():
    model, x = UNet().eval(), torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model, check_place=False)
    with Counted(model) as counted:
        for channel in range(4):
            maps = cam(x, lambda output, channel=channel: output[channel].mean())
            expected = literal.grad_cam(model, model.up2, x, lambda o: o[0, channel].mean(), (48, 64))  # noqa: B023
            np.testing.assert_allclose(maps, expected, atol=1e-6)
        assert counted.runs == 9  # with one for the choice of a dense output, and the four of the literal maps


def test_noise_is_made_once_for_a_segmentation_whose_reading_is_uncertain():
    """The bottleneck's cells are tokens, with another one in their middle, and the choice is made anew with them."""

    class OfTokens(UNet):
        def __init__(self):
            super().__init__()
            self.norm, self.other = nn.LayerNorm(12), nn.Parameter(torch.randn(1, 1, 12))

        def forward(self, x):
            first = self.stem(x)
            cells = self.bottleneck(self.down2(self.down1(first)))
            tokens = cells.flatten(2).mT
            tokens = self.norm(torch.cat([tokens[:, :20], self.other.expand(len(x), -1, -1), tokens[:, 20:]], dim=1))
            cells = torch.cat([tokens[:, :20], tokens[:, 21:]], dim=1).mT.reshape(cells.shape)
            above = torch.cat([interpolate(cells, size=x.shape[2:])[:, :8], first], dim=1)
            return self.head(self.up0(above))

    model, x = OfTokens(), torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model.eval(), check_place=False)
    with Counted(model) as counted:
        cam(x, first_channel_mean)
        assert (cam.location.name, cam.location.layout.spans) == ("norm", ((0, 20), (21, 49)))
        assert counted.runs == 2


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"compute_input_gradient": True}, {}),
        ({"detach": False}, {}),
        ({"align": "receptive_field"}, {}),
        ({}, {"aug_smooth": True}),
        ({}, {"eigen_smooth": True}),
        ({}, {"as_tensor": True}),
    ],
    ids=str,
)
def test_another_level_is_found_with_every_option(options, call):
    model, x = Detector().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model, **options)
    maps = [cam(x, Box(level), **call) for level in (0, 2)][1]
    assert cam.location.name == "necks.2"
    expected = GradCAM(model, **options)(x, Box(2), **call)
    assert torch.equal(torch.as_tensor(maps), torch.as_tensor(expected))


@pytest.mark.parametrize("cam_class", [LayerCAM, HiResCAM, ScoreCAM, AblationCAM])
def test_another_level_is_found_by_every_method(cam_class):
    model, x = Detector().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam = cam_class(model)
    maps = [cam(x, Box(level)) for level in (0, 2)][1]
    np.testing.assert_array_equal(maps, cam_class(model)(x, Box(2)))


def test_the_same_level_is_not_looked_for_again(searches):
    """Other boxes of one level, though each is read in other cells."""
    model, x = SingleShot().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model)

    def of(number):
        return lambda output: output[number, 2]

    for number in (BOXES[0], BOXES[0] + 1, BOXES[0] - 16, BOXES[0]):
        cam(x, of(number))
    assert len(searches) == 1
    for number in (BOXES[1], BOXES[1] + 1):
        cam(x, of(number))
    assert len(searches) == 2


def test_a_method_without_gradients_looks_for_the_layer_of_a_class_once(searches):
    for cam_class in (ScoreCAM, AblationCAM):
        cam, x = cam_class(convolutional()), images()
        for number in (1, 2, 1):
            cam(x, number)
    assert len(searches) == 2


def test_another_level_is_found_for_targets_that_are_chosen_by_a_rule(searches):
    model, x = Detector().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model)
    rules = [TargetRule(lambda outputs, targets, level=level: [Box(level)] * len(outputs)) for level in (0, 2)]
    maps = [cam(x, rule) for rule in rules][1]
    np.testing.assert_array_equal(maps, GradCAM(model)(x, Box(2)))
    assert len(searches) == 3


def test_another_branch_is_found_by_finer_cam(searches):
    model, x = TwoBranches().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam, of_two = FinerCAM(model), {"comparison_categories": [1]}
    maps = [cam(x, targets=number, alpha=0.0, **of_two) for number in (0, 3)][1]
    np.testing.assert_array_equal(maps, FinerCAM(model)(x, targets=3, alpha=0.0, **of_two))
    assert maps.max() == 1


class Box:
    """A box's score. meanwhile: what happens after the forward, once."""

    def __init__(self, level, meanwhile=None):
        self.level, self.meanwhile = level, meanwhile

    def __call__(self, output):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return output[BOXES[self.level], 2]


def test_another_thread_that_finds_other_layers_meanwhile_changes_nothing():
    model, x = Detector().eval(), torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    cam = GradCAM(model)
    cam(x, Box(0))
    maps = cam(x, Box(2, meanwhile=lambda: in_threads(lambda _: cam(x, Box(2)), 1)))
    np.testing.assert_array_equal(maps, GradCAM(model)(x, Box(2)))

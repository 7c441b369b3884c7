"""What holds for every method on attention, and each against its formula in float64 loops."""

import contextlib
import copy
import gc
import pickle
import warnings
import weakref
from functools import cache

import numpy as np
import pytest
import torch
import ttach
from attentive import DIM, HEADS, KINDS, Attentive, Blocked, Windows
from nets import CLASSES, SIZES, convolutional, images, in_threads, state_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.attention_oracles import ATTENTION_ORACLES, Shown, legrad_of_all_blocks, shown_by
from benchmarks.oracles import finished_map
from pytorch_grad_cam import AGCAM, AttentionRollout, CamWarning, GradECLIP, GradientRollout, LeGrad, MaskCLIP, TransMM
from pytorch_grad_cam.attention.attention_capture import MeanCapture
from pytorch_grad_cam.engine.maps import resize
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

GRIDS = {rank: tuple(size // 4 for size in sizes) for rank, sizes in SIZES.items()}


def test_every_method_has_an_oracle(attention_method):
    assert attention_method.__name__ in ATTENTION_ORACLES


@cache
def shown_of_classes(pool, rank):
    """A network, and of each image what it shows of its attention for each class."""
    model, x = Attentive(pool=pool, rank=rank).double(), images(rank, seed=3).double()
    return model, [(image, [shown_by(model, image, category) for category in range(CLASSES)]) for image in x]


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("rank", [1, 2])
def test_map_is_the_formulas(attention_method, pool, rank):
    model, of_images = shown_of_classes(pool, rank)
    for image, shown in of_images:
        of_classes = [ATTENTION_ORACLES[attention_method.__name__](of_class) for of_class in shown]
        category = int(np.argmax([of_tokens[1:].max() for of_tokens in of_classes]))
        of_tokens = of_classes[category]
        expected = finished_map(of_tokens[1:].reshape(GRIDS[rank]), image.shape[1:])
        assert expected.max() > 0.99, "an oracle whose map is blank proves nothing"
        np.testing.assert_allclose(attention_method(model)(image[None], category)[0], expected, atol=1e-5)


def test_legrad_of_named_blocks():
    model, x = Attentive(depth=4).double(), images().double()
    of_tokens = legrad_of_all_blocks(shown_by(model, x[0], 2))
    expected = finished_map(of_tokens[1:].reshape(GRIDS[2]), x.shape[2:])
    for blocks in (list(model.blocks), [f"blocks.{number}" for number in range(4)]):
        np.testing.assert_allclose(LeGrad(model, blocks)(x[:1], 2)[0], expected, atol=1e-5)


@cache
def maps_of_fused(attention_method):
    return attention_method(Attentive().double())(images().double(), [3, 1])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "grouped"])
def test_however_the_model_computes_its_attention(attention_method, kind):
    if kind == "bmm" and attention_method is GradECLIP:
        pytest.skip("a test of its own: its parts are (N * heads, T, d)")
    expected = maps_of_fused(attention_method)
    found = attention_method(Attentive(kind).double())(images().double(), [3, 1])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_heads_in_the_batch_for_grad_eclip():
    expected = GradECLIP(Attentive())(images(), [3, 1])
    np.testing.assert_allclose(GradECLIP(Attentive("bmm"))(images(), [3, 1]), expected, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_result(attention_method, rank):
    maps = attention_method(Attentive(rank=rank, seed=6))(images(rank, count=3), [3, 1, 3])
    assert isinstance(maps, np.ndarray)
    assert maps.dtype == np.float32
    assert maps.shape == (3, *SIZES[rank])
    np.testing.assert_array_equal(maps.reshape(3, -1).min(1), 0)
    np.testing.assert_array_equal(maps.reshape(3, -1).max(1), 1)


def test_batch_is_singles_in_any_order(attention_method):
    model, x, order = Attentive(), images(count=4), [2, 0, 3, 1]
    together = attention_method(model)(x, 2)
    singles = [attention_method(model)(image[None], 2)[0] for image in x]
    np.testing.assert_allclose(together, np.stack(singles), atol=1e-5)
    np.testing.assert_allclose(attention_method(model)(x[order], 2), together[order], atol=1e-5)


def test_several_targets_from_one_forward(attention_method):
    model, x, runs = Attentive(), images(), []
    cam = attention_method(model, check_place=False)
    cam(x)
    model.register_forward_hook(lambda *_: runs.append(1))
    together = cam(x, [[1, 4, 2], [3, 0, 2]])
    assert len(runs) == (2 if attention_method is MaskCLIP else 1)
    singly = [cam(x, column) for column in ([1, 3], [4, 0], [2, 2])]
    np.testing.assert_allclose(together, np.stack(singly, axis=1), atol=1e-6)


def test_forms_of_targets(attention_method):
    model, x = Attentive(), images()
    cam = attention_method(model)
    expected = cam(x, [3, 3])
    for targets in (3, ClassifierOutputTarget(3), [ClassifierOutputTarget(3)] * 2, lambda scores: scores[3]):
        np.testing.assert_allclose(cam(x, targets), expected, atol=1e-6)
    np.testing.assert_array_equal(cam(x), cam(x, model(x).argmax(1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision(attention_method, dtype):
    model, x = Attentive(), images()
    expected = attention_method(model)(x, [3, 1])
    found = attention_method(copy.deepcopy(model).to(dtype))(x.to(dtype), [3, 1])
    assert np.abs(found - expected).max() < {torch.bfloat16: 0.2, torch.float64: 1e-4}[dtype]


def test_a_given_transform_and_its_shape(attention_method):
    model, x = Attentive(), images()
    expected = attention_method(model)(x, [3, 1])
    transform = lambda tokens: tokens[:, 1:].mT.unflatten(2, GRIDS[2])  # noqa: E731
    np.testing.assert_allclose(attention_method(model, reshape_transform=transform)(x, [3, 1]), expected, atol=1e-6)
    tensor = attention_method(model)(x, [3, 1], as_tensor=True)
    assert not tensor.requires_grad
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_augmentations(attention_method):
    model, x = Attentive(), images()
    cam = attention_method(model, tta_transforms=ttach.Compose([ttach.VerticalFlip()]))
    smoothed = cam(x, 3, aug_smooth=True)
    expected = (attention_method(model)(x, 3) + np.flip(attention_method(model)(x.flip(2), 3), 1)) / 2
    np.testing.assert_allclose(smoothed, expected, atol=1e-5)


def test_registered_maps(attention_method):
    model, x = Attentive(), images()
    cam = attention_method(model, align="receptive_field")
    assert cam(x, 3).shape == (2, *SIZES[2])
    assert list(cam.registrations) == [model.blocks[-1]]


class Failing(ClassifierOutputTarget):
    def __call__(self, model_output):
        raise KeyboardInterrupt


@pytest.mark.parametrize("outcome", ["success", "exception in the target", "exception in the model"])
@pytest.mark.parametrize("kind", ["fused", "fast module"])
def test_model_is_left_as_it_was(attention_method, outcome, kind):
    model, x = Attentive(kind), images()
    model.train()
    model.blocks[0].eval()
    model.head.weight.requires_grad_(False)
    model(x).sum().backward()
    cam = attention_method(model)
    before, gradients = state_of(model), [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    random_state, grad_enabled = torch.get_rng_state(), torch.is_grad_enabled()
    if outcome == "success":
        cam(x, 3)
    elif outcome == "exception in the target":
        with pytest.raises(KeyboardInterrupt) if cam.uses_targets else contextlib.nullcontext():
            cam(x, Failing(0))
    else:
        with pytest.raises(RuntimeError, match=r"size|shape|channels"):
            cam(torch.zeros(1, 7, 12, 16))
    assert state_of(model) == before
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled() == grad_enabled


def test_frozen_no_grad_and_inference_mode(attention_method):
    x = images()
    expected = attention_method(Attentive())(x, [3, 1])
    model = Attentive().requires_grad_(False)
    with torch.no_grad():
        np.testing.assert_array_equal(attention_method(model)(x, [3, 1]), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(attention_method(model)(x.clone(), [3, 1]), expected)


def test_a_model_that_runs_its_blocks_under_no_grad(attention_method):
    class Frozen(Attentive):
        def tokens(self, x):
            with torch.no_grad():
                return self.blocks[0](super().tokens(x))

        def forward(self, x):
            with torch.no_grad():
                tokens = self.blocks[1](self.tokens(x))
            return self.score(self.blocks[2](tokens))

    np.testing.assert_array_equal(attention_method(Frozen())(images(), 3), attention_method(Attentive())(images(), 3))


def test_output_is_kept_detached(attention_method):
    model, x = Attentive(), images()
    cam = attention_method(model)
    cam(x)
    torch.testing.assert_close(cam.outputs, model(x))
    assert not cam.outputs.requires_grad


def test_no_images(attention_method):
    model, x = Attentive(), images()
    cam = attention_method(model)
    cam(x)
    assert cam(x[:0]).shape == (0, *x.shape[2:])


@pytest.mark.slow
@pytest.mark.usefixtures("own_garbage")
def test_nothing_is_kept(attention_method):
    model = Attentive()
    cam = attention_method(model)
    x = images()
    cam(x)
    alive = weakref.ref(x)
    del x
    assert alive() is None
    gc.collect()
    gc.disable()
    try:
        before = _tensors()
        cam(images())
        assert _tensors() == before, "a call makes no cycles that hold tensors"
    finally:
        gc.enable()
    known = weakref.ref(model)
    del model, cam
    gc.collect()
    assert known() is None


def _tensors() -> int:
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


def test_a_cam_can_be_pickled(attention_method):
    cam = attention_method(Attentive())
    expected = cam(images(), [3, 1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cam))(images(), [3, 1]), expected)


def test_threads_share_one_cam_and_one_model(attention_method):
    model = Attentive()
    cam = attention_method(model)
    inputs = [images(seed=seed) if seed % 2 else images(seed=seed)[:, :, :8, :8].contiguous() for seed in range(4)]
    expected = [cam(x, 3) for x in inputs]
    found = [None] * len(inputs)

    def work(index):
        for _ in range(3):
            found[index] = cam(inputs[index], 3)

    in_threads(work, len(inputs))
    for each, alone in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, alone)


def test_gradient_of_the_input(attention_method):
    if not attention_method.uses_gradients:
        pytest.skip("no gradients")
    model, x = Attentive(), images()
    plain = attention_method(model)(x, 3)
    np.testing.assert_allclose(attention_method(model, compute_input_gradient=True)(x, 3), plain, atol=1e-6)


def test_maps_in_the_graph(attention_method):
    if not attention_method.uses_gradients:
        pytest.skip("its map is no function of the score")
    model = Attentive()
    attention_method(model, detach=False)(images(), 3, as_tensor=True).sum().backward()
    assert model.patch.weight.grad.abs().sum() > 0


def test_no_attention(attention_method):
    with pytest.raises(ValueError, match="no attention that can be seen"):
        attention_method(convolutional())(images())
    with pytest.raises(ValueError, match="target_layers is empty"):
        attention_method(Attentive(), [])
    with pytest.raises(ValueError, match="no channels"):
        attention_method(Attentive())(images(), 3, eigen_smooth=True)


def test_methods_of_gradients_need_them():
    with pytest.raises(ValueError, match="AttentionRollout needs none"):
        LeGrad(Attentive(), uses_gradients=False)


@pytest.mark.parametrize("kind", [AttentionRollout, GradientRollout, TransMM, AGCAM])
def test_windows_are_refused_by_what_follows_tokens(kind):
    with pytest.raises(ValueError, match="within windows: LeGrad"):
        kind(Windows())(images())


def test_rollout_keeps_the_mean_of_the_heads_alone():
    class Seen(MeanCapture):
        def _seen(self, attention):
            super()._seen(attention)
            kept.append(self.attentions[-1].attention)

    kept, cam = [], AttentionRollout(Attentive(depth=3))
    cam.capture_of_blocks = Seen
    cam(images())
    tokens = 1 + np.prod(GRIDS[2])
    assert [of_block.weights.shape for of_block in kept] == [(2, 1, tokens, tokens)] * 3
    assert all(part is None for of_block in kept for part in of_block[1:])


@pytest.mark.parametrize("kind", [LeGrad, MaskCLIP])
def test_a_part_behind_the_blocks_that_views_its_tokens(kind):
    """As InternVL's, which knows how many images there are, and joins axes without a copy."""

    class Viewing(Attentive):
        def tokens(self, x):
            tokens = super().tokens(x)
            self.shape = tokens.shape
            return tokens

        def score(self, tokens):
            count = self.shape[0] if kind is LeGrad else len(tokens)
            return super().score(tokens.view(count, -1).unflatten(1, (tokens.shape[1], DIM)))

    np.testing.assert_allclose(kind(Viewing())(images(), 3), kind(Attentive())(images(), 3), atol=1e-6)


def place_in_windows(kind, row, column, columns):
    """Of a cell: which window, and the place in it."""
    square, within = row // 2 * (columns // 2) + column // 2, row % 2 * 2 + column % 2
    return (square, within) if kind == "apart" else (within, square)


def literal_legrad_of_blocked(net, image, category):
    """In the order of the cells: (rows, columns)."""
    rows, columns = (side // 4 for side in image.shape[1:])
    squares = rows // 2 * columns // 2
    axes = (1, HEADS, squares, 4, 4) if net.kind == "apart" else (4, HEADS, squares, squares)
    tokens, total = net.cut(net.patch(image[None])), np.zeros((rows, columns))
    for block in net.blocks:
        offset = image.new_zeros(axes).requires_grad_()
        tokens = block(tokens, offset)
        mean = tokens.flatten(0, -2).mean(0)[:, None, None].expand(DIM, rows, columns)
        (gradient,) = torch.autograd.grad(net.score(mean[None])[0, category], offset, retain_graph=True)
        of_keys = gradient.relu()[0].mean((0, 2)) if net.kind == "apart" else gradient.relu().mean((1, 2))
        for row, column in np.ndindex(rows, columns):
            total[row, column] += float(of_keys[place_in_windows(net.kind, row, column, columns)]) / len(net.blocks)
    return total


def literal_grad_eclip_of_blocked(net, image, category):
    rows, columns = (side // 4 for side in image.shape[1:])
    shown: list = []
    score = net(image[None], shown)[0, category]
    (gradient,) = torch.autograd.grad(score, shown[-1][-1])
    parts = [part.detach().double().numpy() for part in (*shown[-1][:3], gradient)]
    parts = [part[0] if net.kind == "apart" else part.swapaxes(0, 1) for part in parts]  # (heads, windows, T, d)
    total = np.zeros((rows, columns))
    for row, column in np.ndindex(rows, columns):
        window, place = place_in_windows(net.kind, row, column, columns)
        query, key, value, of_output = ([part[:, window]] for part in parts)
        of_window = ATTENTION_ORACLES["GradECLIP"](Shown([], [], query, key, value, [], of_output, [], np.ones(1)))
        total[row, column] = of_window[place]
    return total


@pytest.mark.parametrize("kind", ["apart", "folded"])
@pytest.mark.parametrize(
    ("of_windows", "literal"), [(LeGrad, literal_legrad_of_blocked), (GradECLIP, literal_grad_eclip_of_blocked)]
)
def test_windows_that_the_image_is_cut_into_once_are_put_back(kind, of_windows, literal):
    """As in Nest and MobileViT, whose blocks see no map but its windows."""
    net = Blocked(kind)
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    maps = of_windows(net, relu=False, normalize=None)(x, [[0, 2]] * 2, as_tensor=True)
    for sample, position in np.ndindex(2, 2):
        expected = torch.from_numpy(literal(net, x[sample], [0, 2][position]))
        drawn = resize(expected[None, None].float(), (16, 24))[0, 0]
        torch.testing.assert_close(maps[sample, position], drawn, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
@pytest.mark.parametrize("cell", [(0, 0), (1, 2), (2, 1)])
def test_windows_are_put_back(size, cell):
    """Of a score that reads one cell only the cells of its window say something, shifted and filled up as it is."""

    class Reading(Windows):
        def forward(self, x):
            cells = self.patch(x).movedim(1, -1)
            for block in self.blocks:
                cells = block(cells)
            return self.norm(cells)[:, cell[0], cell[1]]

    torch.manual_seed(2)
    x = torch.randn(2, 3, *size)
    rows, columns = (side // 4 for side in size)
    for_and_against = [lambda values: values.square().sum(), lambda values: -values.square().sum()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CamWarning)  # what speaks for it alone leaves the map against it blank
        maps = GradECLIP(Reading())(x, [for_and_against] * 2, as_tensor=True).amax(1)
    of_cells = maps.unflatten(1, (rows, 4)).unflatten(3, (columns, 4)).mean((2, 4))

    def window(row, column):
        """Its number along each axis: the second block's windows begin at an odd cell, and the last one goes around."""
        return tuple((place - 1) % (n + n % 2) // 2 for place, n in ((row, rows), (column, columns)))

    own = [place for place in np.ndindex(rows, columns) if window(*place) == window(*cell)]
    for sample in range(2):
        highest = np.unravel_index(int(of_cells[sample].argmax()), (rows, columns))
        assert highest in own
    assert LeGrad(Reading())(x, 3).shape == (2, *size)


def test_a_tail_that_knows_how_many_images_there_are():
    """LeGrad shows it the blocks' mean tokens one by one."""

    class Counting(Attentive):
        def forward(self, x):
            tokens = self.tokens(x)
            for block in self.blocks:
                tokens = block(tokens)
            return self.score(tokens.reshape(len(x), 13, 8))

    expected = LeGrad(Attentive())(images(), [[1, 2], [3, 4]])
    for _ in range(2):
        np.testing.assert_allclose(LeGrad(Counting())(images(), [[1, 2], [3, 4]]), expected, atol=1e-6)


def test_outputs_as_long_as_the_stack_of_means():
    """Two images and two blocks are six rows: six texts, or classes, are no images."""

    class Contrastive(nn.Module):
        def __init__(self):
            super().__init__()
            self.vision = Attentive()

        def forward(self, pixels, texts):
            similarity = self.vision(pixels) @ texts.T
            return {"logits_per_image": similarity, "logits_per_text": similarity.T}

    torch.manual_seed(0)
    model, texts = Contrastive(), torch.randn(6, CLASSES)
    inputs = {"pixels": images(), "texts": texts}
    cam = LeGrad(model)
    maps = cam(inputs, [5, 0])
    for name, expected in model(**inputs).items():
        torch.testing.assert_close(cam.outputs[name], expected)
    plain = LeGrad(Attentive())
    for sample, number in enumerate((5, 0)):
        alone = plain(images()[sample : sample + 1], lambda scores, text=texts[number]: scores @ text)
        np.testing.assert_allclose(maps[sample], alone[0], atol=1e-6)


def test_a_blank_map_is_told():
    with pytest.warns(CamWarning, match="blank"):
        TransMM(Attentive())(images(), lambda scores: scores.sum() * 0)


def test_blocks_that_change_their_input_in_place():
    """What is behind a block must not change what was seen of it."""

    class InPlace(Attentive):
        def forward(self, x):
            tokens = self.tokens(x)
            for block in self.blocks:
                tokens = block(tokens)
                tokens.mul_(2)
            return self.score(tokens)

    class Copying(Attentive):
        def forward(self, x):
            tokens = self.tokens(x)
            for block in self.blocks:
                tokens = block(tokens) * 2
            return self.score(tokens)

    for kind in (LeGrad, GradECLIP, TransMM):
        np.testing.assert_allclose(kind(InPlace())(images(), 3), kind(Copying())(images(), 3), atol=1e-6)


def test_cost_of_legrad_in_operations():
    """One forward, and of each of two blocks the backward of its MLP and projection alone."""
    model, x = Attentive(depth=6), images(count=1)
    cam = LeGrad(model)
    cam(x, 3)
    with torch.inference_mode(), FlopCounterMode(display=False) as bare:
        model(x)
    with FlopCounterMode(display=False) as counted:
        cam(x, 3)
    assert counted.get_total_flops() < 1.3 * bare.get_total_flops()

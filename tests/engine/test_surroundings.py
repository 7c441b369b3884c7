"""The same maps whatever surrounds the call, and no trace of it, whatever happens."""

import copy
import pickle
from collections import UserDict

import numpy as np
import pytest
import torch
from nets import Residual, convolutional, images, in_threads, state_of
from torch import nn
from torch.ao.quantization import FusedMovingAvgObsFakeQuantize, MovingAverageMinMaxObserver
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from pytorch_grad_cam import SESS, AblationCAM, BaseCAM, EigenCAM, FullGrad, GradCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.torch_quirks.checkpoints import checkpoints_run_once
from pytorch_grad_cam.meta_cam import MetaCAM


def maps_of(method, model, x, targets=(3, 1), layer="last", **options):
    with method(model, layer, **options) as cam:
        return cam(x, list(targets))


class Checkpointed(nn.Module):
    """Blocks that run again in a backward pass: with the target layer inside, or before and behind it."""

    def __init__(self, inside: bool, use_reentrant: bool) -> None:
        super().__init__()
        self.net = convolutional()
        self.last = self.net.last
        self.inside, self.use_reentrant = inside, use_reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.inside:
            return self.net[4:](checkpoint(self.net[:4], x, use_reentrant=self.use_reentrant))
        before = checkpoint(self.net[:3], x, use_reentrant=self.use_reentrant)
        return checkpoint(self.net[4:], self.last(before), use_reentrant=self.use_reentrant)


class Tied(nn.Module):
    """Two convolutions and two names with one weight."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.last, self.head = nn.ReLU(), nn.Linear(3, 5)
        self.two.load_state_dict(self.one.state_dict())
        if tied:
            self.two.weight, self.two.bias = self.one.weight, self.one.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.two(self.one(x).tanh())).mean((2, 3)))


def with_norm_and_dropout() -> nn.Sequential:
    """`convolutional` with them; its `last` is the fifth layer."""
    stem, *others = convolutional()
    norm = nn.BatchNorm2d(6)
    norm.running_mean += 0.1
    return nn.Sequential(stem, norm, *others, nn.Dropout(0.5)).eval()


class TestSameMaps:
    def test_partly_frozen(self, method):
        model = convolutional()
        model[:3].requires_grad_(False)
        np.testing.assert_array_equal(maps_of(method, model, images()), maps_of(method, convolutional(), images()))

    def test_training_mode_before(self, method):
        model = with_norm_and_dropout()
        layer = model[4]
        expected = maps_of(method, model, images(), layer=layer)
        np.testing.assert_array_equal(maps_of(method, model.train(), images(), layer=layer), expected)
        assert all(module.training for module in model.modules())
        assert model[1].num_batches_tracked == 0, "no statistics were gathered"

    def test_made_and_called_in_inference_mode(self, method):
        expected = maps_of(method, convolutional(), images())
        with torch.inference_mode():
            model, x = convolutional(), images()
            before = state_of_inference(model)
            found = maps_of(method, model, x)
            assert state_of_inference(model) == before
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.slow
    @pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
    @pytest.mark.parametrize("use_reentrant", [True, False])
    @pytest.mark.parametrize("inside", [True, False])
    def test_checkpointed_blocks(self, method, inside, use_reentrant):
        expected = maps_of(method, convolutional(), images())
        found = maps_of(method, Checkpointed(inside, use_reentrant).eval(), images())
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert torch.utils.checkpoint.CheckpointFunction is CheckpointFunction, "training goes on with checkpoints"

    @pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
    @pytest.mark.parametrize("use_reentrant", [True, False])
    def test_layer_within_a_checkpointed_block(self, method, use_reentrant):
        expected = maps_of(method, convolutional(), images(), layer="first")
        found = maps_of(method, Checkpointed(True, use_reentrant).eval(), images(), layer="net.first")
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_channels_last_memory(self, method):
        expected = maps_of(method, convolutional(), images())
        model, x = convolutional().to(memory_format=torch.channels_last), images()
        found = maps_of(method, model, x.to(memory_format=torch.channels_last))
        assert (np.abs(found - expected) > 1e-4).mean() < 0.01

    @pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
    def test_input_that_is_not_contiguous(self, method):
        x = images()
        scattered = torch.stack([x, x + 1], dim=-1)[..., 0]
        assert not scattered.is_contiguous()
        model = convolutional()
        np.testing.assert_allclose(maps_of(method, model, scattered), maps_of(method, model, x), atol=1e-5)

    def test_tied_weights(self, method):
        found, expected = (maps_of(method, Tied(tied).eval(), images()) for tied in (True, False))
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
    def test_default_dtype_of_the_process(self, method):
        model, x = convolutional(), images()
        expected = maps_of(method, model, x)
        torch.set_default_dtype(torch.float64)
        try:
            found = maps_of(method, model, x)
            assert torch.get_default_dtype() is torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def state_of_inference(model: nn.Module) -> list:
    return [(name, id(p), p.requires_grad) for name, p in model.named_parameters()]


class Broken(nn.Module):
    """Fails in the middle of the model, from its second run on if asked to."""

    def __init__(self, error: BaseException, after: int = 0) -> None:
        super().__init__()
        self.error, self.runs, self.after = error, 0, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        if self.runs > self.after:
            raise self.error
        return x


ERRORS = [RuntimeError("of the model"), KeyboardInterrupt(), torch.cuda.OutOfMemoryError("out of memory")]


class TestNoTrace:
    x = images()

    @pytest.fixture(autouse=True)
    def nothing_changes(self, request):
        before = torch.get_rng_state(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
        yield
        if "RandomCAM" not in request.node.name:  # which takes its seed from it
            assert torch.equal(torch.get_rng_state(), before[0])
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before[1:]
        assert (torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()) == (dtype, deterministic)

    @staticmethod
    def trained() -> tuple[nn.Module, dict]:
        """A model in the middle of training, with gradients, a frozen weight and a submodule in evaluation mode."""
        with torch.random.fork_rng():
            model = with_norm_and_dropout().train()
            model[0].eval()
            model[0].weight.requires_grad_(False)
            model(images()).sum().backward()
        tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
        return model, {"state": state_of(model), "tensors": tensors, "grads": grads}

    @staticmethod
    def assert_unchanged(model: nn.Module, before: dict) -> None:
        assert state_of(model) == before["state"]
        assert all(torch.equal(tensor, before["tensors"][name]) for name, tensor in model.state_dict().items())
        for name, parameter in model.named_parameters():
            gradient = before["grads"][name]
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(parameter.grad, gradient)

    @pytest.mark.slow
    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    @pytest.mark.parametrize("after", [0, 1])
    def test_an_exception_in_the_model(self, method, error, after):
        model, before = self.trained()
        with torch.random.fork_rng():
            broken = nn.Sequential(*model[:6], Broken(error, after), *model[6:])
        cam = method(broken, broken[4], lambda maps: maps)
        cam.check_place = False  # this and finding the layout would be further runs of the model
        state = state_of(broken)
        looks_for_rectifiers = getattr(cam, "takes_rectified", False) and not cam.uses_gradients  # by another forward
        runs_more = {"RISE", "AblationCAM", "ReciproCAM", "LayerIntegratedGradients", "LIFTCAM", "SESS", "GroupCAM"}
        runs_more |= {"ScoreCAM", "GScoreCAM", "ISCAM", "SSCAM", "SmoothGradCAMPlusPlus", "PathCAM"}
        if after == 0 or looks_for_rectifiers or method.__name__ in runs_more:
            with pytest.raises(type(error)):
                cam(self.x, None)
        else:
            cam(self.x, None)
        assert [entry[:-1] for entry in state_of(broken)] == [entry[:-1] for entry in state]
        cam.activations_and_grads.release()
        self.assert_unchanged(model, before)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_an_exception_in_a_target(self, method, error):
        def raising(output):
            raise error

        model, before = self.trained()
        with method(model, model[4]) as cam:
            if cam.uses_targets:
                with pytest.raises(type(error)):
                    cam(self.x, raising)
        self.assert_unchanged(model, before)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_an_exception_in_the_formula(self, method, error):
        model, before = self.trained()

        def raising(*args, **kwargs):
            raise error

        with method(model, model[4]) as cam:
            base = cam
            while isinstance(base, MetaCAM):
                base = base.base_cam
            base.compute_cam_per_layer = raising
            with pytest.raises(type(error)):
                cam(self.x, 3)
        self.assert_unchanged(model, before)

    @pytest.mark.parametrize("raises", [False, True])
    def test_buffers_that_the_model_writes(self, method, raises):
        class Counting(nn.Module):
            """Counts its runs in place, and exchanges what it saw last."""

            def __init__(self) -> None:
                super().__init__()
                self.net, self.last = convolutional(), nn.Identity()
                self.register_buffer("runs", torch.zeros(1))
                self.register_buffer("seen", torch.zeros(3))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.runs += 1
                self.seen = x.detach().mean((0, *range(2, x.ndim)))
                if raises and self.seen.any():
                    raise ValueError("seen")
                return self.net(x)

        with torch.random.fork_rng():
            model = Counting().eval()
        seen = model.seen
        with method(model, "net.last") as cam:
            if raises:
                with pytest.raises(ValueError, match="seen"):
                    cam(self.x, 3)
            else:
                cam(self.x, 3)
        assert model.runs == 0
        assert model.seen is seen
        assert not seen.any()

    def test_success(self, method):
        model, before = self.trained()
        with method(model, model[4]) as cam:
            cam(self.x, [3, 1])
            cam(self.x, 3, aug_smooth=True, eigen_smooth=True)
        self.assert_unchanged(model, before)


class TestThreads:
    @pytest.mark.slow
    def test_several_cams_of_one_model(self, method):
        model, batches = convolutional().train(), [images(seed=seed) for seed in range(8)]
        cams = [method(model, ("first", "last")[index % 2]) for index in range(8)]
        if method.__name__ == "RandomCAM":
            for cam in cams:
                cam.seed = 1
        expected = [cam(x, 3) for cam, x in zip(cams, batches, strict=True)]
        wrong, done = [], []

        def work(index):
            maps = [cams[index](batches[index], 3) for _ in range(4)]
            wrong.extend(index for found in maps if not np.allclose(found, expected[index], atol=1e-5))
            done.append(index)

        in_threads(work, 8)
        assert len(done) == 8
        if method.__name__ != "RandomCAM":
            assert wrong == []
        assert all(module.training for module in model.modules())

    def test_different_methods_of_one_model(self):
        model, x = convolutional().train(), images()
        methods = [GradCAM, ScoreCAM, AblationCAM, EigenCAM, FullGrad, LayerCAM, ScoreCAM, AblationCAM]
        cams = [method(model, [] if method is FullGrad else "last") for method in methods]
        expected, wrong = [cam(x, 3) for cam in cams], []

        def work(index):
            maps = [cams[index](x, 3) for _ in range(4)]
            wrong.extend(index for found in maps if not np.allclose(found, expected[index], atol=1e-5))

        in_threads(work, len(cams))
        assert wrong == []


class ExplainedImages(torch.utils.data.Dataset):
    """Maps made in the workers."""

    def __init__(self, cam) -> None:
        self.cam, self.images = cam, images(count=4)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.cam(self.images[index : index + 1], 3)[0]


def put_maps(cam, x, queue) -> None:
    queue.put(cam(x, 3))


class TestProcesses:
    def test_an_object_can_be_pickled(self, method):
        with method(convolutional(), "last") as cam:
            expected = cam(images(), 3)
            restored = pickle.loads(pickle.dumps(cam))
        assert restored.outputs is None or restored.outputs.shape == (2, 5)
        if method.__name__ != "RandomCAM":
            np.testing.assert_allclose(restored(images(), 3), expected, atol=1e-6)
        assert copy.deepcopy(restored)(images(), 3).shape == expected.shape

    @pytest.mark.slow
    @pytest.mark.parametrize("context", ["fork", "spawn"])
    def test_workers_of_a_data_loader(self, context):
        cam = GradCAM(convolutional(), "last")
        data = ExplainedImages(cam)
        loader = torch.utils.data.DataLoader(data, num_workers=2, multiprocessing_context=context)
        found = np.concatenate([batch.numpy() for batch in loader])
        np.testing.assert_allclose(found, cam(data.images, 3), atol=1e-5)

    @pytest.mark.slow
    def test_torch_multiprocessing(self):
        context = torch.multiprocessing.get_context("spawn")
        queue, cam, x = context.Queue(), GradCAM(convolutional(), "last"), images()
        process = context.Process(target=put_maps, args=(cam, x, queue))
        process.start()
        found = queue.get(timeout=120)
        process.join()
        np.testing.assert_allclose(found, cam(x, 3), atol=1e-6)


class CheckpointedAttention(nn.Module):
    """Tokens of which attention runs within a checkpoint in evaluation mode too, as timm's and others' do."""

    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.qkv = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 24)
        self.head = nn.Linear(8, 5)
        self.checkpointed, self.runs = checkpointed, 0

    def attention(self, tokens: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        query, key, value = self.qkv(self.norm(tokens))[:, None].chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(query, key, value)[:, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).mT
        mixed = checkpoint(self.attention, tokens, use_reentrant=False) if self.checkpointed else self.attention(tokens)
        return self.head((tokens + mixed).tanh().mean(1))


@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
@pytest.mark.parametrize("layer", [None, "norm"])
def test_checkpoints_in_evaluation_mode_run_once(method, layer):
    model = CheckpointedAttention(checkpointed=True).eval()
    expected = maps_of(method, CheckpointedAttention(checkpointed=False).eval(), images(), layer=layer)
    np.testing.assert_array_equal(maps_of(method, model, images(), layer=layer), expected)
    runs = model.runs
    GradCAM(model, "norm", check_place=False)(images(), 3)
    assert model.runs == runs + 3, "two to find the layout of the tokens"


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_other_threads_keep_their_checkpoints(use_reentrant):
    runs = []

    def block(x):
        runs.append(1)
        return x.sin()

    def trained(index):
        x = images().requires_grad_()
        checkpoint(block, x, use_reentrant=use_reentrant).sum().backward()

    with checkpoints_run_once:
        in_threads(trained, 2)
        assert len(runs) == 4
        runs.clear()
        trained(0)
        assert len(runs) == 1
    runs.clear()
    trained(0)
    assert len(runs) == 2


def test_every_method_is_one_of_two_kinds(method):
    """What the tests here reach into."""
    assert issubclass(method, BaseCAM | MetaCAM)


@pytest.mark.parametrize("kind", [GradCAM, ScoreCAM, AblationCAM, SESS])
def test_inputs_in_a_mapping_that_is_no_dict(kind):
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, pixels):
            return self.net(pixels)

    model = Keyword().eval()
    expected = maps_of(kind, model.net, images())
    found = maps_of(kind, model, UserDict(pixels=images()), layer="net.last", spatial_from="pixels")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert GradCAM(model, align="receptive_field")(UserDict(pixels=images())).shape == expected.shape


class Observed(nn.Module):
    """A fused observer, as training for quantisation has, and a buffer that takes the size of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()
        self.last = self.net.last
        self.observer = FusedMovingAvgObsFakeQuantize(MovingAverageMinMaxObserver)
        self.register_buffer("seen", torch.empty(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.resize_(x.shape).copy_(x.detach())
        return self.net(self.observer(x))


@pytest.mark.filterwarnings("ignore")
def test_observers_and_buffers_of_another_size_are_restored():
    model, x = Observed().train(), images()
    model.observer(x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps_of(GradCAM, model, 10 * x)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_call_with_the_graph_of_the_parameters_finds_the_layout_with_it():
    """Looking for the layout, which freezes, does not freeze the call around it."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.mixed, self.head = nn.Conv2d(3, 8, 4, stride=4), Residual(8), nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.mixed(self.patch(x).flatten(2).mT).square().mean(1))

    model, x = Tokens().eval(), images()
    cam = LayerCAM(model, "mixed", detach=False)
    sums = [cam(x, 1, aug_smooth=True, as_tensor=True).sum() for _ in range(2)]
    first, second = (torch.autograd.grad(each, model.patch.weight)[0] for each in sums)
    torch.testing.assert_close(first, second)


class NormalisesInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()
        self.last = self.net.last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x -= 0.5
        x *= 2
        return self.net(x)


class Normalises(NormalisesInPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - 0.5) * 2)


@pytest.mark.parametrize("kind", [GradCAM, ScoreCAM, AblationCAM, FullGrad, SESS])
@pytest.mark.parametrize("options", [{}, {"aug_smooth": True}, {"align": "receptive_field"}])
def test_models_that_change_their_input_in_place(kind, options):
    x = images()
    given = x.clone()
    align = {"align": options["align"]} if "align" in options else {}
    call = {key: value for key, value in options.items() if key != "align"}
    layers = [] if kind is FullGrad else "last"
    found = kind(NormalisesInPlace().eval(), layers, **align)(given, [3, 1], **call)
    torch.testing.assert_close(given, x, rtol=0, atol=0)
    np.testing.assert_allclose(found, kind(Normalises().eval(), layers, **align)(x, [3, 1], **call), atol=1e-5)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()
        self.last = self.net.last

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.net[4:](self.last(self.net[:3](x)) * mask)


def test_other_inputs_made_in_inference_mode():
    model, x = Masked().eval(), images()
    expected = maps_of(GradCAM, model, (x, torch.ones(2, 1, 6, 8)))
    with torch.inference_mode():
        found = maps_of(GradCAM, model, (x.clone(), torch.ones(2, 1, 6, 8)))
    np.testing.assert_array_equal(found, expected)


def test_a_layer_with_more_maps_than_images():
    """Windows folded into the batch are no maps of the images."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.windows = convolutional(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = self.net[:4](x)
            windows = self.windows(features.unflatten(2, (2, -1)).movedim(2, 1).flatten(0, 1))
            return self.net[4:](windows.unflatten(0, (len(x), 2)).movedim(1, 2).flatten(2, 3))

    with pytest.raises(ValueError, match="4 maps for 2 inputs"):
        maps_of(GradCAM, Windows().eval(), images(), layer="windows")


def test_one_layer_of_several_is_not_finite():
    class Overflows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.large = convolutional(), nn.Identity()
            self.last = self.net.last

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.large(x / 0)
            return self.net(x)

    model, x = Overflows().eval(), images()
    with pytest.warns(CamWarning, match="a layer with non-finite values .* is left out"):
        maps = maps_of(EigenCAM, model, x, layer=["last", "large"])
    np.testing.assert_allclose(maps, maps_of(EigenCAM, model, x), atol=1e-6)


def test_a_warning_in_code_without_a_name():
    model, x = convolutional(), images()
    model.head.weight.data.zero_()
    with pytest.warns(CamWarning):
        exec("cam(x, 1)", {"cam": GradCAM(model, "last"), "x": x})


def test_forward_called_directly():
    """As with grad-cam 1.5, whose constructor puts the model in evaluation mode: an array, of that mode."""
    model, x = nn.Sequential(convolutional(), nn.Dropout(0.5)).train(), images()
    expected = GradCAM(model, model[0].last)(x, [3, 1])
    before = state_of(model)
    np.testing.assert_array_equal(GradCAM(model, model[0].last).forward(x, [3, 1]), expected)
    assert state_of(model) == before


def test_what_a_module_remembers_from_inference_mode():
    """The anchors of ultralytics' heads are plain attributes, made anew for another size."""

    class Remembering(nn.Module):
        scale, shape = torch.empty(0), None

        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            if self.shape != x.shape:
                self.shape, self.scale = x.shape, torch.full((5,), 2.0)
            return self.net(x) * self.scale

    model = Remembering().eval()
    cam = GradCAM(model, "net.last")
    with torch.inference_mode():
        model(images())
    remembered = model.scale
    assert remembered.is_inference()
    expected = GradCAM(convolutional(), "last")(images(), 1)
    np.testing.assert_allclose(cam(images(), 1), expected, atol=1e-6)
    assert model.scale is remembered
    cam(images()[..., :8], 1)
    assert model.shape == (2, 3, 12, 8)
    assert model.scale is not remembered
    assert not model.scale.is_inference()

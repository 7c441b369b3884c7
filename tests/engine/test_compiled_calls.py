"""Calls of a CAM that run compiled: `cam.compile()`."""

import copy
import pickle

import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from pytorch_grad_cam import (
    RISE,
    AblationCAM,
    EigenCAM,
    GradCAM,
    GScoreCAM,
    LayerCAM,
    LeGrad,
    RefineCAM,
    ScoreCAM,
    ShapleyCAM,
)
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.wrappers import compile_options

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch >= 2.6"),
]
TARGETS = [[1, 3], [4, 0]]


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()


class Graphs:
    """A backend that runs graphs as they are and keeps them: those of forwards, those of backwards."""

    def __init__(self):
        self.forwards, self.backwards, self.runs = [], [], 0
        compilers = {"fw_compiler": self.keep(self.forwards), "bw_compiler": self.keep(self.backwards)}
        self.backend = aot_autograd(**compilers, inference_compiler=compilers["fw_compiler"])

    def keep(self, graphs):
        def compiler(graph, example):
            graphs.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])

            def run(*args):
                self.runs += 1
                return graph(*args)

            return run

        return compiler


@pytest.mark.parametrize(
    ("made", "cam_class", "layer"),
    [(convolutional, GradCAM, "last"), (convolutional, LayerCAM, ["first", "last"]), (Transformer, GradCAM, "norm")],
)
def test_one_graph_forwards_and_one_backwards(made, cam_class, layer):
    net, x, graphs = made(), images(), Graphs()
    cam = cam_class(net, layer, relu=False)
    expected = cam(x, TARGETS)
    cam.compile(backend=graphs.backend)
    np.testing.assert_allclose(cam(x, TARGETS), expected, atol=1e-6)
    graphs.runs = 0
    np.testing.assert_allclose(cam(x, TARGETS), expected, atol=1e-6)
    assert graphs.runs == 1 + 2  # a forward, and a backward for each of the two targets
    assert len(graphs.forwards) == len(graphs.backwards) == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    behind = sum("convolution_backward" in operation for operation in graphs.backwards[0])
    assert behind == (1 if layer == ["first", "last"] else 0), "the backward ends at the first layer"


def test_a_method_without_gradients():
    net, x, graphs = convolutional(), images(), Graphs()
    cam = EigenCAM(net)
    expected = cam(x)
    cam.compile(backend=graphs.backend)
    for _ in range(2):
        np.testing.assert_allclose(cam(x), expected, atol=1e-6)
    assert graphs.runs == 2
    assert not graphs.backwards


@pytest.mark.parametrize("wrapped", [lambda model: model, pytest.param(nn.DataParallel, marks=pytest.mark.slow)])
def test_a_cam_of_a_compiled_model_compiles_when_its_inputs_come_again(wrapped):
    net, x, graphs = convolutional(), images(), Graphs()
    expected = GradCAM(net, "last", relu=False)(x, TARGETS)
    cam = GradCAM(wrapped(torch.compile(net, backend=graphs.backend)), "last", relu=False)
    np.testing.assert_array_equal(cam(x, TARGETS), expected)
    assert not graphs.forwards, "a single map is not worth it"
    with pytest.warns(CamWarning, match=r"compiles it, too.* from seconds to minutes.*pass the model itself"):
        np.testing.assert_allclose(cam(x, TARGETS), expected, atol=1e-6)
    graphs.runs = 0
    np.testing.assert_allclose(cam(x, TARGETS), expected, atol=1e-6)
    assert graphs.runs == 1 + 2
    assert len(graphs.forwards) == len(graphs.backwards) == 1
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize(
    ("cam_class", "options"),
    [(ScoreCAM, {}), (AblationCAM, {}), (ShapleyCAM, {}), (LeGrad, {}), (GradCAM, {"detach": False})],
)
def test_what_runs_as_it_was_written_though_the_model_is_compiled(cam_class, options):
    compiled = torch.compile(convolutional(), backend="eager")
    assert cam_class(compiled, "last", **options).capture_class is cam_class.capture_class
    assert GradCAM(compiled, "last").capture_class is not GradCAM.capture_class


@pytest.mark.slow
def test_the_options_of_a_compiled_model():
    users = {"backend": Graphs().backend, "dynamic": False}
    options = compile_options(nn.DataParallel(torch.compile(convolutional(), fullgraph=True, **users)))
    assert options["dynamic"] is False
    assert options["backend"].compiler_fn is users["backend"]
    graphs = compile_options(torch.compile(convolutional(), mode="reduce-overhead"))
    assert graphs["backend"].config["triton.cudagraphs"], "one CUDA graph is asked for by the mode"
    assert compile_options(convolutional()) is None
    in_place = convolutional()
    in_place.compile(backend="aot_eager")
    assert compile_options(in_place) is None


@pytest.mark.slow
@pytest.mark.parametrize("cam_class", [ScoreCAM, GScoreCAM])
def test_masked_inputs_are_scored_compiled(cam_class):
    net, x, graphs = convolutional(), images(count=1), Graphs()
    expected = cam_class(net, "last")(x, [[1, 3]])
    cam = cam_class(net, "last")
    cam.compile(backend=graphs.backend, dynamic=False)
    np.testing.assert_allclose(cam(x, [[1, 3]]), expected, atol=1e-6)
    graphs.runs = 0
    np.testing.assert_allclose(cam(x, [[1, 3]]), expected, atol=1e-6)
    assert graphs.runs == (1 + 1 if cam_class is ScoreCAM else 2 * 2), "the blank image's and the masked ones'"
    assert not graphs.backwards
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_masked_inputs_of_a_compiled_model():
    net, x, graphs = convolutional(), images(count=1), Graphs()
    expected = ScoreCAM(net, "last")(x, 3)
    cam = ScoreCAM(torch.compile(net, backend=graphs.backend, dynamic=False), "last")
    np.testing.assert_array_equal(cam(x, 3), expected)
    assert not graphs.forwards, "a single map is not worth it"
    with pytest.warns(CamWarning, match="compiles it, too"):
        np.testing.assert_allclose(cam(x, 3), expected, atol=1e-6)
    np.testing.assert_allclose(cam(x, 3), expected, atol=1e-6)
    assert graphs.runs > 0


@pytest.mark.slow
def test_masked_inputs_of_a_model_that_is_no_graph():
    model, x = Broken().eval(), images(count=1)
    expected = ScoreCAM(model, "last")(x, 3)
    cam = ScoreCAM(model, "last")
    cam.compile(backend="eager")
    with pytest.warns(CamWarning, match="scored by the model as it was written, not compiled: Unsupported"):
        np.testing.assert_array_equal(cam(x, 3), expected)
    np.testing.assert_array_equal(cam(x, 3), expected)


class StaticBuffers:
    """A backend that returns the same memory in every run of a graph, as CUDA graphs do."""

    def __init__(self):
        self.backend = aot_autograd(
            fw_compiler=self.compiler, bw_compiler=self.compiler, inference_compiler=self.compiler
        )

    def compiler(self, graph, example):
        kept = []

        def run(*args):
            found = graph(*args)
            if not kept:
                kept.extend(each.detach().clone() if isinstance(each, torch.Tensor) else each for each in found)
            for buffer, each in zip(kept, found, strict=True):
                if isinstance(each, torch.Tensor):
                    buffer.copy_(each)
            return [each.detach() if isinstance(each, torch.Tensor) else each for each in kept]

        return run


@pytest.mark.slow
@pytest.mark.parametrize("cam_class", [GradCAM, EigenCAM])
def test_what_is_handed_out_is_no_memory_of_the_graphs(cam_class):
    net, x = convolutional(), images()
    plain, cam = (cam_class(net, "last", relu=False) for _ in range(2))
    cam.compile(backend=StaticBuffers().backend)
    cam(x, TARGETS)
    expected, scores = plain(x, TARGETS), plain.outputs
    maps, outputs = cam(x, TARGETS, as_tensor=True), cam.outputs
    of_channels = cam.contributions(x, TARGETS) if cam_class is GradCAM else []
    cam(-x, TARGETS)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    torch.testing.assert_close(outputs, scores)
    for found, wanted in zip(of_channels, plain.contributions(x, TARGETS) if of_channels else [], strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.slow
def test_compiling_twice_takes_the_latter_options():
    net, x, first, second = convolutional(), images(), Graphs(), Graphs()
    cam = GradCAM(net, "last", relu=False)
    cam.compile(backend=first.backend)
    cam.compile(backend=second.backend)
    cam(x, 3)
    assert second.runs
    assert not first.runs


@pytest.mark.parametrize("how", ["around", "in place"])
def test_a_model_that_the_user_compiled(how):
    """It runs compiled in the call, by the CAM's own graphs; those of the user are not touched, nor compiled again."""
    net, x, users, ours = convolutional(), images(), Graphs(), Graphs()
    expected = GradCAM(net, "last", relu=False)(x, 3)
    if how == "around":
        model = torch.compile(net, backend=users.backend)
    else:
        net.compile(backend=users.backend)
        model = net
    with torch.no_grad():
        scores = model(x)
    cam = GradCAM(model, "last", relu=False)
    cam.compile(backend=ours.backend)
    for _ in range(2):
        np.testing.assert_allclose(cam(x, 3), expected, atol=1e-6)
    assert ours.runs == 2 * 2
    assert users.runs == 1
    with torch.no_grad(), torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(model(x), scores)
    assert users.runs == 2


class Switched(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.factor = convolutional(), 1.0
        self.last = self.net.last

    def forward(self, x):
        return self.net.head(self.net[:-1](x) * self.factor)


def attribute(model):
    model.factor = -1.0


def child(model):
    torch.manual_seed(7)
    model.net.head = nn.Linear(16, 5)


def values(model):
    model.net.head.weight.data.neg_()


def hook(model):
    model.net.hidden.register_forward_hook(lambda module, args, output: -output)


@pytest.mark.slow
@pytest.mark.parametrize("change", [attribute, child, values, hook])
def test_a_model_that_changes_between_two_calls(change):
    model, x = Switched().eval(), images()
    cam = GradCAM(model, "last", relu=False, check_place=False)
    cam.compile(backend="aot_eager")
    before = cam(x, 3)
    np.testing.assert_allclose(cam(x, 3), before, atol=1e-6)
    change(model)
    expected = GradCAM(model, "last", relu=False, check_place=False)(x, 3)
    assert np.abs(expected - before).max() > 0.1
    for _ in range(2):
        np.testing.assert_allclose(cam(x, 3), expected, atol=1e-6)


class Broken(Switched):
    """What is no single graph."""

    def forward(self, x):
        torch._dynamo.graph_break()
        return super().forward(x)


class Probable(Switched):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Guessing(Switched):
    """Compiled, it does something else."""

    def forward(self, x):
        return super().forward(-x if torch.compiler.is_compiling() else x)


@pytest.mark.parametrize(
    ("kind", "layer", "why"),
    [
        (Broken, "last", "Unsupported"),
        (Probable, "last", r"may not be, logits of classes"),
        (Guessing, "last", "when it is compiled is not the same"),
        (Switched, "net.conv", "behind the rectifier"),
    ],
)
def test_what_runs_as_it_was_written(kind, layer, why):
    model, x = kind().eval(), images()
    expected = LayerCAM(model, layer, relu=False)(x, 3)
    cam = LayerCAM(model, layer, relu=False)
    cam.compile(backend="aot_eager")
    with pytest.warns(CamWarning, match=rf"runs as it was written, not compiled: .*{why}"):
        np.testing.assert_allclose(cam(x, 3), expected, atol=1e-6)
    np.testing.assert_allclose(cam(x, 3), expected, atol=1e-6)


@pytest.mark.slow
def test_each_form_of_the_inputs():
    net, graphs = convolutional(), Graphs()
    cam, plain = (GradCAM(net, "last", relu=False, check_place=False) for _ in range(2))
    cam.compile(backend=graphs.backend, dynamic=False)
    for x in (images(), images(count=3)):
        for _ in range(2):
            np.testing.assert_allclose(cam(x, 3), plain(x, 3), atol=1e-6)
    assert len(graphs.forwards) == 2
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            np.testing.assert_allclose(cam(images(), 3), plain(images(), 3), atol=0.02)
    assert len(graphs.forwards) == 3


def test_the_model_is_as_it_was():
    net, x = convolutional().train(), images()
    before = {name: list(vars(module)) for name, module in net.named_modules()}
    cam = GradCAM(net, "last", relu=False)
    cam.compile(backend="aot_eager")
    cam(x, 3)
    cam(x, 3)
    assert {name: list(vars(module)) for name, module in net.named_modules()} == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert net.training
    assert not net.last._forward_hooks


@pytest.mark.slow
def test_copies_compile_anew():
    cam = GradCAM(convolutional(), "last", relu=False)
    cam.compile(backend="aot_eager")
    expected = cam(images(), 3)
    for other in (copy.deepcopy(cam), pickle.loads(pickle.dumps(cam))):
        assert other.capture_class.cam is other
        np.testing.assert_allclose(other(images(), 3), expected, atol=1e-6)


def test_a_method_around_a_method():
    net, x, graphs = convolutional(), images(), Graphs()
    expected = RefineCAM(net, ["first", "last"])(x, 3)
    cam = RefineCAM(net, ["first", "last"])
    cam.compile(backend=graphs.backend)
    for _ in range(2):
        np.testing.assert_allclose(cam(x, 3), expected, atol=1e-6)
    assert graphs.runs == 4


@pytest.mark.parametrize(
    ("cam_class", "options"),
    [
        (ShapleyCAM, {}),
        (LeGrad, {}),
        (RISE, {}),
        (GradCAM, {"detach": False}),
        (GradCAM, {"compute_input_gradient": True}),
    ],
)
def test_what_cannot_be_compiled(cam_class, options):
    with pytest.raises(ValueError, match=f"{cam_class.__name__} cannot be compiled"):
        cam_class(convolutional(), "last", **options).compile()

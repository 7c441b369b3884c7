"""Models of which something is compiled."""

import numpy as np
import pytest
import torch
from nets import images
from torch import nn

from pytorch_grad_cam import AblationCAM, EigenCAM, FullGrad, GradCAM, ScoreCAM, ShapleyCAM
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.torch_quirks.compiled_modules import compiled_modules_run_as_written, is_compiled

OPTIONS = {"backend": "aot_eager"}

needs_a_stance = pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch >= 2.6")


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        stem, block = nn.Conv2d(3, 6, 3, 2, 1), nn.Sequential(nn.Conv2d(6, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.layers, self.head = nn.Sequential(stem, block), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean((2, 3)).tanh())


class Decorated(Blocks):
    forward = torch.compile(Blocks.forward, **OPTIONS)


def in_place() -> nn.Module:
    model = Blocks()
    model.compile(fullgraph=True, **OPTIONS)
    return model


def blocks_in_place() -> nn.Module:
    model = Blocks()
    for block in model.layers:
        block.compile(**OPTIONS)
    return model


def blocks_around() -> nn.Module:
    model = Blocks()
    model.layers[1] = torch.compile(model.layers[1], **OPTIONS)
    return model


def around() -> nn.Module:
    return torch.compile(Blocks(), **OPTIONS)


def forward_of_the_object() -> nn.Module:
    model = Blocks()
    model.forward = torch.compile(model.forward, **OPTIONS)
    return model


@needs_a_stance
@pytest.mark.parametrize("made", [in_place, blocks_in_place, blocks_around, around, forward_of_the_object, Decorated])
@pytest.mark.parametrize("used", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_maps_as_of_the_model_before(made, used):
    torch._dynamo.reset()
    model = made().eval()
    scores = model(images()) if used else None
    for method in (GradCAM, ShapleyCAM, AblationCAM, ScoreCAM, EigenCAM, FullGrad):
        expected = method(Blocks().eval(), "layers.1")(images(), 3)
        np.testing.assert_array_equal(method(model, "layers.1")(images(), 3), expected)
    expected = GradCAM(Blocks().eval())(images(), 3)
    np.testing.assert_array_equal(GradCAM(model)(images(), 3), expected)
    if used:
        with torch.compiler.set_stance("fail_on_recompile"):
            torch.testing.assert_close(model(images()), scores)  # what was compiled is still there


@needs_a_stance
def test_compiled_between_two_calls():
    torch._dynamo.reset()
    model = Blocks()
    cam = ShapleyCAM(model, "layers.1")
    expected = cam(images(), 3)
    model.compile(**OPTIONS)
    np.testing.assert_array_equal(cam(images(), 3), expected)


@needs_a_stance
def test_the_tail_of_a_compiled_model_runs_on_its_own():
    model = in_place().eval()
    with compiled_modules_run_as_written, torch.no_grad(), PartialForward(model, model.layers[1], images()) as tail:
        assert tail.follows()
        assert tail._recorded, "outputs in front of the layer"


def test_a_torch_that_cannot_run_them(monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    model = in_place()
    with pytest.raises(RuntimeError, match=r"cannot run as it was written: pass the model as it was before, or"):
        GradCAM(model, "layers.1")(images(), 3)
    assert model.training
    assert not compiled_modules_run_as_written.is_within()


def test_what_is_compiled():
    assert all(map(is_compiled, (in_place(), around(), Decorated(), forward_of_the_object())))
    assert not any(map(is_compiled, (Blocks(), nn.ModuleList(), torch.jit.trace(Blocks().eval(), images()))))

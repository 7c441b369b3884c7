"""The backward from one prediction that leaves out levels and regions gives what the whole one gives."""

from collections import Counter
from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from detectors import SQUARES, Cells, torchvision_faster_rcnn, torchvision_fcos, two_squares
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_grad_cam import BoxTarget, FullGrad, LayerCAM
from pytorch_grad_cam.engine.torch_quirks.short_backward import ShortBackward

NETS = {
    "levels": lambda: Cells().eval(),
    "fcos": torchvision_fcos,
    "regions": lambda: torchvision_faster_rcnn(rpn_post_nms_top_n_test=200),
}
BOXES = [BoxTarget((8, 8, 40, 40), 1), BoxTarget((2, 30, 20, 60), 1), BoxTarget((20, 4, 60, 60), 1)]
CONVOLUTION, ROI_ALIGN = "aten::convolution_backward", "torchvision::_roi_align_backward"


@pytest.fixture(params=NETS)
def net(request):
    return NETS[request.param]()


def photo():
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@contextmanager
def whole_backward():
    with mock.patch.multiple(ShortBackward, __enter__=lambda self: self, __exit__=lambda *_: None):
        yield


class Differentiated(TorchDispatchMode):
    """How often operations were differentiated, and for how many rows in all."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.rows = Counter(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[function.name()] += 1
        self.rows[function.name()] += len(args[0]) if isinstance(args[0], torch.Tensor) and args[0].ndim else 0
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [LayerCAM, FullGrad])
@pytest.mark.filterwarnings("ignore::pytorch_grad_cam.CamWarning")
def test_maps_are_those_of_the_whole_backward(kind, net):
    with whole_backward():
        expected = kind(net)(photo(), [BOXES])
    maps = kind(net)(photo(), [BOXES])
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)  # products of fewer rows round anew


@pytest.mark.parametrize("part", [1, 2], ids=["rectified behind", "rectified"])
@pytest.mark.filterwarnings("ignore::pytorch_grad_cam.CamWarning")
def test_named_levels_that_a_box_does_not_read(part):
    model, on_first = Cells().eval(), BoxTarget(SQUARES[0], 0)
    layers = [neck[part] for neck in model.necks]
    with whole_backward():
        expected = LayerCAM(model, layers, fuse=None)(two_squares(), on_first)
    maps = LayerCAM(model, layers, fuse=None)(two_squares(), on_first)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-6)
    assert [bool(of_level.any()) for of_level in maps[0]] == [True, False]


@pytest.mark.filterwarnings("ignore::pytorch_grad_cam.CamWarning")
def test_the_level_that_a_box_is_on_is_differentiated_alone():
    model, found = Cells().eval(), Differentiated()
    cam = LayerCAM(model, [model.stem])
    cam(photo(), BOXES[0])
    with found:
        cam(photo(), BOXES[0])
    whole = Differentiated()
    with whole_backward(), whole:
        cam(photo(), BOXES[0])
    assert (found.calls[CONVOLUTION], whole.calls[CONVOLUTION]) == (2, 4)


@pytest.mark.filterwarnings("ignore::pytorch_grad_cam.CamWarning")
def test_the_region_that_a_box_is_of_is_differentiated_alone():
    cam = LayerCAM(NETS["regions"]())
    cam(photo(), BOXES[0])
    found, whole = Differentiated(), Differentiated()
    with found:
        cam(photo(), BOXES[0])
    with whole_backward(), whole:
        cam(photo(), BOXES[0])
    assert found.rows[ROI_ALIGN] < whole.rows[ROI_ALIGN] / 2


def test_a_graph_of_the_gradients_is_that_of_the_whole_backward():
    model, losses = Cells().eval(), []
    for within in (whole_backward, nullcontext):
        with within():
            maps = LayerCAM(model, [model.stem], detach=False)(two_squares(), BoxTarget(SQUARES[0], 0), as_tensor=True)
        losses.append(torch.autograd.grad(maps.square().sum(), [head.weight for head in model.heads]))
    for found, expected in zip(*losses, strict=True):
        torch.testing.assert_close(found, expected)


def test_of_zeros_alone_nothing_is_left_out():
    parts = [torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)]
    joined = torch.cat(parts)
    with ShortBackward([joined]):
        for factors, expected in (([0, 0, 0, 1], [True, False]), ([0, 0, 0, 0], [False, False])):
            score = (joined * torch.tensor(factors)).sum()
            gradients = torch.autograd.grad(score, parts, retain_graph=True, allow_unused=True)
            assert [gradient is None for gradient in gradients] == expected
    gradients = torch.autograd.grad(joined[3], parts, allow_unused=True)
    assert all(gradient is not None for gradient in gradients), "behind it all is as ever"

import gc
import threading
import weakref
from functools import partial
from operator import itemgetter

import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images, in_threads
from torch import nn

from pytorch_grad_cam import ActivationsAndGradients, EigenCAM, GradCAM, ShapleyCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.engine.torch_quirks.attention import twice_differentiable_attention


def test_on_its_own_as_in_1_5():
    model, x = convolutional(), images()
    hooks = ActivationsAndGradients(model, [model.last, model.first], None)
    model(x)
    outputs = hooks(x)
    outputs[:, 3].sum().backward()
    assert [tuple(a.shape) for a in hooks.activations] == [(2, 8, 6, 8), (2, 6, 6, 8)]
    kept = []
    model.last.register_forward_hook(lambda module, inputs, output: kept.append(output))
    (expected,) = torch.autograd.grad(model(x)[:, 3].sum(), kept[0])
    torch.testing.assert_close(hooks.gradients[0], expected)
    torch.testing.assert_close(hooks.activations[0], kept[0].detach())
    assert not hooks.activations[0].requires_grad
    hooks.release()
    assert len(model.first._forward_hooks) == 0
    assert hooks.handles == []
    with pytest.raises(RuntimeError, match="released"):
        hooks(x)


def test_reshape_transform_is_applied_to_both():
    model, x = convolutional(), images()
    hooks = ActivationsAndGradients(model, [model.last], lambda tensor: tensor[:, :2])
    hooks(x).sum().backward()
    assert hooks.activations[0].shape == hooks.gradients[0].shape == (2, 2, 6, 8)


def test_captured_activations_are_those_before_an_operation_in_place():
    model, x = convolutional(in_place=True), images()
    hooks = ActivationsAndGradients(model, [model.conv])
    hooks(x)
    assert hooks.activations[0].min() < 0


def test_layer_that_does_not_run():
    class WithSpare(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.spare = convolutional(), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.net(x)

    model = WithSpare()
    with pytest.raises(ValueError, match=r"spare \(Conv2d\) did not run"):
        GradCAM(model, [model.spare])(images())
    with pytest.raises(ValueError, match="not a module of the model"):
        GradCAM(model, [nn.Conv2d(3, 3, 1)])(images())


def test_score_that_does_not_depend_on_the_layer():
    class SideBranch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.side = convolutional(), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            self.side(x)
            return self.net(x)

    model = SideBranch()
    for layers in ([model.side], [model.side, model.net.last], [model.net.last, model.side]):
        with pytest.raises(ValueError, match=r"no gradient leads from the score to layer side \(Conv2d\)"):
            GradCAM(model, layers)(images())
    assert EigenCAM(model, [model.side])(images()).shape == (2, 12, 16)


def test_a_run_of_the_layer_that_the_score_does_not_depend_on():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, one, other):
            return self.net(one), self.net(other)

    model, x = Two().eval(), images()
    expected = GradCAM(model.net, "last")(x, 3)
    of_one = partial(GradCAM, model, "net.last", output_transform=itemgetter(0))
    for call_index in (0, None):
        found = of_one(call_index=call_index)((x, images(seed=2)), 3)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.warns(CamWarning, match="zero gradient"):
        assert not of_one(call_index=1)((x, images(seed=2)), 3).any()


def test_output_without_gradient():
    class Decided(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            return self.net(x).round().detach()

    model = Decided()
    with pytest.raises(ValueError, match=r"to layer net.last .* computed under no_grad"):
        GradCAM(model, [model.net.last])(images())


def test_layer_that_returns_a_tuple():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional()

        def forward(self, x):
            x = self.net[:4](x)
            return x, x.mean()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            return self.pair.net[4:](self.pair(x)[0])

    model, x = Model().eval(), images()
    expected = GradCAM(model.pair.net, model.pair.net.last)(x, 3)
    np.testing.assert_array_equal(GradCAM(model, model.pair)(x, 3), expected)
    np.testing.assert_array_equal(GradCAM(model, model.pair, lambda output: output[0])(x, 3), expected)


@pytest.mark.slow
@pytest.mark.except_for("RandomCAM", reason="draws new weights for each image and call")
def test_threads_share_one_cam_and_one_model(method):
    model, batches = convolutional().train(), [images(seed=seed) for seed in range(8)]
    cam = method(model, model.last)
    expected = [cam(x, aug_smooth=index % 2 == 0) for index, x in enumerate(batches)]
    wrong, done = [], []

    def work(index):
        maps = [cam(batches[index], aug_smooth=index % 2 == 0) for _ in range(5)]
        done.append(index)
        wrong.extend(index for found in maps if not np.allclose(found, expected[index], atol=1e-5))

    in_threads(work, len(batches))
    assert len(done) == len(batches)
    assert wrong == []
    assert all(module.training for module in model.modules())


def test_forwards_of_the_user_leave_nothing():
    model = convolutional()
    cam = GradCAM(model, model.last)
    model(images())
    assert vars(cam.activations_and_grads._thread) == {}


def test_unknown_layer_name():
    with pytest.raises(ValueError, match="has no layer 'lst'; did you mean last"):
        GradCAM(convolutional(), "lst")
    with pytest.raises(TypeError, match="dotted name, not 3"):
        GradCAM(convolutional(), [3])


def test_attention_kernels_are_as_before_whichever_thread_leaves_first():
    from torch.backends import cuda

    enabled = [cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.cudnn_sdp_enabled, cuda.math_sdp_enabled]
    before = [flag() for flag in enabled]
    first_in, second_in = threading.Event(), threading.Event()

    def outer():
        with twice_differentiable_attention:
            first_in.set()
            second_in.wait()

    thread = threading.Thread(target=outer)
    thread.start()
    first_in.wait()
    with twice_differentiable_attention:
        second_in.set()
        thread.join()
        assert [flag() for flag in enabled] == [False, False, False, True], "the other thread has left, this one not"
    assert [flag() for flag in enabled] == before


def test_shapley_cam_of_fused_attention():
    class Attending(Transformer):
        def forward(self, x):
            tokens = self.norm(self.patch(x).flatten(2).mT)
            query = tokens.unflatten(2, (2, 4)).transpose(1, 2)
            attended = nn.functional.scaled_dot_product_attention(query, query, query)
            return self.head(attended.transpose(1, 2).flatten(2).mean(1))

    model = Attending().eval()
    assert ShapleyCAM(model, model.norm, lambda t: t.mT.unflatten(2, (3, 4)))(images(), 3).max() == 1


@pytest.mark.usefixtures("own_garbage")
def test_recordings_are_freed_without_the_graph_of_the_next():
    """A tensor's hook that held the recording would hold the tensor: no collector sees through the graph."""
    model, x = convolutional(), images()
    hooks = ActivationsAndGradients(model, [model.first, model.last], None)
    recordings = []
    for _ in range(3):
        hooks(x)[:, 1].sum().backward()
        assert len(hooks.gradients) == 2
        recordings.append(weakref.ref(hooks._thread.recording))
    hooks.clear()
    gc.collect()
    assert [recording() for recording in recordings] == [None] * 3


def test_emptied_lists_leave_autograd_as_it_is():
    """The forward of a class for 1.x that empties the lists under no_grad: what the model runs next is trained."""

    class Own(EigenCAM):
        def forward(self, input_tensor, targets, eigen_smooth=False):
            with torch.no_grad():
                self.activations_and_grads.activations = []
                self.outputs = self.model(input_tensor)
            return self.aggregate_multi_layers(self.compute_cam_per_layer(input_tensor, targets, eigen_smooth))

    model, x = convolutional(), images()
    cam = Own(model, ["last"])
    np.testing.assert_allclose(cam(x), EigenCAM(model, "last")(x), atol=1e-6)
    assert len(cam.activations_and_grads.activations) == 0
    cam.activations_and_grads.activations = []
    assert model(x).requires_grad
    with torch.no_grad():
        model(x)
        assert not torch.is_grad_enabled()


def test_images_of_any_size_leave_no_hooks():
    model = convolutional()
    with GradCAM(model) as cam:
        for size in range(12, 18):
            assert cam(torch.randn(1, 3, size, size + 4)).shape == (1, size, size + 4)
            assert len(cam.target_layers[0]._forward_hooks) == 0

"""Maps in the autograd graph (`detach=False`), for a loss on what a network looks at."""

import functools
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from attentive import Attentive
from nets import Transformer, convolutional, images
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from pytorch_grad_cam import FinerCAM, GradCAM, LayerCAM, RandomCAM, RefineCAM, ScoreCAM
from pytorch_grad_cam.engine.maps import min_max, scaled_evidence

STEP = 1e-4


def loss_of_maps(cam, x):
    maps = cam(x, 3, as_tensor=True)
    torch.manual_seed(2)
    return (maps * torch.randn(maps.shape)).double().sum()


def check_by_differences(model, make_cam, x):
    """Along the gradient the loss changes by the gradient's length."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss_of_maps(make_cam(), x), parameters, materialize_grads=True)
    length = torch.stack([gradient.square().sum() for gradient in found]).sum().sqrt()
    losses = []
    for step in (STEP, -2 * STEP, STEP):
        with torch.no_grad():
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter += step * gradient / length
        losses.append(loss_of_maps(make_cam(), x).item())
    assert length > 0
    assert (losses[0] - losses[1]) / (2 * STEP) == pytest.approx(length.item(), rel=0.01)


def test_gradient_as_by_finite_differences(method):
    model, layers = convolutional(nonlinearity=nn.Softplus).double(), ["first", "last"]
    if not method.is_differentiable:
        with pytest.raises(ValueError, match=r"\(detach=False\): its maps cannot be differentiated, take GradCAM"):
            method(model, [] if method.__name__ in ("FullGrad", "RISE") else layers, detach=False)
        return
    options = {} if method is RefineCAM else {"relu": False, "normalize": None}
    options |= {"seed": 0} if method is RandomCAM else {}
    make_cam = functools.partial(method, model, layers, detach=False, check_place=False, **options)
    check_by_differences(model, make_cam, images().double())


def test_gradient_through_attention_as_by_finite_differences(attention_method):
    model = Attentive("fused").double()
    options = {"detach": False, "check_place": False, "relu": False, "normalize": None}
    check_by_differences(model, lambda: attention_method(model, **options), images().double())


class Gated(nn.Sequential):
    """What has no second derivative in PyTorch as it is: Hardsigmoid; a transformer has fused attention."""

    def __init__(self):
        torch.manual_seed(1)
        last, head = nn.Conv2d(3, 8, 3, 2), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        super().__init__(last, nn.Sequential(nn.Conv2d(8, 8, 3), nn.Hardsigmoid(), nn.Conv2d(8, 8, 1), nn.Tanh()), head)


@pytest.mark.parametrize(("made", "layer"), [(Transformer, "norm"), (Gated, "0")])
def test_kernels_without_a_second_derivative(made, layer):
    model = made().double().eval()
    options = {"detach": False, "check_place": False, "relu": False, "normalize": None}
    check_by_differences(model, lambda: GradCAM(model, layer, **options), images().double())


def literal_maps(model, x):
    """LayerCAM at `last`, without the library."""
    kept = []
    handle = model.last.register_forward_hook(lambda module, args, output: kept.append(output))
    scores = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[:, 3].float().sum(), kept, create_graph=True)
    evidence = (gradient.float().relu() * kept[0].float()).sum(1)
    return min_max(F.interpolate(scaled_evidence(evidence)[:, None], x.shape[2:], mode="bilinear")[:, 0])


def gradients(model, maps):
    return torch.autograd.grad(maps.square().mean(), list(model.parameters()), materialize_grads=True)


@pytest.mark.parametrize("within", [nullcontext(), torch.autocast("cpu", torch.bfloat16)], ids=["float32", "autocast"])
def test_gradient_as_that_of_the_formula(within):
    model, x = convolutional(), images()
    with within:
        found, expected = LayerCAM(model, "last", detach=False)(x, 3, as_tensor=True), literal_maps(model, x)
    torch.testing.assert_close(gradients(model, found), gradients(model, expected), rtol=1e-4, atol=1e-6)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = convolutional(), reentrant
        self.last = self.net.last

    def forward(self, x):
        for part in (self.net[:2], self.net[2:4], self.net[4:]):
            x = x if self.reentrant is None else x.requires_grad_(x.requires_grad or x.is_leaf)
            x = part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    expected, model = Checkpointed(None), Checkpointed(reentrant)
    of_each = []
    for net in (expected, model):
        maps = LayerCAM(net, "last", detach=False)(images(), 3, as_tensor=True)
        loss = net(images()).square().mean() + maps.square().mean()
        loss.backward()
        of_each.append({name: parameter.grad for name, parameter in net.named_parameters()})
    torch.testing.assert_close(*of_each)


@pytest.fixture
def one_process(tmp_path):
    init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    destroy_process_group()


def keep_bucket(kept, bucket):
    kept.append(bucket.buffer())
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("before", [True, False])
def test_distributed_data_parallel(before):
    """The map's forward is not the wrapper's: its part of the gradients is averaged with that of the scores all the
    same, whether it came before or after.
    """
    plain, inner, x = convolutional(), convolutional(), images()
    wrapped = DistributedDataParallel(inner)
    reduced = []
    wrapped.register_comm_hook(reduced, keep_bucket)
    for model in (plain, wrapped):
        with LayerCAM(model, "last", detach=False) as cam:
            losses = [lambda cam=cam: cam(x, 3, as_tensor=True).square().mean(), lambda m=model: m(x).square().mean()]
            sum(loss() for loss in losses[:: 1 if before else -1]).backward()
    of_each = [torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (plain, inner)]
    torch.testing.assert_close(*of_each)
    assert sum(buffer.numel() for buffer in reduced) == len(of_each[0])


def kept_by(work):
    """What the graph of a computation keeps, in bytes."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    return sum(size for size, _ in kept.values()), result


def test_memory_is_that_of_a_forward_in_training():
    """Of a late layer: what is behind it is small, and its backward is what the maps' graph has more."""
    blocks = [nn.Sequential(nn.Conv2d(c, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU()) for c in (3, 16, 16, 16)]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    x = torch.randn(4, 3, 32, 32)
    of_forward, _ = kept_by(lambda: model(x))
    of_maps, maps = kept_by(
        lambda: GradCAM(model, "3", relu=False, detach=False, check_place=False)(x, 3, as_tensor=True)
    )
    of_detached, _ = kept_by(lambda: GradCAM(model, "3", relu=False, check_place=False)(x, 3, as_tensor=True))
    assert of_detached < of_forward / 100
    assert maps.requires_grad
    assert of_forward < of_maps < 1.3 * of_forward


def test_a_network_learns_to_look_elsewhere():
    """In training mode, by a sum of two losses; the modes and the random state are those of the loop."""
    torch.manual_seed(0)
    model, x = convolutional().train(), images(count=8)
    model.tanh = nn.Sequential(nn.Tanh(), nn.Dropout(0.1))
    left = torch.zeros(x.shape[2:])
    left[:, : x.shape[3] // 2] = 1
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    cam = LayerCAM(model, "last", detach=False)
    shares = []
    for _ in range(30):
        maps = cam(x, 3, as_tensor=True)
        share = (maps * left).sum() / maps.sum()
        loss = F.cross_entropy(model(x), torch.full((8,), 3)) - share.log()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append(share.item())
        assert model.training
    assert shares[0] < 0.7
    assert shares[-1] > 0.9


def test_methods_around_a_method_refuse_what_their_base_refuses():
    with pytest.raises(ValueError, match=r"ScoreCAM\(detach=False\)"):
        FinerCAM(convolutional(), "last", base_method=ScoreCAM, detach=False)

"""On a CUDA device: the maps of the CPU, one wait a call, nothing left behind. They need such a device."""

import copy
import gc
import warnings

import numpy as np
import pytest
import torch
from nets import Transformer, convolutional, images, in_threads

from pytorch_grad_cam import (
    KPCA_CAM,
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    LayerCAM,
    PathCAM,
    RefineCAM,
    ScoreCAM,
    ShapleyCAM,
    explain,
)
from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
from pytorch_grad_cam.engine import chunks
from pytorch_grad_cam.engine.dominant_eigenvector import dominant_eigenvector
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

AS_RANDOM = "its weights are drawn by the device's own generator"


@pytest.fixture(autouse=True)
def whole_float32():
    """TF32 keeps ten bits of a factor: the maps would be compared at that accuracy."""
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


@pytest.mark.except_for("RandomCAM", reason=AS_RANDOM)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_maps_are_those_of_the_cpu(method, rank):
    model, x = convolutional(rank), images(rank)
    expected = method(copy.deepcopy(model), "last")(x, [3, 1])
    found = method(model.cuda(), "last")(x.cuda(), [3, 1], as_tensor=True)
    assert found.is_cuda
    np.testing.assert_allclose(found.cpu(), expected, atol=1e-3)


@pytest.mark.except_for("RandomCAM", reason=AS_RANDOM)
def test_maps_of_tokens_are_those_of_the_cpu(method):
    x = images(count=8)
    expected = method(Transformer().eval(), "norm")(x, 2)
    np.testing.assert_allclose(method(Transformer().eval().cuda(), "norm")(x.cuda(), 2), expected, atol=1e-3)


@pytest.mark.except_for("RandomCAM", reason=AS_RANDOM)
def test_maps_of_a_trained_network_are_those_of_the_cpu(method, digits_net):
    x = preprocess_scene(example_scene())
    with method(digits_net) as cam:
        expected = cam(x, 5)
    with method(copy.deepcopy(digits_net).cuda()) as cam:
        np.testing.assert_allclose(cam(x.cuda(), 5), expected, atol=1e-3)


@pytest.mark.except_for("RandomCAM", reason=AS_RANDOM)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(method, dtype):
    model, x = convolutional().cuda(), images().cuda()
    expected = method(model, "last")(x, [3, 1])
    found = method(copy.deepcopy(model).to(dtype), "last")(x.to(dtype), [3, 1])
    tolerance = {torch.float16: 0.02, torch.bfloat16: 0.2}[dtype]
    assert (np.abs(found - expected) > tolerance).mean() < 0.01


def waits_of(call) -> list[str]:
    """Where a call waits for the device, as torch's own debug mode says."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}" for each in seen if "synchroniz" in str(each.message)]


@pytest.mark.except_for(
    "AblationCAM",
    "ScoreCAM",
    "SESS",
    reason="they make the model run again for as many channels or windows as are worth it, which Python has to know",
)
@pytest.mark.except_for("FinerCAM", reason="its targets are the classes most like the asked one, which are read")
@pytest.mark.except_for("RandomCAM", reason="its weights are drawn on the host")
@pytest.mark.parametrize("targets", [3, [3, 1]], ids=str)
def test_one_wait_a_call(method, targets):
    """RefineCAM and PathCAM wait twice: they also look whether the maps of their layers have anything in common."""
    cam, x = method(convolutional().cuda(), "last"), images().cuda()
    cam(x, targets)
    assert len(waits_of(lambda: cam(x, targets, as_tensor=True))) == (2 if method in (RefineCAM, PathCAM) else 1)


@pytest.mark.parametrize("method_of_tokens", [GradCAM, LayerCAM, EigenCAM, EigenGradCAM, KPCA_CAM, ShapleyCAM])
def test_one_wait_a_call_behind_tokens(method_of_tokens):
    cam, x = method_of_tokens(Transformer().eval().cuda(), "norm"), images(count=8).cuda()
    cam(x)
    assert len(waits_of(lambda: cam(x, as_tensor=True))) == 1


def test_the_random_state_of_the_device_and_of_the_cpu_stays(method):
    cam, x = method(convolutional().cuda(), "last"), images().cuda()
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    cam(x, 3)
    if method.__name__ != "RandomCAM":
        assert torch.equal(before[0], torch.get_rng_state())
        assert torch.equal(before[1], torch.cuda.get_rng_state())


def test_memory_does_not_grow(method):
    cam, x = method(convolutional().cuda(), "last"), images().cuda()
    for _ in range(3):
        cam(x, 3)
    gc.collect()  # of what the first call found out
    in_use = []
    for _ in range(10):
        cam(x, 3)
        in_use.append(torch.cuda.memory_allocated())
    assert max(in_use[5:]) <= max(in_use[:5])  # what is in cycles, of second derivatives, is freed later


@pytest.mark.parametrize("method_in_threads", [GradCAM, EigenCAM, AblationCAM])
def test_threads_on_streams_of_their_own(method_in_threads):
    model, x = convolutional().cuda(), images(count=4).cuda()
    with method_in_threads(model, "last") as cam:
        expected = [cam(x, target, as_tensor=True) for target in range(4)]
        found = [None] * 4
        torch.cuda.synchronize()

        def explain(index):
            with torch.cuda.stream(torch.cuda.Stream()):
                found[index] = cam(x, index, as_tensor=True)
                torch.cuda.current_stream().synchronize()

        in_threads(explain, 4)
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, atol=1e-4, rtol=0)


def test_autocast():
    model, x = convolutional().cuda(), images().cuda()
    expected = GradCAM(model, "last")(x, 3)
    with torch.autocast("cuda"):
        found = GradCAM(model, "last")(x, 3)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_input_is_brought_to_the_model():
    model, x = convolutional().cuda(), images()
    with GradCAM(model, "last") as cam:
        np.testing.assert_array_equal(cam(x, 3), cam(x.cuda(), 3))


def test_fewer_at_a_time_when_memory_runs_out(monkeypatch):
    """The device really is out of memory for eight masked images of 50 MB and what the network makes of them."""
    model, x = convolutional().cuda(), torch.randn(1, 3, 2048, 2048).cuda()
    cam = ScoreCAM(model, "last")
    cam.batch_size = 1
    expected = cam(x, 3)
    torch.cuda.empty_cache()
    tries, unless_out_of_memory = [], chunks._unless_out_of_memory

    def noted(run, start, stop):
        result = unless_out_of_memory(run, start, stop)
        tries.append((stop - start, result is not None))
        return result

    monkeypatch.setattr(chunks, "_unless_out_of_memory", noted)
    ballast = torch.empty(torch.cuda.mem_get_info()[0] - 600 * 2**20, dtype=torch.uint8, device="cuda")
    cam.batch_size = 8
    maps = cam(x, 3)
    assert ballast.is_cuda
    assert tries[0] == (8, False)
    assert tries[-1][1]
    np.testing.assert_allclose(maps, expected, atol=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(49, 2048), (196, 384), (3136, 256)])
def test_dominant_eigenvectors_are_those_of_float64(rows, columns):
    torch.manual_seed(0)
    values = torch.randn(2, rows, columns).relu()
    kernel = values @ values.mT
    exact = torch.linalg.eigh(kernel.double()).eigenvectors[..., -1]
    found = dominant_eigenvector(kernel.cuda()).cpu().double()
    alignment = (found * exact).sum(-1).abs() / found.norm(dim=-1)
    torch.testing.assert_close(alignment, torch.ones_like(alignment), atol=1e-4, rtol=0)


def test_road_fills_in_what_the_direct_solution_does():
    generator = torch.Generator().manual_seed(0)
    x, kept = torch.rand(2, 3, 64, 64, generator=generator), torch.rand(2, 64, 64, generator=generator) > 0.5
    imputer = NoisyLinearImputer(noise=0)
    found = imputer(x.cuda(), kept.float().cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), imputer(x, kept.float()), atol=1e-4, rtol=0)


def test_road_is_that_of_the_cpu():
    model, x = convolutional(), images()
    maps = torch.rand(2, *x.shape[2:], generator=torch.Generator().manual_seed(0))
    expected = ROADCombined([20, 80])(x, maps.numpy(), [3, 1], model)
    found = ROADCombined([20, 80])(x.cuda(), maps.cuda(), [3, 1], model.cuda())
    np.testing.assert_allclose(torch.as_tensor(found).cpu(), expected, atol=0.02)  # noise of another generator


def test_a_stream_of_explanations_is_that_of_the_cpu(tmp_path):
    """From pinned memory, with the pictures on the host."""
    from PIL import Image

    for index in range(5):
        Image.fromarray(np.roll(example_scene(), index, axis=1)).save(tmp_path / f"{index}.png")
    model = load_digits_net()
    expected = list(explain(model, tmp_path, targets=[5, 7], batch_size=2))
    found = list(explain(model.cuda(), tmp_path, targets=[5, 7], batch_size=2))
    for on_device, on_host in zip(found, expected, strict=True):
        np.testing.assert_allclose(on_device.maps, on_host.maps, atol=1e-3)
        np.testing.assert_allclose(on_device.probabilities, on_host.probabilities, atol=1e-5)
        np.testing.assert_array_equal(on_device.picture, on_host.picture)

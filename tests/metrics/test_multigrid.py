"""Missing pixels filled in on the images' device: as SciPy fills them in, and without waiting for the device."""

import numpy as np
import pytest
import torch
from nets import convolutional
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import spsolve
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_grad_cam.metrics import road
from pytorch_grad_cam.metrics.multigrid import _prolonged, _restricted, interpolate, is_symmetric
from pytorch_grad_cam.metrics.perturbation_confidence import (
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined, ROADMostRelevantFirst, neighbors_weights

aten = torch.ops.aten
FAR_NEIGHBOURS = [((0, 2), 0.3), ((0, -2), 0.3), ((1, 0), 0.1), ((-1, 0), 0.1), ((0, 1), 0.1), ((0, -1), 0.1)]
STEEP = [((1, 0), 1.0), ((-1, 0), 1.0), ((0, 1), 0.05), ((0, -1), 0.05)]
WAITS = {
    aten.nonzero.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.item.default,
}


class Operations(TorchDispatchMode):
    """Counts what a CUDA device would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.numbers_read = 0
        self.waits = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.numbers_read += function is aten._local_scalar_dense.default
        if function in WAITS or (function.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )):  # fmt: skip
            self.waits.append(function)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def on_device(monkeypatch):
    """The CPU is treated as a CUDA device is."""
    monkeypatch.setattr(road, "_stays_on_device", lambda images, weighting: is_symmetric(weighting))


def images_of(count, size, seed=0):
    return 6 * torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed)) - 3


def solved_directly(images, missing, weighting):
    filled = images.double().clone()
    for image, where in zip(filled, missing, strict=True):
        system, right = NoisyLinearImputer.setup_sparse_system((~where).numpy(), image.numpy(), weighting)
        image[:, where] = torch.from_numpy(spsolve(system, right).T.reshape(len(image), -1))
    return filled


def holes(size):
    """Missing pixels of many kinds: (N, H, W)."""
    numbers = np.random.default_rng(0)
    smooth, scattered = gaussian_filter(numbers.random(size), max(size) / 9), numbers.random(size)
    masks = [values < np.percentile(values, share) for values in (smooth, scattered) for share in (2, 10, 50, 90)]
    border, single, none, block = (np.zeros(size, dtype=bool) for _ in range(4))
    border[:, 0] = single[size[0] // 3, -1] = none[:] = block[:] = True
    block[1:-1, 2:-3] = False
    return torch.from_numpy(~np.stack([*masks, border, single, none, block]))


@pytest.mark.slow
@pytest.mark.parametrize("weighting", [neighbors_weights, FAR_NEIGHBOURS, STEEP])
@pytest.mark.parametrize("size", [(32, 40), (27, 60), (3, 50), (50, 2), (1, 40), (2, 2)])
def test_as_solved_directly(size, weighting):
    missing = holes(size)
    missing = missing[~missing.flatten(1).all(1)]
    images = images_of(len(missing), size)
    with Operations() as operations:
        found = interpolate(images, missing, weighting)
    torch.testing.assert_close(found, solved_directly(images, missing, weighting), rtol=0, atol=1e-4)
    assert operations.numbers_read <= (6 if weighting is STEEP else 4), "16 iterations, or 24"


@pytest.mark.slow
def test_large_images_take_few_iterations():
    missing = holes((224, 224))[[1]]
    images = images_of(len(missing), (224, 224))
    with Operations() as operations:
        found = interpolate(images, missing, neighbors_weights)
    torch.testing.assert_close(found, solved_directly(images, missing, neighbors_weights), rtol=0, atol=1e-4)
    assert operations.numbers_read <= 3, "12 iterations"


def test_the_accuracy_is_relative_to_the_values_of_each_image():
    """A hard mask of small values beside an easy one of large values."""
    missing = holes((40, 40))[[0, 7]]
    images = images_of(2, (40, 40))
    factors = torch.tensor([1e-3, 1e4]).reshape(2, 1, 1, 1)
    found = interpolate(factors * images, missing, neighbors_weights) / factors
    torch.testing.assert_close(found, solved_directly(images, missing, neighbors_weights), rtol=0, atol=1e-4)


def test_a_batch_is_its_images_one_by_one():
    missing = holes((30, 41))
    images = images_of(len(missing), (30, 41))
    singles = [interpolate(images[i : i + 1], missing[i : i + 1], neighbors_weights) for i in range(len(images))]
    torch.testing.assert_close(interpolate(images, missing, neighbors_weights), torch.cat(singles), rtol=0, atol=1e-4)


def test_what_stood_in_missing_pixels_does_not_count():
    missing = holes((20, 20))
    images = images_of(len(missing), (20, 20))
    spoilt = torch.where(missing[:, None], torch.nan, images)
    assert torch.equal(interpolate(images, missing, STEEP), interpolate(spoilt, missing, STEEP))


@pytest.mark.parametrize("size", [(7, 8), (6, 5), (1, 2), (3, 1)])
def test_restriction_is_the_transpose_of_bilinear_interpolation(size):
    coarse = torch.rand(2, 3, size[0] // 2 + 1, size[1] // 2 + 1, dtype=torch.float64)
    fine = torch.rand(2, 3, *size, dtype=torch.float64)
    prolonged = _prolonged(coarse, *size)
    torch.testing.assert_close((_restricted(fine) * coarse).sum((2, 3)), (fine * prolonged).sum((2, 3)))
    assert torch.equal(prolonged[:, :, ::2, ::2], coarse[:, :, : (size[0] + 1) // 2, : (size[1] + 1) // 2])
    assert (_prolonged(torch.ones_like(coarse), *size) == 1).all()


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        (neighbors_weights, True),
        (FAR_NEIGHBOURS, True),
        ([((0, 1), 1.0)], False),
        ([((0, 1), 1.0), ((0, -1), 0.9)], False),
        ([((0, 1), 1.0), ((1, 0), 1.0)], False),
        ([((0, 1), 1.0), ((0, -1), 0.4), ((0, -1), 0.6)], True),
        ([((0, 1), -1.0), ((0, -1), -1.0)], False),
        ([((0, 1), 1.0), ((0, -1), 1.0), ((2, 2), 0.0)], True),
    ],
)
def test_symmetry(weighting, expected):
    assert is_symmetric(weighting) == expected


def test_only_symmetric_systems_of_cuda_images_stay_on_the_device():
    images = images_of(1, (4, 4))
    assert not road._stays_on_device(images, neighbors_weights)
    on_cuda = type("Images", (), {"is_cuda": True})()
    assert road._stays_on_device(on_cuda, neighbors_weights)
    assert not road._stays_on_device(on_cuda, [((0, 1), 1.0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_imputer_fills_in_the_same_on_the_device(monkeypatch, dtype):
    kept = (~holes((20, 26))).float()
    images = images_of(len(kept), (20, 26)).to(dtype)
    imputer = NoisyLinearImputer(noise=0)
    singles = torch.stack([imputer(image, mask) for image, mask in zip(images, kept, strict=True)])
    assert torch.equal(imputer(images, kept), singles)
    monkeypatch.setattr(road, "_stays_on_device", lambda images, weighting: True)
    found = imputer(images, kept)
    assert found.dtype == dtype
    torch.testing.assert_close(found, singles, rtol=0, atol=1e-4 if dtype != torch.bfloat16 else 0.02)
    torch.testing.assert_close(imputer(images[0], kept[0]), found[0])
    with pytest.raises(ValueError, match="keeps no pixel"):
        imputer(images, torch.cat([kept[1:], torch.zeros_like(kept[:1])]))


def test_the_devices_noise_is_seeded_and_only_on_missing_pixels(on_device):
    kept = torch.ones(2, 40, 50)
    kept[0, 4:30] = kept[1, :, 10:40] = 0
    images = images_of(2, (40, 50))
    clean, noisy = NoisyLinearImputer(noise=0)(images, kept), NoisyLinearImputer(noise=0.5)(images, kept)
    state = torch.get_rng_state()
    assert torch.equal(noisy, NoisyLinearImputer(noise=0.5)(images, kept))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(noisy, NoisyLinearImputer(noise=0.5, seed=1)(images, kept))
    torch.testing.assert_close(noisy[1], NoisyLinearImputer(noise=0.5)(images[1], kept[1]), rtol=0, atol=1e-4)
    noise = noisy - clean
    for image in range(2):
        assert (noise[image][:, kept[image] == 1] == 0).all()
        assert noise[image][:, kept[image] == 0].std() == pytest.approx(0.5, rel=0.05)


def test_the_device_is_waited_for_only_to_test_for_an_end(on_device):
    images, maps = images_of(2, (48, 48)), torch.rand(2, 48, 48)
    kept = torch.cat([RemoveMostRelevantFirst(p, NoisyLinearImputer()).kept(maps) for p in (10, 50)])
    with Operations() as operations:
        NoisyLinearImputer()(images.repeat(2, 1, 1, 1), kept)
    assert not operations.waits
    assert 1 < operations.numbers_read <= 1 + 3, "whether a mask keeps no pixel, and every four iterations"
    with Operations() as operations:
        RemoveLeastRelevantFirst(30, lambda image, mask: mask).kept(maps)
    assert not operations.waits
    assert operations.numbers_read == 0


def test_road_on_the_device(monkeypatch):
    x, cams, model = images_of(2, (12, 16)), torch.rand(2, 12, 16), convolutional()
    percentiles = [20, 50, 90, "auto"]
    noiseless = [
        AveragerAcrossThresholds(
            lambda p, remove=remove: PerturbationConfidenceMetric(remove(p, NoisyLinearImputer(noise=0))), percentiles
        )
        for remove in (RemoveMostRelevantFirst, RemoveLeastRelevantFirst)
    ]
    metrics = [*noiseless, ROADCombined(percentiles), ROADMostRelevantFirst(30)]
    expected = [metric(x, cams, [3, 1], model) for metric in metrics]
    monkeypatch.setattr(road, "_stays_on_device", lambda images, weighting: True)
    for metric, on_host, tolerance in zip(metrics, expected, [1e-5, 1e-5, 0.01, 0.01], strict=True):
        np.testing.assert_allclose(metric(x, cams, [3, 1], model), on_host, atol=tolerance)


class Recording(NoisyLinearImputer):
    """Keeps the shapes of the images that the solver got."""

    shapes: list = []  # noqa: RUF012

    def _filled_on_host(self, images, missing):
        self.shapes.append(tuple(images.shape))
        return super()._filled_on_host(images, missing)


class OneByOne(Recording):
    """As classes of 1.5 are: it knows only single images."""

    def __call__(self, img, mask):
        assert img.ndim == 3
        assert mask.ndim == 2
        return super().__call__(img, mask)


@pytest.mark.parametrize(
    ("imputer_of", "shapes"),
    [
        (lambda percentile: Recording(), [(4, 3, 12, 16)]),
        (lambda percentile: OneByOne(), 4 * [(1, 3, 12, 16)]),
        (lambda percentile: Recording(seed=percentile), 4 * [(1, 3, 12, 16)]),
        (lambda percentile: lambda image, mask: Recording()(image, mask), 4 * [(1, 3, 12, 16)]),
    ],
)
def test_equal_imputers_are_called_once(imputer_of, shapes):
    Recording.shapes.clear()
    x, cams = images_of(2, (12, 16)), torch.rand(2, 12, 16)
    metric = AveragerAcrossThresholds(
        lambda p: PerturbationConfidenceMetric(RemoveMostRelevantFirst(p, imputer_of(p))), [20, 80]
    )
    found = metric(x, cams, [3, 1], convolutional())
    assert Recording.shapes == shapes
    expected = [
        PerturbationConfidenceMetric(lambda image, cam, p=p: RemoveMostRelevantFirst(p, imputer_of(p))(image, cam))
        for p in (20, 80)
    ]
    singly = [metric(x, cams, [3, 1], convolutional()) for metric in expected]
    np.testing.assert_allclose(found, np.mean(singly, axis=0), atol=1e-6)


def test_a_removal_of_ones_own_is_used():
    class Inverted(RemoveMostRelevantFirst):
        def __call__(self, input_tensor, mask):
            return -super().__call__(input_tensor, mask)

    x, cams, model = images_of(2, (12, 16)), torch.rand(2, 12, 16), convolutional()
    metric = PerturbationConfidenceMetric(Inverted(100, NoisyLinearImputer()))
    expected = (model(-x) - model(x))[[0, 1], [3, 1]].detach()
    np.testing.assert_allclose(metric(x, cams, [3, 1], model), expected, atol=1e-6)

import functools

import numpy as np
import pytest
import torch
from nets import convolutional
from torch import nn

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.arcc import ARCC, Coherency, Complexity, batch_pearson_coherency
from pytorch_grad_cam.metrics.cam_mult_image import (
    CamMultImageConfidenceChange,
    DropInConfidence,
    IncreaseInConfidence,
)
from pytorch_grad_cam.metrics.perturbation_confidence import (
    AveragerAcrossThresholds,
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import (
    NoisyLinearImputer,
    ROADCombined,
    ROADLeastRelevantFirst,
    ROADLeastRelevantFirstAverage,
    ROADMostRelevantFirst,
    ROADMostRelevantFirstAverage,
    neighbors_weights,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget

SIZE = (12, 16)
TARGETS = [ClassifierOutputTarget(3), ClassifierOutputTarget(1)]


@pytest.fixture
def x():
    torch.manual_seed(2)
    return torch.randn(2, 3, *SIZE)


@pytest.fixture
def cams():
    return np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)


class Counting(nn.Module):
    """Keeps the sizes of the batches that it got."""

    def __init__(self):
        super().__init__()
        self.net = convolutional()
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        return self.net(x)


def literally_imputed(image, mask, weighting):
    """Each missing pixel is the weighted mean of its neighbours inside the image: one dense system per channel."""
    missing = [tuple(p) for p in np.argwhere(mask == 0)]
    filled = image.astype(np.float64).copy()
    for channel in range(len(image)):
        matrix, right = np.zeros((len(missing), len(missing))), np.zeros(len(missing))
        for row, (i, j) in enumerate(missing):
            for (down, across), weight in weighting:
                a, b = i + down, j + across
                if 0 <= a < mask.shape[0] and 0 <= b < mask.shape[1]:
                    matrix[row, row] += weight
                    if mask[a, b] == 0:
                        matrix[row, missing.index((a, b))] -= weight
                    else:
                        right[row] += weight * image[channel, a, b]
        for p, value in zip(missing, np.linalg.solve(matrix, right), strict=True):
            filled[channel][p] = value
    return filled


FAR_NEIGHBOURS = [((0, 2), 0.3), ((0, -2), 0.3), ((1, 0), 0.1), ((-1, 0), 0.1), ((0, 1), 0.1), ((0, -1), 0.1)]
NEIGHBOURS_ABOVE = [((-3, 0), 0.6), ((1, 0), 0.2), ((0, 1), 0.2)]
NEIGHBOURS_TO_THE_LEFT = [((0, -3), 0.6), ((1, 0), 0.2), ((0, 1), 0.2)]


@pytest.mark.parametrize("weighting", [neighbors_weights, FAR_NEIGHBOURS, NEIGHBOURS_ABOVE, NEIGHBOURS_TO_THE_LEFT])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_imputer_solves_the_papers_system(x, weighting, share):
    mask = (np.random.default_rng(1).random(SIZE) > share).astype(np.float32)
    mask[0, 0] = mask[-1, -1] = 0
    found = NoisyLinearImputer(noise=0, weighting=weighting)(x[0], torch.from_numpy(mask))
    assert found.dtype == x.dtype
    np.testing.assert_allclose(found, literally_imputed(x[0].numpy(), mask, weighting), atol=1e-5)


def test_imputer_noise_is_seeded_and_only_on_missing_pixels(x):
    mask = torch.ones(SIZE)
    mask[3:9, 4:12] = 0
    before = x[0].clone()
    clean = NoisyLinearImputer(noise=0)(x[0], mask)
    noisy = NoisyLinearImputer(noise=0.5)(x[0], mask)
    torch.testing.assert_close(noisy, NoisyLinearImputer(noise=0.5)(x[0], mask), rtol=0, atol=0)
    assert not torch.equal(noisy, NoisyLinearImputer(noise=0.5, seed=1)(x[0], mask))
    assert torch.equal(noisy[:, mask == 1], x[0][:, mask == 1])
    noise = 0.5 * torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((noisy - clean)[:, mask == 0], noise)
    assert torch.equal(x[0], before)


def test_imputer_at_its_limits(x):
    assert torch.equal(NoisyLinearImputer()(x[0], torch.ones(SIZE)), x[0])
    with pytest.raises(ValueError, match="keeps no pixel"):
        NoisyLinearImputer()(x[0], torch.zeros(SIZE))


def kept(perturbation, percentile, cam):
    """Which pixels a perturbation keeps: what it gives to its imputer."""
    return perturbation(percentile, lambda image, mask: mask)(torch.zeros(3, *cam.shape), cam)


@pytest.mark.parametrize("percentile", [0, 10, 50, 80, 90, 100])
@pytest.mark.parametrize("values", ["distinct", "zeros and a block", "constant"])
def test_exactly_the_asked_share_is_kept(percentile, values):
    cam = torch.from_numpy(np.random.default_rng(0).permutation(400).reshape(20, 20) / 400).float()
    if values != "distinct":
        cam = torch.zeros(20, 20)
        cam[4:8, 4:8] = 0.0 if values == "constant" else 1.0
    most, least = (kept(p, percentile, cam) for p in (RemoveMostRelevantFirst, RemoveLeastRelevantFirst))
    assert most.sum() == least.sum() == 4 * percentile
    if most.any() and not most.all():
        assert cam[most == 1].max() <= cam[most == 0].min()
        assert cam[least == 1].min() >= cam[least == 0].max()


@pytest.mark.parametrize("percentile", [7, 20, 33.3, 80, 99.5])
def test_distinct_values_are_cut_at_numpys_percentile(percentile):
    cam = torch.from_numpy(np.random.default_rng(0).random((9, 13)).astype(np.float32))
    expected = cam.numpy() < np.percentile(cam.numpy(), percentile)
    np.testing.assert_array_equal(kept(RemoveMostRelevantFirst, percentile, cam), expected)


def test_auto_removes_what_is_above_otsus_threshold():
    cam = torch.zeros(8, 8)
    cam[:, :3] = 0.9
    most, least = (kept(p, "auto", cam) for p in (RemoveMostRelevantFirst, RemoveLeastRelevantFirst))
    np.testing.assert_array_equal(most, cam == 0)
    np.testing.assert_array_equal(least, cam > 0)


def test_otsus_threshold_is_that_of_256_levels():
    """Values of two neighbouring levels are told apart."""
    cam = torch.tensor([[100.9, 101.1], [100.9, 100.9]]) / 255
    assert kept(RemoveMostRelevantFirst, "auto", cam).tolist() == [[1, 0], [1, 1]]


def test_score_change(x, cams):
    model = convolutional()
    metric = PerturbationConfidenceMetric(lambda image, cam: image + cam)
    changed = x + torch.from_numpy(cams)[:, None]
    before, after = model(x)[[0, 1], [3, 1]], model(changed)[[0, 1], [3, 1]]
    scores, shown = metric(x, cams, TARGETS, model, return_visualization=True)
    np.testing.assert_allclose(scores, (after - before).detach(), atol=1e-6)
    torch.testing.assert_close(shown, changed)
    plain = metric(x, torch.from_numpy(cams), [3, 1], model, return_diff=False)
    np.testing.assert_allclose(plain, after.detach(), atol=1e-6)
    assert plain.dtype == np.float32


def test_classes_that_are_not_given_are_those_of_the_unchanged_images(x, cams):
    class BrightOrDark(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], dim=1)

    metric = PerturbationConfidenceMetric(lambda image, cam: -image)
    np.testing.assert_allclose(metric(x, cams, None, BrightOrDark()), -2 * x.mean((1, 2, 3)).abs())


def test_multiplied_images(x, cams):
    model = convolutional()
    masked = x * torch.from_numpy(cams)[:, None]
    change = (model(masked).softmax(1) - model(x).softmax(1)).detach()
    rises, falls = int(change[0].argmax()), int(change[1].argmin())
    targets = [ClassifierOutputSoftmaxTarget(rises), ClassifierOutputSoftmaxTarget(falls)]
    expected = np.array([change[0, rises], change[1, falls]])
    assert expected[0] > 0 > expected[1]
    np.testing.assert_allclose(CamMultImageConfidenceChange()(x, cams, targets, model), expected, atol=1e-6)
    np.testing.assert_allclose(DropInConfidence()(x, cams, targets, model), np.maximum(-expected, 0), atol=1e-6)
    np.testing.assert_array_equal(IncreaseInConfidence()(x, cams, targets, model), expected > 0)
    drop, shown = DropInConfidence()(x, cams, targets, model, return_visualization=True)
    np.testing.assert_allclose(drop, np.maximum(-expected, 0), atol=1e-6)
    torch.testing.assert_close(shown, masked)


@pytest.mark.parametrize("metric", [CamMultImageConfidenceChange(), DropInConfidence(), IncreaseInConfidence()])
def test_scores_of_the_multiplied_images(x, cams, metric):
    model = convolutional()
    scores = metric(x, cams, TARGETS, model, return_diff=False)
    np.testing.assert_allclose(scores, model(x * torch.from_numpy(cams)[:, None])[[0, 1], [3, 1]].detach(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("metric", [DropInConfidence(), ROADCombined([50])])
def test_images_of_another_precision(x, cams, metric, dtype):
    found = metric(x.to(dtype), cams, TARGETS, convolutional().to(dtype))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, metric(x, cams, TARGETS, convolutional()), atol=0.05)


def test_road_is_the_metric_at_its_percentile(x, cams):
    model = convolutional()
    for metric, remove in (
        (ROADMostRelevantFirst(30), RemoveMostRelevantFirst),
        (ROADLeastRelevantFirst(30), RemoveLeastRelevantFirst),
    ):
        images = [remove(30, NoisyLinearImputer())(i, torch.from_numpy(c)) for i, c in zip(x, cams, strict=True)]
        expected = (model(torch.stack(images)) - model(x))[[0, 1], [3, 1]].detach()
        np.testing.assert_allclose(metric(x, cams, TARGETS, model), expected, atol=1e-5)


def test_road_averages(x, cams):
    model, percentiles = convolutional(), [20, 60, 90]
    most = [ROADMostRelevantFirst(p)(x, cams, TARGETS, model) for p in percentiles]
    least = [ROADLeastRelevantFirst(p)(x, cams, TARGETS, model) for p in percentiles]
    most_average = ROADMostRelevantFirstAverage(percentiles)(x, cams, TARGETS, model)
    least_average = ROADLeastRelevantFirstAverage(percentiles)(x, cams, TARGETS, model)
    np.testing.assert_allclose(most_average, np.mean(most, axis=0), atol=1e-5)
    np.testing.assert_allclose(least_average, np.mean(least, axis=0), atol=1e-5)
    combined = ROADCombined(percentiles)(x, cams, TARGETS, model)
    np.testing.assert_allclose(combined, (least_average - most_average) / 2, atol=1e-5)
    assert combined.shape == (2,)
    assert combined.dtype == np.float32


def test_percentiles_share_batches_and_the_clean_score_is_computed_once(x, cams):
    model = Counting()
    ROADCombined([10, 30, 50, 70])(x, cams, TARGETS, model)
    assert model.batches == [2, 8, 8]
    model.batches.clear()
    AveragerAcrossThresholds(ROADMostRelevantFirst, [20, 80])(x, cams, TARGETS, model)
    assert model.batches == [2, 4]


@pytest.mark.slow
def test_a_better_map_has_a_higher_road(digits_net):
    from pytorch_grad_cam.demo import example_scene, preprocess_scene

    scene = preprocess_scene(example_scene())
    good = GradCAM(digits_net, "layer4")(scene, 5)
    noise = np.random.default_rng(0).random(good.shape).astype(np.float32)
    road = ROADCombined()
    assert (
        road(scene, good, [5], digits_net)
        > road(scene, noise, [5], digits_net)
        > road(scene, 1 - good, [5], digits_net)
    )


def test_the_model_is_left_as_it_was(x, cams):
    model = convolutional().train()
    state = torch.get_rng_state()
    expected = ROADCombined([50])(x, cams, TARGETS, convolutional())
    np.testing.assert_array_equal(ROADCombined([50])(x, cams, TARGETS, model), expected)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_complexity(cams):
    np.testing.assert_allclose(Complexity()(cams), [np.mean(cam) for cam in cams], rtol=1e-6)
    assert Complexity()(np.zeros((1, 4, 4))) == 0
    assert Complexity()(np.ones((1, 4, 4))) == 1


def test_pearson(cams):
    other = np.random.default_rng(5).random(cams.shape)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(cams, other, strict=True)]
    np.testing.assert_allclose(batch_pearson_coherency(cams, other), expected, rtol=1e-6)
    np.testing.assert_allclose(batch_pearson_coherency(cams * 1e-9, -cams), -1, rtol=1e-5)
    assert (batch_pearson_coherency(cams, np.ones_like(cams)) == 0).all()


def test_arcc_is_the_harmonic_mean(x):
    model = convolutional()
    with GradCAM(model, "last") as cam:
        cams = cam(x, TARGETS)
        found = ARCC(cam, road_percentiles=[30, 70])(x, cams, TARGETS, model)
        again = cam(x * torch.from_numpy(cams)[:, None], TARGETS)
        coherency = Coherency()(x, cams, TARGETS, model, cam)
    expected_coherency = [(np.corrcoef(a.ravel(), b.ravel())[0, 1] + 1) / 2 for a, b in zip(again, cams, strict=True)]
    np.testing.assert_allclose(coherency, expected_coherency, rtol=1e-5)
    road = np.clip(2 * ROADCombined([30, 70])(x, cams, TARGETS, model), 1e-8, 1)
    expected = 3 / (1 / coherency + 1 / (1 - Complexity()(cams)) + 1 / road)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (road > 1e-3).any(), "or the mean is zero whatever the rest"


@pytest.mark.parametrize("metric", [DropInConfidence(), ROADMostRelevantFirst(50), ROADCombined([50])])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cams: cams[:1], r"maps have shape \(1, 12, 16\), expected \(2, 12, 16\) for images \(2, 3, 12, 16\)"),
        (lambda cams: cams[0], r"maps have shape \(12, 16\)"),
        (lambda cams: cams[:, ::2, ::2], r"maps have shape \(2, 6, 8\)"),
        (lambda cams: np.where(cams == cams.max(), np.nan, cams), "maps are not finite"),
    ],
)
def test_maps_that_do_not_fit_are_refused(x, cams, metric, change, message):
    with pytest.raises(ValueError, match=message):
        metric(x, change(cams), TARGETS, convolutional())


def test_maps_with_a_channel_axis_will_do(x, cams):
    expected = DropInConfidence()(x, cams, TARGETS, convolutional())
    np.testing.assert_array_equal(DropInConfidence()(x, cams[:, None], TARGETS, convolutional()), expected)
    model = convolutional()
    with GradCAM(model, "last") as cam:
        for metric in (ARCC(cam, [50]), functools.partial(Coherency(), base_method=cam)):
            expected = metric(x, cams, TARGETS, model=model)
            np.testing.assert_array_equal(metric(x, cams[:, None], TARGETS, model=model), expected)


@pytest.mark.parametrize("metric", [ROADCombined, ROADMostRelevantFirstAverage])
def test_no_percentiles_are_refused(metric):
    with pytest.raises(ValueError, match=r"percentiles is \[\], expected at least one"):
        metric([])


@pytest.mark.parametrize("percentile", [-5, 150])
def test_percentiles_out_of_range_are_refused(percentile):
    with pytest.raises(ValueError, match=rf"percentile is {percentile}, expected 'auto' or a number in \[0, 100\]"):
        ROADMostRelevantFirst(percentile)


def test_an_average_is_of_the_metrics_own_results(x, cams):
    class Negative(ROADMostRelevantFirst):
        def __call__(self, *args, **kwargs):
            return -super().__call__(*args, **kwargs)

    model = convolutional()
    plain = AveragerAcrossThresholds(ROADMostRelevantFirst, [20, 80])(x, cams, TARGETS, model)
    negative = AveragerAcrossThresholds(Negative, [20, 80])(x, cams, TARGETS, model)
    np.testing.assert_allclose(negative, -plain, atol=1e-6)
    both = AveragerAcrossThresholds(
        lambda percentile: (Negative if percentile == 80 else ROADMostRelevantFirst)(50), [20, 80]
    )
    np.testing.assert_allclose(both(x, cams, TARGETS, model), 0, atol=1e-6)
    drop = AveragerAcrossThresholds(lambda percentile: DropInConfidence(), [20, 80])(x, cams, TARGETS, model)
    np.testing.assert_allclose(drop, DropInConfidence()(x, cams, TARGETS, model), atol=1e-6)


def test_coherency_compares_maps_of_one_class(x):
    class BrightOrDark(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            pooled = self.conv(x).relu().mean((1, 2, 3))
            return torch.stack([pooled, 0.6 * pooled.detach().max() - pooled], dim=1)

    torch.manual_seed(0)
    model = BrightOrDark()
    cam = GradCAM(model, "conv")
    category = model(x).argmax(1)
    maps = cam(x)
    found = Coherency()(x, torch.from_numpy(maps), None, model, cam)
    np.testing.assert_allclose(found, Coherency()(x, maps, category, model, cam), atol=1e-6)


def test_scores_are_found_in_outputs(x, cams):
    class InDict(Counting):
        def forward(self, x):
            return {"logits": super().forward(x), "features": x}

    metric = ROADMostRelevantFirst(50)
    np.testing.assert_array_equal(metric(x, cams, TARGETS, InDict()), metric(x, cams, TARGETS, convolutional()))
    np.testing.assert_array_equal(metric(x, cams, None, InDict()), metric(x, cams, None, convolutional()))

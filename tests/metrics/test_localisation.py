"""Maps against boxes and masks: literal loops, the ceiling, chance, what changes nothing, and what is refused."""

import numpy as np
import pytest
import torch
from nets import convolutional

from pytorch_grad_cam import RandomCAM
from pytorch_grad_cam.metrics.box_accuracy import MaxBoxAccV2
from pytorch_grad_cam.metrics.ground_truth import boxes_in, masks_of
from pytorch_grad_cam.metrics.localisation import energy_pointing_game, iou, pointing_game, top_k_intersection

SIZE = (9, 11)
SEEDS = range(20)
FOR_EVERY_METRIC = {
    "pointing_game": pointing_game,
    "pointing_game within 2": lambda maps, truth: pointing_game(maps, truth, tolerance=2),
    "energy": energy_pointing_game,
    "top_k of the object": top_k_intersection,
    "top_k of 7": lambda maps, truth: top_k_intersection(maps, truth, k=7),
    "iou": iou,
    "MaxBoxAccV2": MaxBoxAccV2({0.3: 0.5, 0.5: 0.5, 0.7: 0.5}),
}
every_metric = pytest.mark.parametrize("name", FOR_EVERY_METRIC)


def cases(seed, count=3):
    """Maps, some of their values equal, and a box in each image."""
    rng = np.random.default_rng(seed)
    maps = rng.random((count, *SIZE)).astype(np.float32)
    if seed % 2:
        maps = np.round(maps, 1)
    left, top = rng.integers(0, SIZE[1] - 4, count), rng.integers(0, SIZE[0] - 4, count)
    width, height = rng.integers(1, 5, count), rng.integers(1, 5, count)
    return maps, np.stack([left, top, left + width, top + height], axis=1)


def filled(box, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def pixels(size=SIZE):
    return [(i, j) for i in range(size[0]) for j in range(size[1])]


def literally_pointed(cam, mask, tolerance):
    highest = [p for p in pixels() if cam[p] == cam.max()]
    within = [
        any(mask[q] and (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= tolerance**2 for q in pixels()) for p in highest
    ]
    return sum(within) / len(within)


def literal_energy(cam, mask):
    return sum(float(cam[p]) for p in pixels() if mask[p]) / sum(float(cam[p]) for p in pixels())


def literal_top_k(cam, mask, k):
    """The mean over many orders of equal pixels: exactly, by counting."""
    k = int(mask.sum()) if k is None else k
    ranked = sorted(pixels(), key=lambda p: -cam[p])
    last = cam[ranked[k - 1]]
    above = [p for p in pixels() if cam[p] > last]
    equal = [p for p in pixels() if cam[p] == last]
    found = sum(mask[p] for p in above) + (k - len(above)) * sum(mask[p] for p in equal) / len(equal)
    return found / k


def literal_iou(cam, mask, threshold):
    scaled = (cam - cam.min()) / (cam.max() - cam.min())
    upper = {p for p in pixels() if scaled[p] >= np.float32(threshold)}
    inside = {p for p in pixels() if mask[p]}
    return len(upper & inside) / len(upper | inside)


def regions(upper):
    """The connected regions of a mask, diagonal neighbours connected, by flooding."""
    left, found = {p for p in pixels() if upper[p]}, []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            i, j = edge.pop()
            region.add((i, j))
            near = {(a, b) for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


def literal_box_overlap(cam, box, threshold):
    scaled = (cam - cam.min()) / (cam.max() - cam.min())
    best = 0.0
    for region in regions(scaled >= threshold):
        rows, columns = zip(*region, strict=True)
        around = filled((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
        best = max(best, (around & filled(box)).sum() / (around | filled(box)).sum())
    return best


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", [torch.from_numpy, np.asarray])
def test_literally(seed, form):
    maps, boxes = cases(seed)
    masks = [filled(box) for box in boxes]
    pairs = list(zip(maps, masks, strict=True))
    for tolerance in (0, 1, 3):
        expected = [literally_pointed(cam, mask, tolerance) for cam, mask in pairs]
        np.testing.assert_allclose(pointing_game(form(maps), form(boxes), tolerance), expected, atol=1e-5)
    np.testing.assert_allclose(
        energy_pointing_game(form(maps), form(boxes)), [literal_energy(*pair) for pair in pairs], atol=1e-5
    )
    for k in (None, 1, 5, 40):
        expected = [literal_top_k(cam, mask, k) for cam, mask in pairs]
        np.testing.assert_allclose(top_k_intersection(form(maps), form(boxes), k), expected, atol=1e-5)
    for threshold in (0.3, 0.5, 1):
        expected = [literal_iou(cam, mask, threshold) for cam, mask in pairs]
        np.testing.assert_allclose(iou(form(maps), form(boxes), threshold), expected, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_literally(seed):
    maps, boxes = cases(seed)
    thresholds = {0.1: 0.85, 0.3: 0.95, 0.5: 0.75}
    expected = [
        np.mean([literal_box_overlap(cam, box, tau) >= overlap for overlap, tau in thresholds.items()])
        for cam, box in zip(maps, boxes, strict=True)
    ]
    np.testing.assert_allclose(MaxBoxAccV2(thresholds)(maps, boxes), expected, atol=1e-6)


def test_thresholds_are_the_best_on_the_images_given():
    maps, boxes = cases(0, count=12)
    chosen = MaxBoxAccV2.chosen_on(maps, boxes, overlaps=(0.2, 0.5), candidates=20).thresholds
    for overlap, threshold in chosen.items():
        of_all = [float(MaxBoxAccV2({overlap: tau / 20})(maps, boxes).mean()) for tau in range(1, 21)]
        assert threshold == (int(np.argmax(of_all)) + 1) / 20
        assert max(of_all) > min(of_all)


@every_metric
def test_the_ground_truth_as_a_map_is_the_ceiling(name):
    _, boxes = cases(2, count=20)
    masks = np.stack([filled(box) for box in boxes])
    ceiling = np.minimum(masks.sum((1, 2)) / 7, 1) if name == "top_k of 7" else np.ones(20)
    for truth in (boxes, masks):
        np.testing.assert_allclose(FOR_EVERY_METRIC[name](masks.astype(np.float32), truth), ceiling)


@pytest.mark.parametrize("name", [name for name in FOR_EVERY_METRIC if name not in ("iou", "MaxBoxAccV2")])
def test_noise_is_at_chance_and_a_constant_map_is_what_noise_is_in_the_mean(name):
    metric = FOR_EVERY_METRIC[name]
    box = np.array([[2, 1, 6, 7]])
    chance = 24 / 99
    if name.endswith("within 2"):
        chance = float(metric(np.ones((1, *SIZE)), box))
        assert chance > 24 / 99
    count = 4000
    noise = np.random.default_rng(0).random((count, *SIZE)).astype(np.float32)
    found = metric(noise, np.repeat(box, count, 0)).double()
    assert abs(found.mean() - chance) < 4 * found.std() / count**0.5
    for constant in (0, 0.3, 1):
        np.testing.assert_allclose(metric(np.full((1, *SIZE), constant), box), chance, atol=1e-6)


def test_noise_in_iou_is_at_its_expectation():
    """Half of the pixels of uniform noise are above 0.5: of an object of m of P pixels the IoU is about m / (m + P)."""
    noise = np.random.default_rng(0).random((2000, 30, 30)).astype(np.float32)
    found = iou(noise, np.tile([5, 5, 20, 20], (2000, 1)))
    assert float(found.mean()) == pytest.approx(225 / 1125, abs=0.002)


AT_CHANCE = [name for name in FOR_EVERY_METRIC if name not in ("iou", "MaxBoxAccV2", "pointing_game within 2")]


@pytest.mark.parametrize("name", AT_CHANCE)
def test_random_cam_is_at_chance(name):
    """The mean over all places where an object of that size may lie is its share of the pixels, whatever the map."""
    images = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(3))
    (cam_map,) = RandomCAM(convolutional(), "last", seed=1)(images)
    assert cam_map.std() > 0.1
    object_ = np.zeros((12, 16), dtype=bool)
    object_[2:6, 3:8] = True
    places = np.stack([np.roll(object_, (down, across), (0, 1)) for down in range(12) for across in range(16)])
    found = FOR_EVERY_METRIC[name](np.repeat(cam_map[None], len(places), 0), places)
    assert float(found.double().mean()) == pytest.approx(20 / 192, abs=1e-5)


@every_metric
def test_scale_and_order_make_no_difference(name):
    metric = FOR_EVERY_METRIC[name]
    maps, boxes = cases(5, count=8)
    found = metric(maps, boxes)
    assert found.dtype == torch.float32
    assert found.shape == (8,)
    for factor in (1e-6, 8.0, 1e6):
        np.testing.assert_allclose(metric(maps * np.float32(factor), boxes), found, atol=1e-5)
    order = np.random.default_rng(0).permutation(8)
    np.testing.assert_array_equal(metric(maps[order], boxes[order]), found[order])
    np.testing.assert_array_equal(torch.cat([metric(maps[i : i + 1], boxes[i : i + 1]) for i in range(8)]), found)


@every_metric
def test_forms_of_the_ground_truth_agree(name):
    metric = FOR_EVERY_METRIC[name]
    maps, boxes = cases(4)
    expected = metric(maps, boxes)
    masks = np.stack([filled(box) for box in boxes])
    for truth in (
        torch.from_numpy(boxes), boxes[:, None], masks, masks[:, None].astype(np.float32), list(boxes), list(masks),
        [boxes[0], boxes[1:2], np.stack([boxes[2], boxes[2]])],
    ):  # fmt: skip
        np.testing.assert_array_equal(metric(maps, truth), expected)


def test_several_boxes_and_what_lies_outside():
    maps = torch.zeros(1, *SIZE)
    truth = np.array([[[-3, -3, 2, 2], [8, 7, 40, 40]]])
    inside = masks_of(truth, maps)
    assert inside.sum() == 2 * 2 + 3 * 2
    np.testing.assert_array_equal(boxes_in(truth, maps)[0], [[0, 0, 2, 2], [8, 7, 11, 9]])
    maps[0, 7:, 8:] = 1
    assert MaxBoxAccV2({0.9: 0.5})(maps, truth) == 1, "one of two true boxes is enough"
    assert pointing_game(maps, truth) == 1


def test_a_pixel_is_inside_when_its_centre_is():
    inside = masks_of(np.array([[1.4, 0, 3.6, 1]]), torch.zeros(1, *SIZE))
    assert inside[0].nonzero().tolist() == [[0, 1], [0, 2], [0, 3]]


def test_volumes_and_signals_have_masks():
    maps = torch.zeros(1, 4, 5, 6)
    maps[0, 2, 2, 2] = 1
    mask = torch.zeros(1, 4, 5, 6, dtype=torch.bool)
    mask[0, 2, 2, 4] = True
    assert pointing_game(maps, mask) == pointing_game(maps, mask, tolerance=1) == 0
    assert pointing_game(maps, mask, tolerance=2) == 1
    assert energy_pointing_game(maps[:, 2, 2], mask[:, 2, 2]) == 0


@every_metric
@pytest.mark.parametrize(
    ("maps", "truth", "message"),
    [
        (np.full((1, *SIZE), np.nan), [[0, 0, 2, 2]], "not finite"),
        (np.zeros((0, *SIZE)), [[0, 0, 2, 2]], "at least one map"),
        (np.zeros(SIZE[0]), [[0, 0, 2, 2]], r"expected \(N, \*spatial\)"),
        (np.zeros((2, *SIZE)), [[0, 0, 2, 2], [20, 0, 30, 5]], "ground truth of image 1 has no pixel inside"),
        (np.zeros((1, *SIZE)), [[3, 3, 3, 5]], "ground truth of image 0 has no pixel"),
        (np.zeros((1, *SIZE)), np.zeros((1, *SIZE), dtype=bool), "ground truth of image 0 has no pixel"),
        (np.zeros((2, *SIZE)), np.array([[0, 0, 2, 2]]), r"ground truth has shape \(1, 4\), expected masks"),
        (np.zeros((1, *SIZE)), np.ones((1, 5, 5)), r"ground truth has shape \(1, 5, 5\)"),
        (np.zeros((1, *SIZE)), [np.ones((5, 5))], r"ground truth has shape \[\(5, 5\)\]"),
        (np.zeros((1, *SIZE)), [], r"ground truth has shape \[\]"),
    ],
)
def test_what_is_refused(name, maps, truth, message):
    with pytest.raises(ValueError, match=message):
        FOR_EVERY_METRIC[name](maps, truth)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda maps, boxes: pointing_game(maps, boxes, tolerance=-1), "tolerance is -1"),
        (lambda maps, boxes: top_k_intersection(maps, boxes, k=0), "k is 0"),
        (lambda maps, boxes: top_k_intersection(maps, boxes, k=100), "k is 100, expected from 1 to the 99"),
        (lambda maps, boxes: iou(maps, boxes, threshold=0), "threshold is 0"),
        (lambda maps, boxes: iou(maps, boxes, threshold=1.1), "threshold is 1.1"),
        (lambda maps, boxes: MaxBoxAccV2({}), "thresholds are {}"),
        (lambda maps, boxes: MaxBoxAccV2({0.5: 0}), "thresholds are"),
        (lambda maps, boxes: MaxBoxAccV2.chosen_on(maps, boxes, candidates=0), "candidates is 0"),
        (lambda maps, boxes: MaxBoxAccV2({0.5: 0.5})(maps[:, None], boxes), r"expected \(N, H, W\)"),
    ],
)
def test_options_that_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*cases(0))


def test_constant_maps_have_no_upper_part():
    _, boxes = cases(0)
    for value in (0.0, 0.7):
        maps = np.full((3, *SIZE), value, dtype=np.float32)
        assert iou(maps, boxes).tolist() == MaxBoxAccV2({0.5: 0.5})(maps, boxes).tolist() == [0, 0, 0]


def test_what_is_negative_is_no_energy():
    maps = np.zeros((1, *SIZE), dtype=np.float32)
    maps[0, 0, :3] = [2, -5, 1]
    assert float(energy_pointing_game(maps, [[0, 0, 2, 1]])) == pytest.approx(2 / 3)

"""Windows over images of any rank: MONAI's conventions."""

from types import SimpleNamespace

import pytest
import torch

from pytorch_grad_cam.volumes.windows import Windows

SIZE = (21, 6, 11)


def starts(windows, size):
    return [tuple(part.start for part in where) for where in windows.on(size)]


def test_windows_lie_as_monai_has_them():
    """A step of int(size * (1 - overlap)), the last window at the border; read off dense_patch_slices of MONAI 1.6."""
    rows = [0, 5, 10, 13]
    columns = [0, 2, 4, 6, 7]
    expected = [(row, 0, column) for row in rows for column in columns]
    assert starts(Windows((8, 6, 4), overlap=0.3), SIZE) == expected


@pytest.mark.parametrize("roi_size", [(8, -1, 4), (8, None, 4), (8, 0, 4)])
def test_an_axis_without_a_size_is_not_cut(roi_size):
    assert Windows(roi_size).sizes(SIZE) == (8, 6, 4)
    assert Windows(1).sizes(SIZE) == (1, 1, 1)
    assert Windows(None).on(SIZE) == [tuple(slice(0, length) for length in SIZE)]


def test_the_same_for_all_axes_or_one_for_each():
    assert starts(Windows(4, 0.5), (8, 4)) == starts(Windows((4, 4), (0.5, 0.5)), (8, 4)) == [(0, 0), (2, 0), (4, 0)]
    assert starts(Windows(4, (0.75, 0)), (6, 8)) == [(0, 0), (0, 4), (1, 0), (1, 4), (2, 0), (2, 4)]


def test_weights_are_gaussian():
    weights = Windows((9, 4), sigma_scale=0.25).weights((20, 20), (slice(0, 9), slice(0, 4)))
    rows, columns = torch.arange(9) - 4, torch.arange(4) - 1.5
    expected = torch.exp(-(rows[:, None] ** 2) / (2 * 2.25**2)) * torch.exp(-(columns**2) / 2)
    torch.testing.assert_close(weights, expected)
    assert (Windows((9, 4), mode="constant").weights((20, 20), (slice(0, 9), slice(0, 4))) == 1).all()


def test_no_factor_is_below_a_thousandth():
    weights = Windows((32, 32)).weights((64, 64), (slice(0, 32), slice(0, 32)))
    assert weights[0, 0] == pytest.approx(1e-6)
    assert weights[0, 16] == pytest.approx(1e-3 * weights[16, 16].item() ** 0.5, rel=1e-3)


@pytest.mark.parametrize("size", [(21, 13), (5, 13), (5, 3)])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("context", [0, (3, 2)])
def test_each_position_is_the_own_one_of_one_window(context, mode, size):
    windows = Windows((8, 6), 0.4, mode, context=context)
    total = torch.zeros(size)
    for where in windows.on(size):
        own = windows.own(size, where)
        assert own.shape == windows.sizes(size)
        part = windows.unpadded(own, [each.stop - each.start for each in where])
        assert part.sum() == own.sum() > 0
        assert (windows.unpadded(windows.weights(size, where), part.shape)[part > 0] > 0).all()
        total[where] += part
    assert (total == 1).all()


def test_own_positions_are_those_nearest_to_the_middle():
    windows = Windows(8, 0.5)
    assert [windows.own((16,), where).tolist() for where in windows.on((16,))] == [
        [1, 1, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 1, 1],
    ]


def test_a_small_image_is_padded_on_both_sides():
    windows = Windows((7, 4), cval=-1)
    image = torch.arange(12.0).reshape(1, 1, 4, 3)
    padded = windows.padded(image, (4, 3))
    assert padded.shape == (1, 1, 7, 4)
    assert (padded[0, 0, 1:5, :3] == image).all()
    assert (padded[0, 0, [0, 5, 6]] == -1).all()
    assert (padded[0, 0, :, 3] == -1).all()
    assert (windows.unpadded(padded, (4, 3)) == image).all()
    assert Windows((7, 4)).padded(image, (4, 3))[0, 0, 0, 0] == 0
    assert Windows((7, 4), padding_mode="replicate").padded(image + 5, (4, 3))[0, 0, 0, 0] == 5


def along(windows, length):
    """Where windows begin, what each shows, and where it counts."""
    return [
        (where.start, where.stop - where.start, windows.weights((length,), (where,)).nonzero()[:, 0].tolist())
        for (where,) in windows.on((length,))
    ]


def test_context_is_shown_and_does_not_count():
    first, second, third = along(Windows(4, overlap=0, context=2), 16)
    assert first == (0, 8, [0, 1, 2, 3, 4, 5])  # at the border there is nothing more to show
    assert second == (4, 8, [2, 3, 4, 5])
    assert third == (8, 8, [2, 3, 4, 5, 6, 7])


def test_what_lies_near_a_cut_does_not_count():
    """Windows of 16 in steps of 8, of which 3 positions at each cut see too little, on an axis that is not cut none."""
    asked = Windows((16, -1), 0.5)
    windows = asked.seen_whole((32, 9), (3, 4), (1, 1))
    assert windows.on((32, 9)) == asked.on((32, 9))
    counting = [windows.weights((32, 9), where)[:, 0].nonzero()[:, 0].tolist() for where in windows.on((32, 9))]
    assert counting == [list(range(13)), list(range(3, 13)), list(range(3, 16))]
    assert (windows.weights((32, 9), windows.on((32, 9))[0])[0] > 0).all()


@pytest.mark.parametrize(
    ("far", "stride", "starts_at"),
    [(4, 4, [0, 8, 16, 24, 32]), (6, 2, [0, 4, 8, 12, 16, 20, 24, 28, 32]), (5, 4, [0, 4, 8, 12, 16, 20, 24, 28, 32])],
)
def test_windows_follow_each_other_as_what_counts_does(far, stride, starts_at):
    """In steps of the network's stride, so that their cells are those of the whole image."""
    windows = Windows(16, 0.5).seen_whole((48,), (far,), (stride,))
    assert [where.start for (where,) in windows.on((48,))] == starts_at
    assert windows.sizes((48,)) == (16,)


def test_windows_that_show_too_little_are_left_as_they_are():
    assert Windows(16, 0.5).seen_whole((48,), (8,), (1,)) is None  # nothing is left of them
    assert Windows(16, 0.5).seen_whole((480,), (7,), (1,)).count((480,)) == 233
    assert Windows(16, 0.5).seen_whole((480, 480), (7, 7), (1, 1)) is None  # 16 times as many


def test_context_as_large_as_the_image_shows_all_of_it_once():
    windows = Windows(4, context=20)
    assert along(windows, 10) == [(0, 10, list(range(10)))]
    torch.testing.assert_close(windows.weights((10,), (slice(0, 10),)), windows.totals((10,))[0])
    assert Windows(16, context=3).sizes((10,)) == (16,)


def test_what_is_shown_beside_a_seam():
    windows = Windows((8, -1, 8), (0.5, 0.5, 0.25), context=(0, 1, 3))
    assert windows.beside_seams((32, 30, 32)) == [2, 30, 4]


def test_an_inferer_is_read_by_its_attributes():
    mode = SimpleNamespace(value="gaussian")  # MONAI's are enumerations
    others = {"padding_mode": "reflect", "cval": 2.0, "sw_batch_size": 4, "device": None}
    inferer = SimpleNamespace(roi_size=(8, 4), overlap=0.3, mode=mode, sigma_scale=0.2, **others)
    assert Windows.of(inferer) == Windows((8, 4), 0.3, "gaussian", 0.2, "reflect", 2.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Windows(8, overlap=1.0), r"overlap is 1.0, expected shares in \[0, 1\)"),
        (lambda: Windows(8, overlap=(0.5, 1.0)), r"expected shares in \[0, 1\)"),
        (lambda: Windows(8, context=-1), "context is -1, expected numbers of positions, 0 or more"),
        (lambda: Windows.of(SimpleNamespace(with_coord=True)), "shows the model a window with its coordinates"),
        (lambda: Windows.of(SimpleNamespace(spatial_dim=1)), "shows the model single slices of a volume"),
        (lambda: Windows(8, mode="mean"), "mode is 'mean', expected 'gaussian' or 'constant'"),
        (lambda: Windows((8, 8)).on(SIZE), "one for each of the 3 axes"),
        (lambda: Windows(8, overlap=(0.5, 0.5)).on(SIZE), "one for each of the 3 axes"),
    ],
)
def test_what_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_as_monai_itself():
    monai_data = pytest.importorskip("monai.data.utils")
    inferers = pytest.importorskip("monai.inferers")
    windows = Windows.of(inferers.SlidingWindowInferer((8, 6, 4), 2, 0.3, "gaussian", 0.2))
    expected = monai_data.compute_importance_map((8, 6, 4), "gaussian", 0.2)
    torch.testing.assert_close(windows.weights(SIZE, windows.on(SIZE)[0]), expected)
    steps = [5, 6, 2]
    assert windows.on(SIZE) == [tuple(where) for where in monai_data.dense_patch_slices(SIZE, (8, 6, 4), steps)]

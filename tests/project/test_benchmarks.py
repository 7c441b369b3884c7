"""What the benchmarks rest on; the peers themselves need PyPI and are not run here."""

import math

import numpy as np
import pytest
import torch

from benchmarks.breakdown import slowest
from benchmarks.contest import HERE, Contestant, Failure
from benchmarks.contestants.networks import COMPARED, RACED, growing, work
from benchmarks.digits import correlation, localisation
from benchmarks.growth import slope
from benchmarks.maps import finished
from benchmarks.report import table
from benchmarks.speed import Cell, everything, shown, summary
from pytorch_grad_cam import GradCAM


@pytest.fixture(scope="module")
def here():
    contestant = Contestant(HERE)
    yield contestant
    contestant.close()


@pytest.fixture
def work_file(tmp_path):
    done = work(COMPARED["digits"], 3)
    file = tmp_path / "work.npz"
    np.savez(file, images=done.images.numpy(), categories=done.categories)
    return done, file


@pytest.mark.slow
def test_maps_of_the_other_process_are_those_of_this_one(here, work_file, tmp_path):
    done, file = work_file
    here.prepare_images("digits", str(file))
    here.maps("GradCAM", str(tmp_path / "maps.npy"))
    with GradCAM(done.model, "layer4") as cam:
        np.testing.assert_allclose(np.load(tmp_path / "maps.npy"), cam(done.images, done.categories), atol=1e-6)


@pytest.mark.slow
def test_random_weights_change_the_maps(here, work_file, tmp_path):
    _, file = work_file
    maps = []
    for modules in ([], ["fc"], [""]):
        here.prepare_images("digits", str(file))
        here.randomise(modules)
        here.maps("GradCAM", str(tmp_path / "maps.npy"))
        maps.append(np.load(tmp_path / "maps.npy"))
    assert correlation(maps[0], maps[0]) == pytest.approx(1)
    assert correlation(maps[0], maps[1]) < 0.9
    assert correlation(maps[0], maps[2]) < 0.9


@pytest.mark.slow
def test_a_failure_there_is_raised_here_and_the_process_goes_on(here):
    with pytest.raises(Failure, match="AttributeError"):
        here.no_such_request()
    assert "GradCAM" in here.methods()


@pytest.mark.slow
def test_a_process_that_ended_is_begun_anew(here):
    here.prepare_growing(channels=64, size=64, batch=2)
    here._process.kill()
    with pytest.raises(Failure, match="ended"):
        here.time(["GradCAM"])
    assert "GradCAM" in here.time(["GradCAM"])


@pytest.mark.slow
def test_the_parts_of_a_call(here):
    here.prepare_growing(channels=64, size=64, batch=2)
    masked, gradient = here.breakdown("ScoreCAM"), here.breakdown("GradCAM")
    assert 2 * 2 < masked["images"] <= 2 * (2 + 64), "channels that do not vary are not masked"
    assert gradient["images"] == 2
    assert masked["backwards"] == 0 < gradient["backwards"]
    for spent in (masked, gradient):
        assert 0 < spent["forwards"] + spent["backwards"] < spent["all"]


def test_the_slowest_row_of_each_method():
    cells = [
        {"library": library, "method": method, "ratios": [ratio]}
        for library, method, ratio in [
            (HERE, "A", 2), (HERE, "A, 5 layers", 3), (HERE, "B", 7), (HERE, "C", 1), ("theirs", "D", 9),
        ]
    ]  # fmt: skip
    cells.append({"library": HERE, "method": "E", "why_not": "about 200 s"})
    assert [cell["method"] for cell in slowest(dict(enumerate(cells)), 2)] == ["B", "A, 5 layers"]


@pytest.mark.slow
def test_times_are_positive_and_memory_is_counted(here, tmp_path):
    here.prepare_growing(channels=64, size=64, batch=2)
    ((seconds, bare),) = here.time(["GradCAM"]).values()
    assert seconds > 0
    assert bare > 0
    first = here.check("GradCAM", str(tmp_path / "map.npy"))
    assert first["shape"] == [2, 64, 64]
    assert np.load(tmp_path / "map.npy").shape == (1, 64, 64)
    assert len(here.repeat("GradCAM", 2, 3)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("network", [*RACED.values(), *COMPARED.values(), growing(64, 64)])
def test_layers_exist_and_have_so_many_channels(network):
    reads_values = network in (COMPARED["digits"], RACED["ViT-S"])
    with torch.device("cpu" if reads_values else "meta"):
        model = network.build()
    names = dict(model.named_modules())
    assert all(layer in names for layer in network.layers)
    assert network.channels > 0


def test_slope():
    assert slope({1: 2.0, 10: 20.0}) == pytest.approx(1)
    assert slope({2: 1.0, 8: 16.0}) == pytest.approx(2)


def test_finished_maps_have_one_size_and_range():
    small = np.array([[[0.0, -5.0], [2.0, 4.0]]])
    made = finished(small, (8, 8))
    assert made.shape == (1, 8, 8)
    assert (made.min(), made.max()) == (0, 1)
    assert finished(np.stack([small, small], axis=1), (8, 8)).shape == (1, 8, 8), "channels are summed"


def test_localisation_of_a_point():
    maps = np.zeros((1, 64, 64))
    maps[0, 10, 20] = 1
    right, elsewhere = np.array([[15, 5, 25, 15]]), np.array([[40, 40, 50, 50]])
    assert localisation(maps, right, elsewhere) == {"hit": 1, "wrong": 0, "energy": 1, "IoU": 0.01}
    assert localisation(maps, elsewhere, right) == {"hit": 0, "wrong": 1, "energy": 0, "IoU": 0}


def test_tables_of_cells():
    fast, once = Cell("ResNet-50", 8, "GradCAM", HERE), Cell("ResNet-50", 1, "SSCAM", "torch-cam 0.5")
    fast.ratios, once.why_not = [1.1, 1.0, 1.3], "about 500 s"
    cells = [fast.record(), once.record()]
    assert [shown(cell) for cell in (*cells, None)] == ["1.10 (1.00-1.30)", "about 500 s", None]
    rows = everything(cells, shown)
    assert rows["ResNet-50, 8, GradCAM"][HERE] == "1.10 (1.00-1.30)"
    assert "| SSCAM, one image |  |  | about 500 s |  |" in table(summary(cells, "ResNet-50", 8))
    assert shown({"ratios": [2.0], "beside": 0.2}) == "2.00 (once) ≠"
    assert not math.isnan(fast.record()["ratios"][0])
    assert vars(Cell.of(fast.record())) == vars(fast)

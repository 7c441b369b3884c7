"""What the benchmarks rest on; the peers themselves need PyPI and are not run here."""

import json
import math
import random
import struct
import zlib
from base64 import b64encode
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.breakdown import slowest
from benchmarks.contest import HERE, Contestant, Failure
from benchmarks.contestants.networks import COMPARED, RACED, growing, work
from benchmarks.digits import localisation
from benchmarks.families.cases import FAMILIES
from benchmarks.families.judge import LITTLE, REFUSED, RIGHT, SILENT, WARNED, Found, FoundLayer, found_by_us, judged
from benchmarks.families.question import Question, as_trained, of_class, of_pixels
from benchmarks.growth import slope
from benchmarks.maps import finished
from benchmarks.real.__main__ import asked, compared, figures, interval
from benchmarks.real.displacements import best_displacement, heat_by_displacement
from benchmarks.real.displacements import summary as summary_of_layers
from benchmarks.real.networks import Network
from benchmarks.real.pictures import Picture, _pasted
from benchmarks.real.pointing import is_near
from benchmarks.real.qt_resources import files_of
from benchmarks.real.tensorflow_graphs import Resized, load_graph
from benchmarks.report import table
from benchmarks.speed import Cell, everything, shown, summary
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.similarity import similarity


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
    same, head, network = (float(similarity(maps[0], each).mean()) for each in maps)
    assert same == pytest.approx(1)
    assert head < 0.9
    assert network < 0.9


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
    expected = {"hit": 1, "wrong": 0, "energy": 1, "IoU": 0.01}
    assert localisation(maps, right, elsewhere) == pytest.approx(expected)
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


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    return as_trained(Question(model, torch.randn(1, 3, 16, 16), of_class(), "2"))


def _target(question, asked="class"):
    return question.targets(question.answer())[asked]


def test_a_model_that_is_explained_rightly(classifier):
    assert judged(classifier, _target(classifier)).verdict == RIGHT


def test_a_layer_that_says_little(classifier):
    judgement = judged(replace(classifier, sensible="4"), _target(classifier))
    assert judgement.verdict == LITTLE
    assert judgement.layer.startswith("2 (ReLU")


def test_a_model_that_is_refused(classifier):
    target = _target(classifier)._replace(given=17)
    judgement = judged(classifier, target)
    assert (judgement.verdict, judgement.why[:10]) == (REFUSED, "IndexError")


@pytest.mark.parametrize(("warned", "verdict"), [(False, SILENT), (True, WARNED)])
def test_places_that_are_exchanged(classifier, warned, verdict):
    def find(question, target):
        found = found_by_us(question, target)
        (layer,) = found.layers
        exchanged = layer._replace(as_map=lambda output: output.mT, reading="exchanged")
        return found._replace(maps=found.maps.mT, layers=[exchanged], warned=warned)

    judgement = judged(classifier, _target(classifier), find)
    assert judgement.verdict == verdict
    assert "parts in place" in judgement.why


def test_another_gradient_and_another_size(classifier):
    def with_maps(change):
        return lambda question, target: change(found_by_us(question, target))

    judgement = judged(classifier, _target(classifier), with_maps(lambda f: f._replace(maps=f.maps**2)))
    assert "from the map of the gradient" in judgement.why
    judgement = judged(classifier, _target(classifier), with_maps(lambda f: f._replace(maps=f.maps[:, :3])))
    assert judgement.why == "a map of (1, 3, 16) for an image of (16, 16)"


def test_a_map_that_float32_rounds_away_is_looked_at_in_float64(classifier):
    """What is left of two large halves of the evidence that cancel."""

    def find(question, target):
        found = found_by_us(question, target)
        of_float32 = question.inputs.dtype == torch.float32
        return found._replace(maps=(found.maps - 1e-3).clamp(0)) if of_float32 else found

    judgement = judged(classifier, _target(classifier), find)
    assert (judgement.verdict, judgement.why) == (RIGHT, "")
    assert next(classifier.model.parameters()).dtype == torch.float32


def test_a_score_that_does_not_depend_on_the_layer(classifier):
    unused = nn.Conv2d(3, 4, 3)

    def find(question, target):
        maps = torch.zeros(1, 16, 16)
        return Found(maps, [FoundLayer("unused", unused, lambda output: output, "")], False, True)

    model = nn.Sequential(classifier.model)
    model.register_forward_pre_hook(lambda module, inputs: unused(inputs[0]).sum() and None)
    judgement = judged(replace(classifier, model=model), _target(classifier), find)
    assert judgement.why == "the score does not depend on the layer"


def test_pixels_are_asked_for_by_their_mask():
    model = nn.Conv2d(3, 4, 3, 1, 1)
    question = Question(model, torch.randn(1, 3, 8, 8), of_pixels(), "")
    target = _target(question)
    logits = model(question.inputs)[0]
    assert torch.isclose(target.score(logits[None]), logits[target.given][logits.argmax(0) == target.given].mean())


def test_models_of_a_family_have_names_of_their_own():
    for libraries in FAMILIES.values():
        names = [name for cases in libraries.values() for name, _ in cases()]
        assert len(names) == len(set(names))
        assert all(name.startswith(tuple(libraries)) for name in names)


def test_figures_of_a_map_of_a_scene():
    inside, other = np.zeros((2, 4, 4), bool)
    inside[:2, :2], other[2:, 2:] = True, True
    heat = np.zeros((4, 4))
    heat[0, 0], heat[3, 3] = 3, 1
    assert figures(heat, inside, other) == (1, 0, 0.75)
    assert figures(heat, other, inside) == (0, 1, 0.25)
    assert figures(np.zeros((4, 4)), other, inside)[2] == 0


def test_intervals_draw_whole_pictures():
    """Two objects of each picture that are always hit together say no more than one does."""
    values, pictures = np.tile([0.0, 1.0], 20), np.arange(40)
    alone = interval(values, pictures)
    assert alone.startswith("0.50 (0.3")
    assert interval(np.repeat(values, 2), np.repeat(pictures, 2)) == alone
    assert interval(np.ones(5), np.arange(5)) == "1.00 (1.00-1.00)"


def test_cut_outs_lie_where_their_masks_say_and_do_not_touch(tmp_path):
    file, generator = tmp_path / "square.png", random.Random(0)
    Image.new("RGBA", (20, 10), (255, 0, 0, 255)).save(file)
    canvas = Image.new("RGB", (64, 64))
    first = _pasted(canvas, file, generator, [])
    second = _pasted(canvas, file, generator, [first])
    assert not (first & second).any()
    np.testing.assert_array_equal(np.asarray(canvas)[..., 0] > 200, first | second)


def test_objects_that_the_network_does_not_see_are_left_out():
    class Sees(nn.Module):
        def forward(self, x):
            return torch.arange(10.0).expand(len(x), -1)

    inside, other = np.zeros((2, 8, 8), bool)
    inside[0], other[1] = True, True
    picture = Picture(np.zeros((8, 8, 3), np.uint8), [(9, inside), (2, other)])
    network = Network("net", Sees(), 8, lambda pixels: pixels - 1, "last")
    ((number, x, category, mask, rest),) = asked(network, iter([picture]))
    assert (number, category, tuple(x.shape), x.min()) == (0, 9, (1, 3, 8, 8), -1)
    np.testing.assert_array_equal(mask, inside)
    np.testing.assert_array_equal(rest, other)


def test_what_registration_changes_is_told_from_chance():
    pictures = np.arange(100)
    plain = np.tile([0.0, 1.0], 50)  # a standard error of 0.05
    for gained, said in ((3, "alike"), (8, "higher")):
        moved = plain.copy()
        moved[np.flatnonzero(plain == 0)[:gained]] = 1
        assert compared(plain, moved, pictures) == said
        assert compared(moved, plain, pictures) == {"alike": "alike", "higher": "lower"}[said]


def test_displacements_are_those_of_the_object_from_the_heat():
    """The object lies 5 px further down and 3 px further left; what is drawn beyond the image is lost."""
    heat, inside = np.zeros((64, 64)), np.zeros((64, 64), bool)
    heat[20:30, 20:30], inside[25:35, 17:27] = 2, True
    found = heat_by_displacement(heat, inside, 8)
    assert found.shape == (17, 17)
    assert found[8 + 5, 8 - 3] == pytest.approx(1)
    assert found[8, 8] == pytest.approx(0.5 * 0.7)
    np.testing.assert_allclose(best_displacement(found), [5, -3], atol=1e-6)
    at_the_edge = heat_by_displacement(np.roll(heat, 30, 0), np.ones((64, 64), bool), 8)
    assert at_the_edge[8 + 8, 8] == pytest.approx(0.6)


def test_means_over_layers_and_how_often_a_rule_is_worse_than_tiles():
    rows = {"a": {"error of tiles": 2.0, "error of noise": 3.5}, "b": {"error of tiles": 4.0, "error of noise": 0.5}}
    found = summary_of_layers(rows)
    assert found["mean of 2 layers"] == {"error of tiles": 3.0, "error of noise": 2.0}
    assert found["layers worse than tiles by more than 1 px"] == {"error of noise": 1}


@pytest.mark.parametrize(("column", "near"), [(9, True), (13, True), (14, False)])
def test_a_maximum_beside_the_object(column, near):
    cam_map, inside = np.zeros((8, 20)), np.zeros((8, 20), bool)
    cam_map[4, column], inside[:, :10] = 1, True
    assert is_near(cam_map, inside) == near
    assert not is_near(np.zeros((8, 20)), inside)


def test_a_graph_of_tensorflow_is_the_same_function(tmp_path):
    """Padding SAME of an even number of pixels pads the end; values are (N, H, W, C)."""
    kernel, bias = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32), np.arange(4, dtype=np.float32)
    (tmp_path / "weights.bin").write_bytes(kernel.tobytes() + bias.tobytes() + np.array([1, 2], np.int32).tobytes())
    weights = [("kernel", kernel), ("bias", bias), ("axes", np.array([1, 2], np.int32))]
    integers = {"strides": [1, 2, 2, 1], "dilations": [1, 1, 1, 1]}
    attributes = {
        "padding": {"s": b64encode(b"SAME").decode()},
        "fused_ops": {"list": {"s": [b64encode(each).decode() for each in (b"BiasAdd", b"Relu")]}},
        **{key: {"list": {"i": [str(value) for value in values]}} for key, values in integers.items()},
    }
    nodes = [
        {"name": "images", "op": "Placeholder"},
        *({"name": name, "op": "Const"} for name, _ in weights),
        {"name": "map", "op": "_FusedConv2D", "input": ["images", "kernel", "bias"], "attr": attributes},
        {"name": "mean", "op": "Mean", "input": ["map", "axes"], "attr": {"keep_dims": {"b": False}}},
    ]
    of_weights = [{"name": n, "dtype": str(value.dtype), "shape": value.shape} for n, value in weights]
    manifest = [{"paths": ["weights.bin"], "weights": of_weights}]
    file = tmp_path / "net.json"
    file.write_text(json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": manifest}))
    x = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    found, mean = load_graph(file, ["map", "mean"], channels_last=True)(x)
    weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, torch.from_numpy(bias), 2).relu()
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1))
    torch.testing.assert_close(mean, expected.mean((2, 3)))


def test_resizing_as_tensorflow_did():
    """Without the pixels' centres pixel i comes from i * old / new, and the last ones repeat the last."""
    row = torch.tensor([0.0, 1.0, 4.0]).reshape(1, 1, 3, 1)
    assert Resized((1, 6), False)(row).flatten().tolist() == [0, 0.5, 1, 2.5, 4, 4]


def test_files_of_a_qt_resource_collection(tmp_path):
    """A folder with one plain and one compressed file, as rcc writes them."""
    names, contents, tree = b"", b"", struct.pack(">IHII", 0, 2, 2, 1) + bytes(8)
    for name, content, flags in (("a.txt", b"plain", 0), ("b.txt", bytes(4) + zlib.compress(b"small"), 1)):
        tree += struct.pack(">IHHHI", len(names), flags, 0, 0, len(contents)) + bytes(8)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        contents += struct.pack(">I", len(content)) + content
    at = 20, 20 + len(tree), 20 + len(tree) + len(contents)
    file = tmp_path / "some.rcc"
    file.write_bytes(b"qres" + struct.pack(">4I", 2, *at) + tree + contents + names)
    assert files_of(file) == {"a.txt": b"plain", "b.txt": b"small"}

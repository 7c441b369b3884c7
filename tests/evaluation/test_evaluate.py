"""`evaluate`: each number is the metric's own; baselines, intervals, forms of data, costs, tables, what is refused."""

import csv
import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from nets import convolutional, images
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pytorch_grad_cam
from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM, evaluate
from pytorch_grad_cam.demo import load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.evaluation.evaluation import Cost, Evaluation, Row
from pytorch_grad_cam.evaluation.metrics import Metric, _cross_fitted, available_metrics, metric_called
from pytorch_grad_cam.metrics.box_accuracy import MaxBoxAccV2
from pytorch_grad_cam.metrics.complexity import entropy
from pytorch_grad_cam.metrics.deletion_insertion import Deletion, Insertion
from pytorch_grad_cam.metrics.localisation import iou, pointing_game
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.metrics.robustness import infidelity, max_sensitivity
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

CLASSES = [0, 3, 1, 2, 4]
BOXES = np.array([[1, 1, 6, 7], [8, 2, 14, 9], [0, 0, 9, 4], [3, 5, 9, 11], [2, 2, 5, 5]])
BASELINES = ["random map", "centre Gaussian", "edge detector"]


def found(metrics, methods=GradCAM, **options):
    options = {"targets": CLASSES, "layers": "last", "align": "cell", **options}
    return evaluate(convolutional(), images(count=5), methods, metrics, **options)


@pytest.mark.slow
def test_each_number_is_the_metrics_own():
    model, x = convolutional(), images(count=5)
    evaluation = found(
        ["deletion", "ROAD", "iou", "pointing game", "entropy", "infidelity", "max-sensitivity"], truth=BOXES
    )
    cam = GradCAM(model, "last")
    maps = cam(x, CLASSES)
    targets = [ClassifierOutputSoftmaxTarget(each) for each in CLASSES]
    expected = {
        "deletion": Deletion()(x, maps, targets, model),
        "ROAD": ROADCombined()(x, maps, targets, model),
        "IoU": iou(maps, BOXES),
        "pointing game": pointing_game(maps, BOXES),
        "entropy": entropy(maps),
        "infidelity": infidelity(model, x, maps, targets),
        "max-sensitivity": max_sensitivity(cam, x, CLASSES),
    }
    row = evaluation.rows[0]
    assert (row.method, row.layer, evaluation.images) == ("GradCAM", "last", 5)
    assert list(evaluation.directions) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(row.values[name], values, atol=1e-5)
        assert evaluation.estimate(row, name).mean == pytest.approx(float(np.mean(np.asarray(values))), abs=1e-5)


def test_baselines_are_in_every_table_and_the_truth_where_it_is_known():
    assert [row.method for row in found(["entropy"]).rows] == ["GradCAM", *BASELINES]
    assert [row.method for row in found(["entropy"], baselines=False).rows] == ["GradCAM"]
    evaluation = found(["pointing game", "energy", "top-k", "iou", "flip stability"], truth=list(BOXES))
    *_, truth = evaluation.rows
    assert (truth.method, truth.is_baseline) == ("ground truth", True)
    for metric in ("pointing game", "energy", "top-k", "IoU"):
        assert evaluation.estimate(truth, metric) == (1, 1, 1)
    assert np.isnan(evaluation.estimate(truth, "flip stability").mean), "a baseline has no CAM to ask again"


def test_models_methods_and_layers():
    models = {"a": convolutional(), "b": convolutional(seed=7)}
    evaluation = evaluate(
        models, images(count=2), ["gradcam", EigenCAM], "entropy", targets=[0, 1], layers=["first", "last"]
    )
    names = [row.name for row in evaluation.rows]
    of_one = ["GradCAM, first", "GradCAM, last", "EigenCAM, first", "EigenCAM, last", *BASELINES]
    assert names == [f"{model}, {name}" for model in models for name in of_one]
    assert [line.partition(": ")[0] for line in evaluation.assumptions] == ["a", "b"]
    a, b = (row.values["entropy"] for row in evaluation.rows if row.name.endswith("GradCAM, last"))
    assert not np.allclose(a, b)


def tables_alike(one, other):
    for a, b in zip(one.rows, other.rows, strict=True):
        for metric, values in a.values.items():
            np.testing.assert_allclose(values, b.values[metric], atol=1e-5)


@pytest.mark.slow
def test_forms_of_data_give_the_same_table():
    metrics, x = ["deletion", "iou"], images(count=5)
    expected = found(metrics, truth=BOXES)
    same = {"layers": "last", "align": "cell"}
    loader = DataLoader(TensorDataset(x, torch.tensor(CLASSES), torch.from_numpy(BOXES)), batch_size=2)
    tables_alike(evaluate(convolutional(), loader, "gradcam", metrics, **same), expected)
    for data, truth in ((list(x), list(BOXES)), (x, torch.from_numpy(BOXES)[:, None])):
        tables_alike(
            evaluate(convolutional(), data, "gradcam", metrics, targets=CLASSES, truth=truth, **same), expected
        )
    tables_alike(found(metrics, truth=BOXES, batch_size=2), expected)
    highest = convolutional()(x).argmax(1).tolist()
    tables_alike(found(metrics, truth=BOXES, targets=None), found(metrics, truth=BOXES, targets=highest))
    assert np.isfinite(found("deletion", targets=3).rows[0].values["deletion"]).all(), "one class for all images"


@pytest.mark.slow
def test_a_folder_of_pictures_whose_boxes_are_in_their_own_pixels(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [make_scene(rng) for _ in range(3)]
    for number, scene in enumerate(scenes):
        Image.fromarray(scene.image).resize((128, 128), Image.Resampling.NEAREST).save(tmp_path / f"{number}.png")
    targets = [int(scene.labels[0]) for scene in scenes]
    truth = [2 * scene.boxes[0] for scene in scenes]
    large_masks = [scene.masks[0].repeat(2, 0).repeat(2, 1) for scene in scenes]

    def preprocess(picture):
        return preprocess_scene(np.array(picture.resize((64, 64), Image.Resampling.NEAREST)))

    options = {"targets": targets, "preprocess": preprocess, "layers": "layer4"}
    evaluation = evaluate(load_digits_net(), str(tmp_path), "gradcam", ["pointing game", "iou"], truth=truth, **options)
    x = preprocess_scene(np.stack([scene.image for scene in scenes]))
    given = evaluate(
        load_digits_net(), x, "gradcam", ["pointing game", "iou"], truth=[s.boxes[0] for s in scenes], targets=targets,
        layers="layer4",
    )  # fmt: skip
    tables_alike(evaluation, given)
    of_masks = evaluate(load_digits_net(), str(tmp_path), "gradcam", "iou", truth=large_masks, **options)
    own = np.stack([scene.masks[0] for scene in scenes])
    np.testing.assert_allclose(
        of_masks.rows[0].values["IoU"],
        iou(GradCAM(load_digits_net(), "layer4", align="receptive_field")(x, targets), own),
        atol=1e-5,
    )


def test_thresholds_of_boxes_are_chosen_on_the_other_images():
    rng = np.random.default_rng(0)
    overlaps = rng.random((7, 100))
    found = _cross_fitted(overlaps)
    for image in range(7):
        others = overlaps[[i for i in range(7) if i % 2 != image % 2]]
        reached = [overlaps[image, (others >= o).mean(0).argmax()] >= o for o in (0.3, 0.5, 0.7)]
        assert found[image] == pytest.approx(np.mean(reached))
    assert np.isnan(_cross_fitted(overlaps[:1])).all()
    table = evaluate(
        convolutional(), images(count=4), GradCAM, "MaxBoxAccV2", targets=0, truth=BOXES[:4], layers="last"
    )
    maps = GradCAM(convolutional(), "last", align="receptive_field")(images(count=4), [0] * 4)
    even = MaxBoxAccV2.chosen_on(maps[1::2], BOXES[1:4:2])(maps[::2], BOXES[:4:2])
    np.testing.assert_allclose(table.rows[0].values["MaxBoxAccV2"][::2], even)


def test_intervals_are_those_of_a_bootstrap_and_cover():
    """Of 200 sets of 50 normal numbers the interval covers the mean in about 95 %."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        row = Row("", "a", "", {"m": rng.normal(3, 2, 50)}, Cost(0, 0), Cost(0, 0))
        mean, low, high = Evaluation([row], {"m": True}, 50).estimate(row, "m")
        assert low < mean < high
        covered += low < 3 < high
    assert 0.9 <= covered / 200 <= 0.98
    one = Row("", "a", "", {"m": np.array([0.4])}, Cost(0, 0), Cost(0, 0))
    assert Evaluation([one], {"m": True}, 1).estimate(one, "m") == pytest.approx((0.4, 0.4, 0.4))
    some = Row("", "a", "", {"m": np.array([1, np.nan, 3])}, Cost(0, 0), Cost(0, 0))
    assert Evaluation([some], {"m": True}, 3).estimate(some, "m").mean == 2


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.batches = convolutional(), []

    def forward(self, x):
        self.batches.append(len(x))
        return self.net(x)


def test_deletion_insertion_and_road_share_one_clean_forward_and_their_batches():
    """Alone they are 51 + 51 + 19 forwards of an image; no perturbed image is another's, so that 119 remain."""
    x, cam_map = images(count=1), np.random.default_rng(0).random((1, 12, 16)).astype(np.float32)
    alone = Counting()
    for metric in (Deletion(), Insertion(), ROADCombined()):
        metric(x, cam_map, [ClassifierOutputSoftmaxTarget(0)], alone)
    assert sum(alone.batches) == 121
    together = Counting()
    evaluation = evaluate(together, x, GradCAM, targets=[0], layers="net.last", align="cell", baselines=False)
    assert evaluation.rows[0].metrics.forwards == 1 + 50 + 50 + 18
    assert 1 <= evaluation.rows[0].maps.forwards <= 2, "the first call looks at the model, too"
    assert evaluation.rows[0].maps.seconds > 0
    assert len(together.batches) <= len(alone.batches)


def test_the_same_seed_gives_the_same_table():
    first, again, other = (found("entropy", "randomcam", seed=seed) for seed in (1, 1, 2))
    assert first.records()[0]["entropy"] == again.records()[0]["entropy"] != other.records()[0]["entropy"]
    assert first.estimate(first.rows[1], "entropy") == again.estimate(again.rows[1], "entropy")


def test_metrics_by_name_and_of_ones_own():
    assert metric_called("MAX_SENSITIVITY").name == "max-sensitivity"
    assert all(metric_called(name) is metric for name, metric in available_metrics().items())
    own = Metric("share of the image", False, "maps", lambda maps: maps.flatten(1).mean(1))
    values = found([own, "complexity"]).rows[0].values
    np.testing.assert_allclose(values["share of the image"], values["complexity"], atol=1e-6)
    assert values["complexity"].max() > 0


@pytest.mark.slow
def test_every_metric_runs(digits_net):
    rng = np.random.default_rng(3)
    scenes = [make_scene(rng) for _ in range(6)]
    x = preprocess_scene(np.stack([scene.image for scene in scenes]))
    fast = [name for name in available_metrics() if name not in ("deletion", "insertion", "ROAD", "smooth MPRT")]
    labels = [int(scene.labels[0]) for scene in scenes]
    evaluation = evaluate(
        digits_net,
        x,
        "gradcam",
        fast,
        targets=labels,
        truth=[s.masks[0] for s in scenes],
        layers="layer4",
        align="cell",
    )
    for metric in fast:
        assert np.isfinite(evaluation.rows[0].values[metric]).all(), metric


def test_tables(tmp_path):
    evaluation = found(["deletion", "flip stability"], [GradCAM, LayerCAM])
    records = evaluation.records()
    text = evaluation.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["method"] for row in rows] == ["GradCAM", "LayerCAM", *BASELINES]
    for row, record in zip(rows, records, strict=True):
        assert float(row["deletion"]) == pytest.approx(record["deletion"])
        assert float(row["deletion low"]) <= float(row["deletion"]) <= float(row["deletion high"])
    latex = evaluation.to_latex(tmp_path / "table.tex")
    assert latex.count(r"\\") == 6
    assert latex.count(r"\textbf") == 2
    best = evaluation.best("deletion")
    assert f"{best.name} & \\textbf" in latex
    assert best.values["deletion"].mean() == min(row.values["deletion"].mean() for row in evaluation.rows[:2])
    shown = evaluation._repr_html_()
    assert shown.count("<tr>") == 6
    assert "deletion ↓" in shown
    assert "flip stability ↑" in str(evaluation)
    assert repr(evaluation) == "<Evaluation of 5 rows by deletion, flip stability over 5 images>"
    figure = evaluation.figure()
    assert isinstance(figure, Figure)
    assert [axes.get_title() for axes in figure.axes] == ["deletion ↓", "flip stability ↑"]


def test_names_are_escaped():
    row = Row("a_b & <c>", "m", "", {"x_1": np.array([1.0])}, Cost(0, 0), Cost(0, 0))
    evaluation = Evaluation([row], {"x_1": True}, 1)
    assert r"a\_b \& <c>" in evaluation.to_latex()
    assert r"x\_1" in evaluation.to_latex()
    assert "a_b &amp; &lt;c&gt;" in evaluation._repr_html_()


def test_pandas(monkeypatch):
    """Its own DataFrame where it is installed, and an error that says so where it is not."""
    evaluation = found("entropy")
    made = []
    imitated = type("pandas", (), {"DataFrame": staticmethod(lambda records: made.append(records) or "frame")})
    monkeypatch.setitem(__import__("sys").modules, "pandas", imitated)
    assert evaluation.to_pandas() == "frame"
    assert [record["method"] for record in made[0]] == ["GradCAM", *BASELINES]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas: pip install pandas"):
        evaluation.to_pandas()


def test_the_model_is_left_as_it_was():
    model, x = convolutional().train(), images(count=5)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    evaluate(model, x, "gradcam", ["deletion", "MPRT"], targets=CLASSES, layers="last")
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not model._forward_pre_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": "iou"}, ValueError, "IoU: boxes or masks are needed, pass truth="),
        ({"metrics": "delition"}, ValueError, "no metric is called 'delition'; did you mean deletion"),
        ({"metrics": []}, ValueError, "one or more each"),
        ({"metrics": "iou", "truth": BOXES[:2]}, ValueError, "2 truths for 5 images"),
        ({"metrics": "iou", "truth": BOXES + 50}, ValueError, "ground truth of image 0 has no pixel"),
        ({"metrics": "entropy", "targets": [0, 1]}, ValueError, "2 targets for 5 images"),
        ({"metrics": "entropy", "targets": [9] * 5}, IndexError, "9"),
        ({"metrics": "entropy", "method": 3}, TypeError, "takes no 'method'"),
        ({"metrics": "grid pointing game", "targets": 0}, ValueError, "a mosaic needs four different ones"),
    ],
)
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        found(**options)


def test_data_that_are_refused():
    for data, message in (
        (images()[:0], "no images"), ([], "no images"), (iter([]), "no images"),
        ([[1, 2]].__iter__(), "the loader gave list"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            evaluate(convolutional(), data, "gradcam", "entropy", layers="last")
    with pytest.raises(ValueError, match="an iterator is gone through once"):
        evaluate({"a": convolutional(), "b": convolutional()}, iter([images()]), "gradcam", "entropy")
    loader = DataLoader(TensorDataset(images()), batch_size=2)
    with pytest.raises(ValueError, match="a loader gives its own targets"):
        evaluate(convolutional(), loader, "gradcam", "entropy", targets=[0, 1])


def test_it_is_exported():
    assert pytorch_grad_cam.evaluate is evaluate
    assert pytorch_grad_cam.Evaluation is Evaluation

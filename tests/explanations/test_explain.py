"""`explain`, what it returns, and the comparison figure."""

import copy
import threading
import warnings

import numpy as np
import pytest
import torch
from attentive import Attentive
from matplotlib.figure import Figure
from nets import convolutional, images, in_threads, state_of
from PIL import Image
from torch import nn
from torchvision import models, transforms

from pytorch_grad_cam import EigenCAM, FinerCAM, GradCAM, LayerCAM, compare, explain
from pytorch_grad_cam.demo import example_scene, preprocess_scene
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from pytorch_grad_cam.zoo.classifiers import UnusableInput, classifier_of


@pytest.fixture
def small():
    """A classifier of five classes for any size."""
    return convolutional()


def test_a_map_is_that_of_the_class_with_registered_cells(digits_net):
    scene = example_scene()
    found = explain(digits_net, scene, [GradCAM, "layercam"], targets=[5, "7"], layers=["layer3", ["layer3", "layer4"]])
    x = preprocess_scene(scene)
    expected = [
        method(digits_net, layers, align="receptive_field")(x, target)[0]
        for method in (GradCAM, LayerCAM)
        for layers in ("layer3", ["layer3", "layer4"])
        for target in (5, 7)
    ]
    np.testing.assert_allclose(found.maps, np.stack(expected), atol=1e-5)
    described = [(panel.method, panel.layer, panel.category) for panel in found.panels]
    assert described[:4] == [("GradCAM", layers, c) for layers in ("layer3", "layer3 + layer4") for c in (5, 7)]
    assert described[-1] == ("LayerCAM", "layer3 + layer4", 7)
    np.testing.assert_array_equal(found.picture, scene)


def test_scores_and_highest_classes(digits_net):
    found = explain(digits_net, example_scene(), top=2)
    with torch.no_grad():
        logits = digits_net(preprocess_scene(example_scene()))[0]
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    np.testing.assert_allclose(found.probabilities, logits.sigmoid(), atol=1e-5)
    assert [panel.category for panel in found.panels] == [7, 5]
    assert [name for _, name, _ in found.top(2)] == ["7", "5"]
    assert found.versions["torch"] == torch.__version__


@pytest.mark.parametrize("form", ["path", "pillow", "array", "floats", "tensor", "batch"])
def test_forms_of_images(form, tmp_path, digits_net):
    scene = example_scene()
    file = tmp_path / "scene.png"
    Image.fromarray(scene).save(file)
    image = {
        "path": file,
        "pillow": Image.fromarray(scene),
        "array": scene,
        "floats": scene / 255,
        "tensor": preprocess_scene(scene)[0],
        "batch": preprocess_scene(scene),
    }[form]
    found = explain(digits_net, image, targets=5)
    np.testing.assert_allclose(found.maps, explain(digits_net, scene, targets=5).maps, atol=1e-5)
    assert found.title == ("scene.png" if form == "path" else "")


@pytest.mark.slow
def test_models_by_name_and_of_other_libraries():
    photo = np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8)
    named = explain("resnet18", photo, targets="tabby", weights="none")
    torch.manual_seed(0)
    given = explain(models.resnet18(), photo, targets=281)
    np.testing.assert_allclose(named.maps, given.maps, atol=1e-4)
    assert str(given.panels[0]).startswith("tabby ")
    timm = pytest.importorskip("timm")
    vit = explain(timm.create_model("vit_tiny_patch16_224", num_classes=7), photo)
    assert vit.maps.shape == (1, 224, 224)
    assert vit.panels[0].name.startswith("class ")


def test_preprocessing_and_names_of_the_users(small):
    steps = [transforms.Resize((24, 32)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.2] * 3)]
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    names = ["ant", "bee", "cat", "dog", "eel"]
    found = explain(small, photo, targets="cat", preprocess=transforms.Compose(steps), categories=names)
    resized = np.asarray(Image.fromarray(photo).resize((32, 24), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(found.picture - resized).mean() < 2, "mean and deviation are those of the composition"
    assert found.panels[0].name == "cat"
    stretched = explain(small, photo, preprocess=lambda image: transforms.ToTensor()(image) * 7 - 3)
    assert (stretched.picture.min(), stretched.picture.max()) == (0, 255)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1)])
def test_the_precision_is_the_models(dtype, tolerance, digits_net):
    found = explain(copy.deepcopy(digits_net).to(dtype), example_scene(), targets=[5, 7])
    assert np.abs(found.maps - explain(digits_net, example_scene(), targets=[5, 7]).maps).mean() < tolerance
    assert np.abs(found.picture - example_scene().astype(float)).max() <= 1


def test_preprocessing_to_a_batch_of_one(small):
    photo = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)

    def to_tensor(image):
        return preprocess_scene(np.asarray(image))

    maps = [explain(small, photo, preprocess=step).maps for step in (to_tensor, lambda i: to_tensor(i)[0])]
    np.testing.assert_allclose(*maps, atol=1e-5)
    with pytest.raises(ValueError, match=r"what preprocess returns has shape \(3, 24\), expected \(C, H, W\) or"):
        explain(small, photo, preprocess=lambda image: torch.zeros(3, 24))


def test_callables_and_methods_around_methods(small):
    def difference(output):
        return output[1] - output[2]

    found = explain(small, torch.randn(3, 24, 32), [FinerCAM, EigenCAM], targets=[3, 1], layers=["last"], align="cell")
    assert [panel.category for panel in found.panels] == [3, 1, 3, 1]
    assert (found.maps[2] == found.maps[3]).all(), "one that knows no class"
    (panel,) = explain(small, torch.randn(3, 24, 32), targets=difference).panels
    assert (panel.category, panel.name, panel.probability) == (None, "difference", None)


def test_smoothing_and_one_logit():
    small = nn.Sequential(*convolutional()[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)).eval()
    x = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(0))
    smooth = explain(small, x, layers="3", align="cell", aug_smooth=True, eigen_smooth=True)
    (panel,) = smooth.panels
    target = BinaryClassifierOutputTarget(panel.category)
    np.testing.assert_allclose(smooth.maps, GradCAM(small, "3")(x[None], target, aug_smooth=True, eigen_smooth=True))
    with torch.no_grad():
        positive = small(x[None]).sigmoid().item()
    assert panel.category == int(positive > 0.5)
    assert panel.probability == pytest.approx(max(positive, 1 - positive), abs=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_tensor_of_other_channels_is_shown_as_grey(channels):
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x = torch.linspace(-3, 5, channels * 24 * 32).reshape(channels, 24, 32)
    picture = explain(net, x, layers="1", align="cell", methods="eigencam").picture
    first = np.rint(255 * (x[0] + 3) / 8).numpy()
    np.testing.assert_array_equal(picture, np.stack([first] * 3, axis=2))


def test_a_tensor_that_was_not_normalised_is_shown_as_it_is(small, digits_net):
    x = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(explain(small, x).picture, np.rint(255 * x.movedim(0, -1).numpy()))
    normalised = preprocess_scene(np.full((64, 64, 3), 190, np.uint8))
    assert 0 <= normalised.min() <= normalised.max() <= 1
    assert (explain(digits_net, normalised, targets=5).picture == 190).all(), "its preprocessing is known"
    statistics = transforms.Normalize([0.5] * 3, [0.25] * 3)
    assert (explain(small, normalised, preprocess=statistics).picture == 190).all()


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_is_the_model(wrap, digits_net):
    found, plain = (explain(model, example_scene(), targets="5") for model in (wrap(digits_net), digits_net))
    np.testing.assert_array_equal(found.picture, plain.picture)
    np.testing.assert_allclose(found.maps, plain.maps, atol=1e-6)
    np.testing.assert_array_equal(found.probabilities, plain.probabilities)
    assert [str(panel) for panel in found.panels] == [str(panel) for panel in plain.panels]


def test_the_highest_of_classes_whose_probabilities_are_all_one(small):
    small.head.weight.data.zero_()
    small.head.bias.data[:] = torch.tensor([19.9, -5.8, 40.2, 30.0, 40.2])
    classifier = classifier_of(small)._replace(probabilities=torch.sigmoid)
    found = explain(classifier, torch.randn(3, 24, 32), "eigencam", top=2)
    assert [panel.category for panel in found.panels] == [2, 4]
    assert [index for index, _, _ in found.top(4)] == [2, 4, 3, 0]


def test_the_model_is_left_as_it_was(small):
    small.train()
    before = state_of(small)
    explain(small, torch.randn(3, 24, 32))
    assert state_of(small) == before


def test_blank_maps_are_told_twice(digits_net):
    class Negative(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.head = nn.ReLU(), nn.Linear(3, 2)
            self.head.weight.data[:] = -1

        def forward(self, x):
            return self.head(self.last(x).mean((2, 3)))

    with pytest.warns(CamWarning, match="no positive evidence") as issued:
        found = explain(Negative(), torch.rand(3, 16, 16), layers="last", align="cell")
    assert found.warnings == ["GradCAM at last: the map is blank: no positive evidence, all that the layer says speaks "
                              "against the target"]  # fmt: skip
    assert "no positive evidence" in found._repr_html_()
    assert [warning.filename for warning in issued] == [__file__]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"methods": "gradcum"}, ValueError, "no method is called 'gradcum'"),
        ({"targets": "zebra"}, UnusableInput, "no single class is called 'zebra'"),
        ({"targets": 10}, IndexError, "10 classes"),
        ({"image": "nowhere.png"}, UnusableInput, "there is no image nowhere.png"),
        ({"image": np.zeros((8, 8, 2), np.uint8)}, ValueError, r"shape \(8, 8, 2\), expected a path, bytes, a Pillow"),
        ({"image": None}, ValueError, r"the image is None, as cv2\.imread returns it"),
        ({"image": np.full((8, 8, 3), 7.0)}, ValueError, r"expected \[0, 1\]"),
        ({"image": torch.zeros(3, 64)}, ValueError, r"expected \(C, H, W\) or \(N, C, H, W\)"),
        ({"layers": ["layer9"]}, ValueError, "no layer 'layer9'"),
        ({"methods": []}, ValueError, "methods is empty: pass one or more, or leave it out"),
        ({"targets": []}, ValueError, "targets is empty"),
        ({"layers": ()}, ValueError, "layers is empty"),
        ({"top": 0}, ValueError, "top is 0, expected"),
        ({"top": -1}, ValueError, "top is -1, expected"),
    ],
)
def test_errors(change, error, message, digits_net):
    with pytest.raises(error, match=message):
        explain(**{"model": digits_net, "image": example_scene(), **change})


def test_a_model_without_class_scores():
    with pytest.raises(ValueError, match="no class scores"):
        explain(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(2)), torch.rand(3, 8, 8))


def test_two_threads_leave_the_warnings_as_they_were(digits_net):
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()

    def first(scores):
        first_is_in.set()
        second_is_in.wait(0.5)
        return scores[5]

    def second(scores):
        second_is_in.set()
        first_is_out.wait(5)
        return scores[7]

    def work(index):
        if index == 0:
            explain(digits_net, example_scene(), targets=first)
            first_is_out.set()
        else:
            first_is_in.wait(5)
            explain(digits_net, example_scene(), targets=second)

    before = list(warnings.filters)
    in_threads(work, 2)
    assert warnings.filters == before


def test_the_classes_are_those_of_the_output_transform(small):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small

        def forward(self, x):
            scores = self.inner(x)
            return {"features": -scores, "scores": scores}

    x = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(0))
    found = explain(Both(), x, layers="inner.last", output_transform=lambda outputs: outputs["scores"])
    plain = explain(small, x, layers="last")
    np.testing.assert_array_equal(found.logits, plain.logits)
    assert found.panels[0].category == plain.panels[0].category
    np.testing.assert_allclose(found.maps, plain.maps, atol=1e-6)


@pytest.fixture
def found(digits_net):
    return explain(digits_net, example_scene(), ["gradcam", "fullgrad"], targets=[5, 7])


def test_overlays_masks_and_boxes(found):
    expected = show_cam_on_image(example_scene(), found.panels[1].map, use_rgb=True, image_weight=0.3)
    np.testing.assert_array_equal(found.overlay(1, image_weight=0.3), expected)
    np.testing.assert_array_equal(found.masks(0.7), found.maps >= 0.7)
    left, top, right, bottom = found.boxes(0.5)[0][0]
    assert (left < 20 < right, top < 47 < bottom) == (True, True), "the 5 of the scene"
    assert len(found.boxes()) == len(found.masks()) == 4
    with pytest.raises(ValueError, match="'otsu' or a threshold"):
        found.masks("triangle")


def test_files(found, tmp_path):
    files = found.save(tmp_path / "new")
    assert [file.name for file in files[:2]] == ["00_GradCAM_layer4_5.png", "01_GradCAM_layer4_7.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(files[1])), found.overlay(1))
    np.testing.assert_array_equal(np.load(files[-1]), found.maps)
    assert found.report(tmp_path / "report.html").read_text().count("FullGrad") >= 2


def test_a_notebook_shows_the_overlays_and_escapes(found):
    found.title = "<script>alert(1)</script>"
    shown = found._repr_html_()
    assert shown.count("<img") == 4
    assert "<script>" not in shown


@pytest.mark.slow
def test_figure(found, tmp_path):
    figure = found.grid()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["5 100.0%", "7 100.0%"]
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(shown[0], found.picture)
    assert any((picture == found.overlay(3)).all() for picture in shown)
    figure.savefig(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_dollars_in_names_are_no_formulas(found, tmp_path):
    found.title = "cost_$5^$.jpg"
    found.panels = [panel._replace(name="$^$", method="$^$", layer="$_$") for panel in found.panels]
    found.grid().savefig(tmp_path / "figure.png")


def test_explanations_can_be_compared(found):
    assert found == found
    assert found != copy.copy(found)


def test_compare(digits_net):
    figure = compare(digits_net, example_scene(), ["gradcam", "eigencam"], targets=5)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG"), "what a notebook shows"
    assert sum(len(axes.images) for axes in figure.axes) >= 3


def test_callables_of_one_name_have_columns_of_their_own(digits_net):
    targets = [lambda scores: scores[5] - scores[7], lambda scores: scores[7] - scores[5]]
    figure = compare(digits_net, example_scene(), ["gradcam", "layercam"], targets=targets)
    overlays = [axes.images[0].get_array() for axes in figure.axes if axes.images][1:]
    assert len([each for each in overlays if each.ndim == 3]) == 4
    assert not np.array_equal(overlays[0], overlays[1])
    assert [axes.get_title() for axes in figure.axes].count("<lambda>") == 2


@pytest.mark.parametrize("name", ["legrad", "Grad-ECLIP", "attention rollout"])
def test_methods_on_attention_by_name(name):
    model = Attentive()
    picture = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    explanation = explain(model, picture, targets=3, methods=name, preprocess=lambda image: images()[0])
    assert explanation.maps.shape[-2:] == (12, 16)

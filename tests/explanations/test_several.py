"""Several images: lists, batches, loaders and folders take the path of one, and stream."""

import gc
import itertools
import warnings
import weakref

import numpy as np
import pytest
import torch
from nets import CLASSES, convolutional
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms

from pytorch_grad_cam import CamWarning, GradCAM, compare, explain
from pytorch_grad_cam.zoo.classifiers import UnusableInput

PHOTOS = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), np.uint8)
X = torch.stack([transforms.functional.to_tensor(photo) for photo in PHOTOS])
HOW = {"preprocess": transforms.ToTensor(), "align": "cell", "layers": "last"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, photo in enumerate(PHOTOS):
        Image.fromarray(photo).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def net():
    return convolutional()


@pytest.fixture(scope="module")
def expected(net):
    """One by one, by the class itself."""
    with GradCAM(net, "last") as cam:
        return cam(X)


FORMS = {
    "list of arrays": lambda _: list(PHOTOS),
    "list of paths": lambda folder: sorted(folder.glob("*.png")),
    "generator of arrays": lambda _: (photo for photo in PHOTOS),
    "array with a batch axis": lambda _: PHOTOS,
    "channels first": lambda _: PHOTOS.transpose(0, 3, 1, 2),
    "tensor of integers": lambda _: torch.from_numpy(PHOTOS),
    "tensor of floats": lambda _: X,
    "list of inputs": lambda _: list(X),
    "loader with labels": lambda _: DataLoader(TensorDataset(X, torch.arange(5)), batch_size=2),
    "loader of mappings": lambda _: [{"pixel_values": x[None], "labels": torch.zeros(1)} for x in X],
    "folder": lambda folder: folder,
    "glob": lambda folder: f"{folder}/*.png",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_maps_of_the_images(form, folder, net, expected):
    found = list(explain(net, FORMS[form](folder), batch_size=2, **HOW))
    np.testing.assert_allclose(np.concatenate([each.maps for each in found]), expected, atol=1e-5)
    for explanation, photo in zip(found, PHOTOS, strict=True):
        np.testing.assert_array_equal(explanation.picture, photo)
    titles = [f"{index}.png" for index in range(5)]
    assert [each.title for each in found] == (titles if form in ("list of paths", "folder", "glob") else [""] * 5)


def test_images_of_several_sizes_keep_their_order(net):
    photos = [photo[: 24 - 4 * (index % 2)] for index, photo in enumerate(PHOTOS)]
    found = list(explain(net, photos, batch_size=4, **HOW))
    assert [each.picture.shape[0] for each in found] == [24, 20, 24, 20, 24]
    single = [explain(net, photo, **HOW) for photo in photos]
    for one, other in zip(found, single, strict=True):
        np.testing.assert_allclose(one.maps, other.maps, atol=1e-5)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
        assert one.assumptions == other.assumptions


@pytest.mark.slow
def test_a_stream_takes_images_as_it_is_asked_and_keeps_none(net):
    taken, alive = [], []

    def photos():
        for index in itertools.count():
            taken.append(index)
            yield PHOTOS[index % 5]

    stream = explain(net, photos(), batch_size=1, **HOW)
    for explanation in itertools.islice(stream, 30):
        alive.append(weakref.ref(explanation))
    del explanation
    stream.close()
    gc.collect()
    assert len(taken) < 40, "a few batches ahead"
    assert not any(each() for each in alive[:-4])


def test_a_file_that_cannot_be_read_is_left_out_of_a_folder_and_refused_in_a_list(folder, net):
    (folder / "2.png").write_bytes(b"no image")
    with pytest.warns(CamWarning, match=r"not explained: .*2\.png is no image"):
        found = list(explain(net, folder, **HOW))
    assert [each.title for each in found] == ["0.png", "1.png", "3.png", "4.png"]
    with pytest.raises(UnusableInput, match=r"2\.png is no image"):
        list(explain(net, sorted(folder.glob("*")), **HOW))


def test_a_folder_is_continued_by_its_manifest(folder, net, tmp_path):
    how = {**HOW, "output_dir": tmp_path / "maps", "save": ["map", "boxes"], "batch_size": 1}
    stream = explain(net, folder, **how)
    next(stream)
    stream.close()
    found = list(explain(net, folder, **how))
    assert 0 < len(found) < 5
    assert list(explain(net, folder, **how)) == []
    assert len(list((tmp_path / "maps").glob("*.npy"))) == 5
    with pytest.raises(UnusableInput, match="another configuration"):
        list(explain(net, folder, top=2, **how))
    with pytest.raises(UnusableInput, match="output_dir is for files"):
        explain(net, list(PHOTOS), **how)
    with pytest.raises(UnusableInput, match=r"save is .*'video'"):
        explain(net, folder, **{**how, "save": ["video"]})


def test_an_assumed_preprocessing_is_warned_of_once(net):
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        list(explain(net, list(PHOTOS), "eigencam", batch_size=2))
    assert len([each for each in issued if "preprocess=" in str(each.message)]) == 1


def test_blank_maps_are_told_of_the_images_that_have_them(net):
    found = list(explain(net, list(PHOTOS), targets=[0, 1, 2, 3, 4], batch_size=5, **HOW))
    for explanation in found:
        blank = [not panel.map.any() for panel in explanation.panels]
        assert any(blank) == any("the map is blank" in warning for warning in explanation.warnings)


def test_nothing_is_no_images(net):
    with pytest.raises(ValueError, match="there are no images"):
        explain(net, [])


class OfTwo(nn.Module):
    """An image and four numbers."""

    def __init__(self):
        super().__init__()
        self.net, self.numbers = convolutional(), nn.Linear(4, CLASSES)

    def forward(self, image, numbers):
        return self.net(image) + self.numbers(numbers)


@pytest.mark.parametrize("form", ["mapping", "tuple"])
def test_several_inputs(form):
    model, numbers = OfTwo().eval(), torch.ones(1, 4)
    inputs = {"image": X[:1], "numbers": numbers} if form == "mapping" else (X[:1], numbers)
    found = explain(model, inputs, layers="net.last", align="cell")
    np.testing.assert_allclose(found.maps, GradCAM(model, "net.last")(inputs), atol=1e-5)
    np.testing.assert_array_equal(found.picture, PHOTOS[0])


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes(rank):
    model = convolutional(rank)
    x = torch.randn(2, 3, *{1: (24,), 3: (6, 8, 10)}[rank], generator=torch.Generator().manual_seed(0))
    found = list(explain(model, x, layers="last", align="cell"))
    np.testing.assert_allclose(np.concatenate([each.maps for each in found]), GradCAM(model, "last")(x), atol=1e-5)
    one = explain(model, x[0], layers="last", align="cell")
    np.testing.assert_allclose(one.maps, found[0].maps, atol=1e-5)
    assert one.overlay().ndim == 3


def test_a_figure_is_of_one_image(net):
    with pytest.raises(ValueError, match="one image"):
        compare(net, list(PHOTOS), **HOW)


FIVE = ["ant", "bee", "cat", "dog", "eel"]
TRUTHS = {
    "a loader's labels": (lambda _: DataLoader(TensorDataset(X, torch.arange(5)), batch_size=2), None, FIVE),
    "labels of mappings": (lambda _: [{"x": X[:2], "labels": torch.tensor([1, 9])}], None, ["bee", None]),
    "floats are no classes": (lambda _: [(X[:2], torch.zeros(2))], None, [None, None]),
    "one for each": (lambda _: list(PHOTOS[:2]), ["cat", 3], ["cat", "dog"]),
    "one for all": (lambda _: list(PHOTOS[:2]), 4, ["eel", "eel"]),
    "by file names": (lambda folder: folder, {"1.png": "cat", "4.png": 0}, [None, "cat", None, None, "ant"]),
}


@pytest.mark.parametrize("form", TRUTHS)
def test_the_right_class_is_told(form, folder, net):
    images, truth, right = TRUTHS[form]
    found = list(explain(net, images(folder), truth=truth, categories=FIVE, batch_size=2, **HOW))
    assert [explanation.truth for explanation in found] == right


def test_the_right_class_of_one_image(net, folder, tmp_path):
    assert explain(net, PHOTOS[0], truth="cat", categories=FIVE, **HOW).truth == "cat"
    assert explain(net, folder / "1.png", truth={"1.png": 2}, categories=FIVE, **HOW).truth == "cat"
    with pytest.raises(UnusableInput, match="no single class is called 'zebra'"):
        explain(net, PHOTOS[0], truth="zebra", categories=FIVE, **HOW)
    with pytest.raises(ValueError, match="truth of images that are written goes by their names"):
        explain(net, folder, truth=[1, 2, 3, 4, 5], output_dir=tmp_path / "maps", **HOW)


def test_how_a_result_was_made(net):
    about = explain(net, PHOTOS[0], **HOW).about
    assert about["model"] == type(net).__name__
    assert about["align"] == "cell"
    assert about["date"][:2] == "20"
    assert explain("digits", PHOTOS[0]).about["model"] == "digits"


def test_a_reason_why_a_map_is_blank_is_that_panels(net):
    found = list(explain(net, list(PHOTOS), targets=[0, 1, 2, 3, 4], batch_size=5, **HOW))
    panels = [panel for explanation in found for panel in explanation]
    assert {bool(panel.warnings) for panel in panels} == {True, False}
    for panel in panels:
        assert bool(panel.warnings) == (not panel.map.any())

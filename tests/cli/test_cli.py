"""The command line as a user meets it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from every_method import ATTENTION_METHODS
from mistakes import assert_one_line
from PIL import Image

from pytorch_grad_cam.cli import main
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.explanations.methods import available_methods
from pytorch_grad_cam.zoo.classifiers import load_classifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_every_method_has_its_lower_case_name(method):
    assert available_methods()[method.__name__.lower().replace("_", "")] is method
    assert available_methods()["gradcam++"].__name__ == "GradCAMPlusPlus"


def test_the_bundled_scene(tmp_path, capsys):
    assert main(["--output-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "100.00%  7 (7)" in said
    assert "target layer: layer4 (Sequential)" in said
    for kind in ("", ".gb", ".cam_gb"):
        file = tmp_path / f"scene.png.gradcam.7{kind}.jpg"
        assert f"wrote {file}" in said
        assert Image.open(file).size == (256, 256)


def test_the_heat_is_on_the_digit_that_was_asked_about(tmp_path):
    """In the bundled scene the 7 stands right, the 5 bottom left."""
    assert main(["--target-category", "7", "5", "--output-dir", str(tmp_path)]) == 0
    for digit, (top, bottom, left, right) in {7: (70, 170, 180, 256), 5: (140, 240, 20, 110)}.items():
        picture = np.asarray(Image.open(tmp_path / f"scene.png.gradcam.{digit}.jpg")).astype(float)
        plain = np.asarray(Image.fromarray(example_scene()).resize((256, 256))).astype(float)
        redder = (picture[..., 0] - picture[..., 2]) - (plain[..., 0] - plain[..., 2])
        row, column = np.unravel_index(redder.argmax(), redder.shape)
        assert top < row < bottom
        assert left < column < right


def test_of_classes_with_one_probability_that_of_the_highest_score_is_listed_first_and_explained(tmp_path, capsys):
    weights = load_classifier("digits").model.state_dict()
    weights["fc.weight"].zero_()
    weights["fc.bias"][:] = torch.tensor([0, 0, 0, 100, 0, 200, 0, 0, 0, 0])
    torch.save(weights, tmp_path / "certain.pt")
    assert main(["--weights", str(tmp_path / "certain.pt"), "--output-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "100.00%" in line] == ["100.00%  5 (5)", "100.00%  3 (3)"]
    assert "gradcam for 5 (5)" in said


OF_ANY_NETWORK = sorted(name for name, method in available_methods().items() if method not in ATTENTION_METHODS)


def test_every_method_on_attention_has_its_lower_case_name(attention_method):
    assert available_methods()[attention_method.__name__.lower()] is attention_method


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ANY_NETWORK)
def test_every_method(name, tmp_path):
    assert main(["--method", name, "--batch-size", "64", "--output-dir", str(tmp_path)]) == 0
    method = available_methods()[name].__name__.lower().replace("_", "")
    assert (tmp_path / f"scene.png.{method}.7.jpg").exists()


@pytest.mark.slow
def test_methods_layers_and_classes_beside_each_other(tmp_path, capsys):
    arguments = [
        "--method",
        "gradcam",
        "layercam",
        "--target-category",
        "5",
        "7",
        "--target-layers",
        "layer3",
        "layer4",
    ]
    arguments += ["--comparison", str(tmp_path / "figure.pdf"), "--report", str(tmp_path / "page.html")]
    assert main([*arguments, "--output-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "100.00%  7 (7)" in said
    assert f"wrote {tmp_path / 'figure.pdf'}" in said
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    page = (tmp_path / "page.html").read_text()
    assert page.count('"method": "LayerCAM"') == 4
    assert "scene.png" in page


@pytest.mark.slow
def test_all_methods_of_one_image(tmp_path):
    assert main(["--method", "all", "--target-category", "5", "--output-dir", str(tmp_path)]) == 0
    with Image.open(tmp_path / "comparison.png") as figure:
        assert figure.height > 4 * figure.width, "a row for each method"


def test_a_page_of_several_images(tmp_path, capsys):
    for name in ("one.png", "two.png"):
        Image.fromarray(example_scene()).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page = tmp_path / "page.html"
    assert (
        main(
            [
                "--image-path",
                str(tmp_path),
                "--model",
                "digits",
                "--report",
                str(page),
                "--output-dir",
                str(page.parent / "out"),
            ]
        )
        == 1
    )
    assert "broken.png is no image" in capsys.readouterr().out
    assert page.read_text().count('"method": "GradCAM"') == 2


def test_several_methods_of_several_images(tmp_path, capsys):
    Image.fromarray(example_scene()).save(tmp_path / "one.png")
    arguments = ["--image-path", str(tmp_path), "--model", "digits", "--method", "gradcam", "layercam"]
    assert main([*arguments, "--output-dir", str(tmp_path / "out")]) == 0
    written = {file.name for file in (tmp_path / "out").glob("*.jpg")}
    assert written == {"one.png.gradcam.7.jpg", "one.png.layercam.7.jpg"}
    assert main([*arguments, "--comparison", str(tmp_path / "figure.png")]) == 2
    assert "pass --report FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_options_together(tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.uint8(np.random.default_rng(0).random((80, 120, 3)) * 255)).save(photo)
    arguments = ["--image-path", str(photo), "--model", "resnet18", "--weights", "none", "--aug-smooth"]
    arguments += ["--eigen-smooth", "--target-category", "tabby", "281", "golden retriever", "--device", "cpu"]
    arguments += ["--target-layers", "layer3", "layer4.1", "--method", "gradcam++", "--output-dir", str(tmp_path)]
    assert main(arguments) == 0
    assert "gradcamplusplus for golden retriever (207)" in capsys.readouterr().out
    expected = {f"photo.png.gradcamplusplus.{c}{kind}.jpg" for kind in ("", ".gb", ".cam_gb") for c in (281, 207)}
    assert expected <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenet_v3_small"])
def test_models_by_name(model, tmp_path):
    assert main(["--model", model, "--weights", "none", "--output-dir", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("scene.png.gradcam.*.jpg"))) == 3


def test_registered_maps_are_the_default_and_said(tmp_path, capsys):
    for align, options in (("receptive_field", []), ("cell", ["--align", "cell"])):
        assert main(["--output-dir", str(tmp_path / align), *options]) == 0
        said = capsys.readouterr().out
        assert ("registered, --align cell undoes it: cells every 8, 8 px" in said) == (align == "receptive_field")
        assert (tmp_path / align / "scene.png.gradcam.7.jpg").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--method", "gradcam", "layercam"], ["--report", "page.html"]])
def test_registered_maps_beside_each_other_are_said(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(options) == 0
    assert "registered, --align cell undoes it" in capsys.readouterr().out
    assert main([*options, "--align", "cell"]) == 0
    assert "registered" not in capsys.readouterr().out


def test_preview(capsys):
    assert main(["--preview-model"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["layer4", "Sequential", "1", "x", "128", "x", "8", "x", "8"] in lines
    assert ["fc", "Linear", "1", "x", "10"] in lines


def test_weights_from_a_file(tmp_path):
    model = load_classifier("resnet18", "none").model
    model.fc.bias.data[:] = 3
    for name, state in {"plain": model.state_dict(), "wrapped": {"state_dict": model.state_dict()}}.items():
        torch.save(state, tmp_path / name)
        assert (load_classifier("resnet18", str(tmp_path / name)).model.fc.bias == 3).all()


def test_preprocessing_is_the_models_own():
    classifier = load_classifier("inception_v3", "none")
    image = Image.fromarray(np.full((400, 500, 3), 128, np.uint8))
    x = classifier.preprocess(image)
    assert x.shape == (3, 299, 299)
    np.testing.assert_allclose(classifier.picture(x), 128 / 255, atol=1e-3)


def broken_files(folder: Path) -> None:
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(example_scene()).save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:500])
    (folder / "weights.pt").write_text("no weights")
    torch.save({"a": torch.zeros(1)}, folder / "other.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-path", "missing.jpg"], "there is no image missing.jpg"),
        (["--image-path", "text.jpg"], "text.jpg is no image that Pillow can read"),
        (["--image-path", "empty.jpg"], "empty.jpg is no image that Pillow can read"),
        (["--image-path", "truncated.jpg"], "truncated.jpg is no image that Pillow can read"),
        (["--method", "gradcan"], "no method is called 'gradcan'; did you mean gradcam"),
        (["--model", "resnet5"], "no model is called 'resnet5'; did you mean"),
        (["--target-category", "seventeen"], "no single class is called 'seventeen'"),
        (["--target-category", "10"], "classes are 0 to 9"),
        (["--target-layers", "layer5"], "has no layer 'layer5'; did you mean layer"),
        (["--target-layers", "fc"], "pass a reshape_transform"),
        (["--weights", "missing.pt"], "there is no weights file missing.pt"),
        (["--weights", "weights.pt"], "weights.pt is no state dict that can be read without running code of it"),
        (["--weights", "other.pt"], "other.pt does not fit DigitsNet: missing: conv1.weight, bn1.weight, bn1.bias and"),
        (["--device", "nonsense"], "device nonsense cannot be used here"),
        (["--batch-size", "none"], "'none' is no positive number"),
        (
            ["--batch-size", "2", "--method", "gradcam", "sess"],
            "do not go with --comparison or several methods",
        ),
        (["--output-dir", "text.jpg"], "text.jpg"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    broken_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert_one_line(lambda: main(arguments), message, capsys)


def test_no_network_for_the_weights(tmp_path, monkeypatch, capsys):
    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    Image.fromarray(example_scene()).save(tmp_path / "photo.jpg")
    assert main(["--image-path", str(tmp_path / "photo.jpg")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "weights of resnet50 could not be fetched (Name or service not known)" in error
    for way_out in ("--weights FILE", "--weights none", "--model digits"):
        assert way_out in error


@pytest.mark.slow
@pytest.mark.parametrize("command", [["cam.py"], ["-m", "pytorch_grad_cam"]])
def test_as_a_command(command, tmp_path):
    arguments = [sys.executable, *command, "--method", "eigencam", "--output-dir", str(tmp_path)]
    finished = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stderr == ""
    assert "wrote" in finished.stdout
    failed = subprocess.run([*arguments, "--model", "nothing"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("cam.py: no model is called 'nothing'")


def test_the_sdist_has_what_setup_reads(tmp_path):
    """pip builds from it where there is no wheel."""
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    packed = (tmp_path / "grad_cam.egg-info/SOURCES.txt").read_text().splitlines()
    read = re.findall(r'HERE / "(.+?)"', (ROOT / "setup.py").read_text())
    assert "requirements.txt" in read
    assert set(read) <= set(packed)

"""A user's own model, weights, preprocessing and categories on the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import assert_one_line
from PIL import Image

from pytorch_grad_cam.cli import main
from pytorch_grad_cam.zoo.class_names import read_categories
from pytorch_grad_cam.zoo.classifiers import UnusableInput

ROOT = Path(__file__).parents[2]
CODE = """
import torch
from torch import nn
from torchvision import transforms

to_input = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])


class Net(nn.Sequential):
    def __init__(self, num_classes=5):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(*layers, nn.Linear(4, num_classes))


def make(num_classes=5):
    return Net(num_classes)


def preprocess(image):
    return to_input(image)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with own code, a photo and names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_nets.py").write_text(CODE)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "photo.jpg")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    yield tmp_path
    sys.modules.pop("own_nets", None)


def run(*arguments):
    return main(["--image-path", "photo.jpg", *arguments])


@pytest.mark.parametrize("name", ["own_nets.py:make", "own_nets.py:Net", "own_nets:Net"])
def test_an_own_model(name, own, capsys):
    how = ["--model-args", '{"num_classes": 3}', "--preprocess", "own_nets.py:preprocess", "--categories", "names.txt"]
    assert run("--model", name, *how, "--target-category", "cat") == 0
    said = capsys.readouterr().out
    assert "cat (2)" in said
    assert "preprocessing: the given preprocess" in said
    assert (own / "output/photo.jpg.gradcam.2.jpg").exists()


def test_own_weights_undone_and_said(own, capsys):
    from own_nets import Net

    torch.save({"state_dict": {f"module.{k}": v for k, v in Net(3).state_dict().items()}}, own / "weights.pt")
    arguments = ["--model", "own_nets:Net", "--model-args", '{"num_classes": 3}', "--weights", "weights.pt"]
    assert run(*arguments, "--preprocess", "own_nets:preprocess") == 0
    assert "weights: weights.pt, in 'state_dict', without the prefix 'module.'" in capsys.readouterr().out
    assert run(*arguments[:2], *arguments[4:]) == 2
    assert "does not fit Net: of another shape: 4.weight (3, 4) for (5, 4)" in capsys.readouterr().err


def test_an_assumed_preprocessing_is_said_and_refused_by_strict(own, capsys):
    assert run("--model", "own_nets.py:make") == 0
    told = capsys.readouterr()
    assert "--preprocess" in told.err or "preprocess=" in told.err
    assert "(assumed)" in told.out
    assert run("--model", "own_nets.py:make", "--strict") == 2
    assert "--strict refuses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "own_nets.py:made"], "own_nets.py has no 'made', but torch, nn, transforms, to_input, Net, make"),
        (["--model", "gone.py:make"], "there is no file gone.py"),
        (["--model", "gone.away:make"], "there is no module gone.away"),
        (["--model", "own_nets.py:to_input"], "own_nets.py:to_input cannot be called with {} (missing a required"),
        (["--model", "digits", "--model-args", '{"a": 1}'], "--model-args are for a model of your own"),
        (["--model", "own_nets:Net", "--model-args", "3"], "'3' is no JSON object"),
        (["--model", "own_nets:Net", "--categories", "gone.txt"], "there is no file of categories gone.txt"),
        (["--model", "own_nets:Net", "--categories", "names.txt"], "3 names, expected one for each of 5 classes"),
        (["--method", "grad_can"], "no method is called 'grad_can'; did you mean gradcam"),
    ],
)
def test_mistakes_are_one_line(arguments, message, own, capsys):
    assert_one_line(lambda: run("--preprocess", "own_nets.py:preprocess", *arguments), message, capsys)


@pytest.mark.parametrize("content", ["ant\n\nbee\n", '["ant", "bee"]', '{"0": "ant", "1": "bee"}'])
def test_files_of_categories(content, tmp_path):
    (tmp_path / "names").write_text(content)
    assert read_categories(str(tmp_path / "names")) == ["ant", "bee"]


@pytest.mark.parametrize("content", ["", "[", '{"1": "ant", "2": "bee"}'])
def test_no_files_of_categories(content, tmp_path):
    (tmp_path / "names").write_text(content)
    with pytest.raises(UnusableInput, match="names"):
        read_categories(str(tmp_path / "names"))


@pytest.mark.parametrize("name", ["Grad-CAM", "GRADCAM", "grad_cam", "GradCAM"])
def test_methods_in_any_spelling(name, own):
    assert run("--model", "own_nets:Net", "--preprocess", "own_nets:preprocess", "--method", name) == 0


@pytest.mark.slow
def test_an_interrupted_run_ends_in_one_line_and_goes_on(own):
    photos = own / "photos"
    photos.mkdir()
    for index in range(400):
        (photos / f"{index}.jpg").write_bytes((own / "photo.jpg").read_bytes())
    command = [sys.executable, str(ROOT / "cam.py"), "--image-path", "photos", "--model", "own_nets.py:make"]
    command += ["--preprocess", "own_nets.py:preprocess", "--batch-size", "1", "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A shell has its background jobs, and what they start, ignore an interruption.
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=own, env=environment, preexec_fn=heeded, **pipes)
    part = own / "output/manifest.0.jsonl"
    while process.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in error
    assert error.decode().strip().endswith("interrupted; the same command makes what is missing")
    made = len(part.read_text().splitlines())
    assert 0 < made < 400
    subprocess.run(command, cwd=own, env=environment, check=True, capture_output=True)
    records = [json.loads(line) for line in (own / "output/manifest.jsonl").read_text().splitlines()]
    assert len(records) == 400


def test_a_console_script():
    assert "grad-cam = pytorch_grad_cam.cli:main" in (ROOT / "setup.py").read_text()

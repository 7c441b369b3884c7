"""Importing is cheap, silent, and gives every name."""

import subprocess
import sys

import pytest

import pytorch_grad_cam


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.slow
def test_import_loads_nothing_heavy():
    code = "import torch, sys; before = set(sys.modules); from pytorch_grad_cam import GradCAM; "
    code += "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    heavy = {"cv2", "matplotlib", "sklearn", "scipy", "ttach", "torchvision", "timm", "PIL", "tqdm"}
    assert heavy.isdisjoint(run(code).split())


@pytest.mark.slow
def test_methods_can_be_enumerated_right_after_the_import():
    code = "from pytorch_grad_cam.base_cam import BaseCAM; print(*(c.__name__ for c in BaseCAM.__subclasses__()))"
    assert {"GradCAM", "EigenCAM", "AblationCAM"} <= set(run(code).split())


def test_names():
    for name in pytorch_grad_cam.__all__:
        assert getattr(pytorch_grad_cam, name) is not None
    assert pytorch_grad_cam.__version__.count(".") == 2


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("matplotlib", "sklearn")))
from pytorch_grad_cam import cli, compare, explain
from pytorch_grad_cam.demo import example_scene, load_digits_net
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
"""


@pytest.mark.slow
def test_a_first_map_needs_neither_matplotlib_nor_scikit_learn(tmp_path):
    code = f"""{WITHOUT}
assert cli.main(["--output-dir", {str(tmp_path)!r}]) == 0
assert cli.main(["--report", {str(tmp_path / "page.html")!r}, "--method", "gradcam", "kpcacam"]) == 0
explanation = explain(load_digits_net(), example_scene(), targets=[5, 7], signed=True)
explanation.save({str(tmp_path)!r}), explanation.report({str(tmp_path / "signed.html")!r}), explanation.to_dict()
"""
    run(code)
    assert (tmp_path / "signed.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("compare(load_digits_net(), example_scene())", "pip install matplotlib, or 'grad-cam[figures]'"),
        ("explain(load_digits_net(), example_scene()).grid()", "pip install matplotlib"),
        ("dff(example_scene()[None] / 255)", "pip install scikit-learn, or 'grad-cam[concepts]'"),
    ],
)
def test_what_is_missing_says_how_it_is_installed(code, message):
    finished = subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False)
    assert finished.stderr.splitlines()[-1].startswith("ImportError: ")
    assert message in finished.stderr


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(tmp_path):
    code = f"{WITHOUT}sys.exit(cli.main(['--comparison', {str(tmp_path / 'figure.png')!r}]))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "grad-cam[figures]" in finished.stderr

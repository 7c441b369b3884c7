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

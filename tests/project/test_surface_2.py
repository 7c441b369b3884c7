"""What `data/surface-2.0.json` says is public is there, and nothing else: `python tests/surface.py` writes it anew."""

import json

import pytest
from surface import FILE, public_surface

import pytorch_grad_cam

SURFACE = json.loads(FILE.read_text())


@pytest.mark.parametrize("module", SURFACE)
def test_module(module):
    assert public_surface()[module] == SURFACE[module]


def test_modules():
    assert public_surface().keys() == SURFACE.keys()


def test_the_package_shows_its_public_names_only():
    shown = [name for name in dir(pytorch_grad_cam) if not name.startswith("__")]
    assert shown == sorted(pytorch_grad_cam.__all__) == list(SURFACE["pytorch_grad_cam"])
    wanted = {"explain", "compare", "Explanation", "write_report", "CamWarning", "Registration"}
    wanted |= {"registration_of", "suggest_layers", "load_classifier"}
    assert wanted <= set(shown)

"""5,000 images need no more memory than 500."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FEW, MANY, SIDE = 500, 5000, 48
# Of all pictures and maps, which nothing may keep, a third; they are 5,000 times 48 x 48 times 7 bytes.
ALLOWED = MANY * SIDE * SIDE * 7 / 3

SCRIPT = """
import resource, sys
import numpy as np, torch
from torchvision import transforms
from nets import convolutional
from pytorch_grad_cam import explain

kind, few, many, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
how = {"preprocess": transforms.ToTensor(), "align": "cell", "layers": "last", "batch_size": 50, "workers": 1}
net = convolutional()


def images(count):
    if kind == "generator":
        return (np.full((side, side, 3), index % 256, np.uint8) for index in range(count))
    if kind == "loader":
        return (torch.rand(50, 3, side, side) for _ in range(count // 50))
    return f"photos-{count}"


def run(count):
    written = {"output_dir": f"maps-{count}", "save": ["map"]} if kind == "written" else {}
    assert sum(1 for _ in explain(net, images(count), **how, **written)) == count
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


print(run(few), run(many))
if kind == "written":
    assert sum(1 for _ in explain(net, images(many), **how, output_dir=f"maps-{many}", save=["map"])) == 0
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of few and of many names of one picture."""
    place = tmp_path_factory.mktemp("many")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(place / "one.png")
    for count in (FEW, MANY):
        (place / f"photos-{count}").mkdir()
        for index in range(count):
            os.link(place / "one.png", place / f"photos-{count}" / f"{index:04}.png")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generator", "loader", "folder", "written"])
def test_memory_is_flat(kind, folders):
    arguments = [sys.executable, "-W", "ignore", "-c", SCRIPT, kind, *map(str, (FEW, MANY, SIDE))]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(arguments, cwd=folders, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    first, last = map(int, made.stdout.split())
    assert last - first < ALLOWED

"""What the built package says of itself, and what lies beside it."""

import email
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pytorch_grad_cam
from pytorch_grad_cam.compat.old_spellings import ENDS_IN
from pytorch_grad_cam.compat.other_distribution import warn_of_other_distributions

ROOT = Path(__file__).parents[2]
MAJOR = int(pytorch_grad_cam.__version__.partition(".")[0])


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """The METADATA of a wheel, made by the build backend from the sources alone."""
    folder = tmp_path_factory.mktemp("package")
    names = ["README.md", "LICENSE", "setup.py", "pyproject.toml", "requirements.txt", "MANIFEST.in"]
    for name in names:
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "pytorch_grad_cam", folder / "pytorch_grad_cam", ignore=shutil.ignore_patterns("*.pt", "*.pyc")
    )
    code = "from setuptools import build_meta; print(build_meta.prepare_metadata_for_build_wheel('.'))"
    made = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    return email.message_from_string((folder / made.stdout.split()[-1] / "METADATA").read_text())


def test_fields_of_the_metadata(metadata):
    assert metadata["Name"] == "grad-cam"
    assert metadata["Version"] == pytorch_grad_cam.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Author"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# pytorch_grad_cam")
    assert "Grad-CAM" in metadata["Keywords"]
    urls = dict(each.split(", ") for each in metadata.get_all("Project-URL"))
    assert urls["Homepage"].startswith("https://")
    assert {"figures", "concepts", "ray", "docs", "test"} <= set(metadata.get_all("Provides-Extra"))


def test_classifiers(metadata):
    classifiers = metadata.get_all("Classifier")
    assert "Typing :: Typed" in classifiers
    assert (ROOT / "pytorch_grad_cam/py.typed").exists()
    oldest = int(metadata["Requires-Python"].rpartition(".")[2])
    minors = [int(found[1]) for each in classifiers if (found := re.search(r"Python :: 3\.(\d+)$", each))]
    assert minors == list(range(oldest, max(minors) + 1))
    assert sys.version_info.minor in minors
    assert not any(each.startswith("License ::") for each in classifiers), "the licence is an expression"


def test_the_description_is_valid_for_an_index(metadata):
    from packaging.metadata import Metadata

    Metadata.from_email(str(metadata), validate=True)


@pytest.mark.parametrize(
    "record", ["grad_cam-1.5.7.dist-info", "grad_cam-1.4.8-py3.10.egg-info", "grad_cam-1.5.5.egg-info"]
)
def test_files_of_upstream_in_the_same_folder_are_told_of(record, tmp_path):
    (tmp_path / record).mkdir()
    (tmp_path / f"grad_cam-{pytorch_grad_cam.__version__}.dist-info").mkdir()
    with pytest.warns(UserWarning, match=re.escape(f"{record} lies beside pytorch_grad_cam")):
        warn_of_other_distributions(tmp_path / "pytorch_grad_cam", pytorch_grad_cam.__version__)


def test_nothing_is_told_of_a_folder_of_its_own(tmp_path, recwarn):
    for name in (
        f"grad_cam-{pytorch_grad_cam.__version__}.dist-info",
        "grad_camera-1.0.dist-info",
        "grad_cam.egg-info",
    ):
        (tmp_path / name).mkdir()
    warn_of_other_distributions(tmp_path / "pytorch_grad_cam", pytorch_grad_cam.__version__)
    assert not recwarn


@pytest.mark.slow
def test_the_import_tells(tmp_path):
    """As where pip put both into one folder: upstream first, then this one."""
    (tmp_path / "pytorch_grad_cam").symlink_to(ROOT / "pytorch_grad_cam")
    (tmp_path / "grad_cam-1.5.7.dist-info").mkdir()
    code = "import sys; sys.path.insert(0, '.'); import pytorch_grad_cam"
    ran = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "grad_cam-1.5.7.dist-info lies beside" in ran.stderr


def test_a_deprecated_spelling_ends_in_the_next_major_version():
    assert f"{MAJOR + 1}.0" == ENDS_IN
    warned = [
        file
        for file in (ROOT / "pytorch_grad_cam").rglob("*.py")
        if re.search(r"\bwarn\([^)]*DeprecationWarning", file.read_text())
    ]
    assert [file.name for file in warned] == ["old_spellings.py"], "each names the version in which it ends"
    assert f"| {MAJOR}.0 | {ENDS_IN} |" in (ROOT / "docs/contribute/versions.md").read_text()


def test_files_for_github_are_those_of_ci():
    """The workflows run the scripts of `.ci/`, the forms have what GitHub asks of them."""
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    commands = [step.get("run") for job in tests["jobs"].values() for step in job["steps"]]
    assert {".ci/run", ".ci/run_oldest"} <= set(commands)
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"):
        asked = yaml.safe_load(form.read_text())
        assert {"name", "description", "body"} <= asked.keys()
        assert all({"type", "attributes"} <= field.keys() for field in asked["body"])


def test_the_citation_file_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == pytorch_grad_cam.__version__
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()

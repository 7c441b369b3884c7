"""Every command and snippet that we print for users runs."""

import copy
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pytorch_grad_cam.explanations.methods import available_methods

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "tests/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TABLES = sorted({name for document in DOCUMENTS for name in re.findall(r"<!-- /(\w+) -->", document.read_text())})
NEEDS_NETWORK = "python cam.py --image-path photo.jpg --method gradcam"
MINUTES_LONG = ("python -m benchmarks", "python -m pytorch_grad_cam.demo.train")


def snippets(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    lines = re.findall(r"^    (\S.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return [command.strip() for line in lines for command in line.split("&&")]


COMMANDS = list(dict.fromkeys(command for document in DOCUMENTS for command in commands(document.read_text())))


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if snippets(document.read_text())],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_snippets_run_in_their_order(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "snippets"}
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        for code in snippets(document.read_text()):
            exec(compile(code, document.name, "exec"), names)
    assert [str(each.message) for each in issued if document.name == "README.md" and "blank" in str(each.message)] == []


def test_the_readme_is_a_page():
    """Its commands are the first thing, and it names every method."""
    assert len(README.splitlines()) <= 150
    assert commands(README)[:2] == ["pip install .", "python cam.py"]
    assert commands(README)[-2:] == ["pip install '.[test]'", "pytest"]
    classes = {method.__name__ for method in available_methods().values()}
    assert {name for name in classes if f"`{name}`" not in README} == set()


@pytest.mark.slow
def test_the_picture_of_the_first_example_is_what_it_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(snippets(README)[0], {})
    pictures = [tmp_path / "first_example.jpg", ROOT / "examples/first_example.jpg"]
    made, shown = (np.asarray(Image.open(file), dtype=float) for file in pictures)
    assert np.abs(made - shown).mean() < 1


@pytest.mark.slow
def test_the_comparison_is_what_the_second_snippet_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in snippets(README)[:2]:
        exec(code, names)
    with Image.open(tmp_path / "comparison.png") as made, Image.open(EXAMPLES / "comparison.png") as shown:
        sizes = [picture.convert("RGB").resize((300, 300)) for picture in (made, shown)]  # fonts differ a little
    assert np.abs(np.subtract(*(np.asarray(picture, dtype=float) for picture in sizes))).mean() < 5
    assert {file.name for file in tmp_path.iterdir()} >= {"explained", "report.html", "comparison.png"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "llms.txt", "benchmarks/README.md"])
def test_files_that_are_linked_exist(name):
    document = ROOT / name
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert linked
    assert [link for link in linked if not (document.parent / link).exists()] == []


def test_the_commands_are_known():
    """What the next tests do not run is: installation and what needs a network. What takes long is only started."""
    others = {"pip install .", "pip install '.[test]'", "pip install pre-commit", "pre-commit install", NEEDS_NETWORK}
    for command in COMMANDS:
        assert command in others or command.startswith(("python cam.py", "pytest", ".ci/", *MINUTES_LONG)), command


_NETS = """
from pytorch_grad_cam.demo.reader import ReaderProcessor, load_digits_reader

class AnySize(ReaderProcessor):
    def __call__(self, images, **options):
        return super().__call__(images.resize((64, 64)), **options)

def build():
    return load_digits_reader(), AnySize()
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python cam.py") and c != NEEDS_NETWORK])
def test_commands_run(command, tmp_path):
    for name in ("cam.py", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "photos").symlink_to(EXAMPLES)
    (tmp_path / "nets.py").write_text(_NETS)
    arguments = [sys.executable, *shlex.split(command)[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(MINUTES_LONG)])
def test_long_commands_start(command):
    arguments = [sys.executable, *shlex.split(command)[1:], "--help"]
    subprocess.run(arguments, cwd=ROOT, capture_output=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("pytest")])
def test_pytest_takes_the_options_and_knows_the_markers(command, pytestconfig):
    words = shlex.split(command)
    registered = {re.match(r"\w+", line)[0] for line in pytestconfig.getini("markers")}
    expressions = [words[at + 1] for at, word in enumerate(words) if word == "-m"]
    assert set(re.findall(r"\w+", " ".join(expressions))) <= registered | {"not", "and", "or"}
    arguments = [sys.executable, "-m", *words, "--collect-only", "tests/project/test_import.py"]
    subprocess.run(arguments, cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(".ci/")])
def test_scripts_can_be_run(command):
    assert os.access(ROOT / command, os.X_OK)
    subprocess.run(["bash", "-n", command], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted((ROOT / "usage_examples").glob("*.py")), ids=lambda path: path.stem)
def test_usage_examples(script, tmp_path):
    if script.stem == "ray_data_example" and importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray: pip install '.[ray]'")
    if script.stem == "yolo_example" and importlib.util.find_spec("ultralytics") is None:
        pytest.skip("needs ultralytics")
    of_bundled = {"registration_example": [], "attention_supervision_example": ["--steps", "2"]}
    of_models = of_bundled.get(script.stem, ["--weights", "none"])
    # No box of those that are flipped, and no words.
    without = {"detection_example", "detr_example", "vlm_example", "yolo_example", *of_bundled}
    if script.stem not in without:
        of_models.append("--aug-smooth")
    arguments = [sys.executable, str(script), *of_models, "--output-dir", str(tmp_path)]
    also = os.environ.get("PYTHONPATH", "")  # where ultralytics may lie, of which the test has seen that it is there
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{also}"}
    finished = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    pictures = [file for file in tmp_path.iterdir() if file.suffix in (".jpg", ".png")]
    assert pictures
    for picture in pictures:
        assert f"wrote {picture}" in finished.stdout
        assert min(Image.open(picture).size) >= 224
        if picture.name == "registration.png":
            made, shown = (np.asarray(Image.open(file), dtype=float) for file in (picture, EXAMPLES / picture.name))
            assert np.abs(made - shown).mean() < 1


def test_the_tests_that_are_named_exist():
    tests = ROOT / "tests"
    for cell in re.findall(r"\| ([^|]*) \|$", (tests / "README.md").read_text(), re.MULTILINE):
        source = ""
        for file, name in re.findall(r"`(?:(\w+\.py)::)?(test_\w+)`", cell):
            source = next(tests.glob(f"*/{file}")).read_text() if file else source
            assert f"def {name}(" in source, name


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_results(name):
    from benchmarks.report import filled

    report = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    for document in DOCUMENTS:
        assert filled(document.read_text(), name, report) == document.read_text(), document


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "docs/notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run_and_are_shown_with_what_they_print(notebook):
    import nbformat
    from nbclient import NotebookClient

    shown = nbformat.read(notebook, as_version=4)
    executed = NotebookClient(copy.deepcopy(shown), timeout=300, kernel_name="python3").execute(cwd=ROOT)
    for before, after in zip(shown.cells, executed.cells, strict=True):
        kinds = [[output.output_type for output in cell.get("outputs", ())] for cell in (before, after)]
        assert [kind for kind in kinds[0] if kind != "stream"] == [kind for kind in kinds[1] if kind != "stream"]

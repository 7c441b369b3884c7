"""One style: the same commands that a developer runs before a commit. And the methods' classes stay different."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from every_method import METHODS

ROOT = Path(__file__).parents[2]
RUN = 3


COMMANDS = re.findall(r"^ +entry: python (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
PINS = re.findall(r'"(\w+)==([\d.]+)"', (ROOT / "setup.py").read_text())


@pytest.mark.slow
@pytest.mark.style
@pytest.mark.parametrize("command", COMMANDS)
def test_style(command):
    if "mypy" in command and np.lib.NumpyVersion(np.__version__) < "2.4.0":
        pytest.skip("NumPy's types are others; to those of 2.2 `np.ndarray` without its parameters is an error")
    arguments = [sys.executable, *shlex.split(command)]
    finished = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.style
def test_the_versions_are_those_that_setup_pins():
    assert {command.split()[1] for command in COMMANDS} == {name for name, _ in PINS} == {"ruff", "mypy"}
    assert [(name, version(name)) for name, _ in PINS] == PINS


def test_less_than_a_tenth_of_the_methods_classes_repeats():
    """Lines in runs of three that stand in another method's class too; docstrings do not count. 1.5.7 has 30 %."""
    classes = [class_lines(method) for method in METHODS]
    runs = Counter(run for lines in classes for run in {tuple(lines[i : i + RUN]) for i in range(len(lines) - RUN + 1)})
    repeated = 0
    for lines in classes:
        starts = [i for i in range(len(lines) - RUN + 1) if runs[tuple(lines[i : i + RUN])] > 1]
        repeated += len({i + step for i in starts for step in range(RUN)})
    assert repeated < 0.1 * sum(map(len, classes))


def class_lines(method):
    tree = ast.parse(inspect.getsource(method))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return [line.strip() for line in ast.unparse(tree).splitlines() if line.strip()]

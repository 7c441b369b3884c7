"""One style: the same commands that a developer runs. And the methods' files stay short and different."""

import ast
import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import METHODS

ROOT = Path(__file__).parents[2]
RUN = 3


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_style(command):
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_methods_file_is_at_most_60_lines(method):
    assert len(Path(inspect.getfile(method)).read_text().splitlines()) <= 60


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

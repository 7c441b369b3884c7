"""The mutation testing itself: enough mutants, each another source, and the tests run on the changed package."""

import ast
from collections import Counter

import pytest

from benchmarks.equivalent_mutants import EQUIVALENT
from benchmarks.mutants import MODULES, TESTS, is_killed, meant, path_of
from benchmarks.mutations import mutants_of


@pytest.mark.slow
def test_there_are_many_and_all_differ():
    sources = [mutant.source for module in MODULES for mutant in meant(module)]
    assert len(sources) == len(set(sources))
    assert len(sources) > 600


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("x.mean(1)", ["x.sum(1)", "x.mean(0)"]),
        ("x.relu()", ["x"]),
        ("torch.exp(-x)", ["-x", "torch.exp(x)"]),
        ("x > 0.5", ["x >= 0.5", "x > 1.0"]),
        ("-1", ["0"]),
        (
            "torch.where(x == 0, 2, y)",
            ["2", "y", "torch.where(x != 0, 2, y)", "torch.where(x == 1, 2, y)", "torch.where(x == 0, 1, y)"],
        ),
        ("x.sum(0, keepdim=True)", ["x.mean(0, keepdim=True)", "x.sum(1, keepdim=True)"]),
        ("x.reshape(2, 3)", []),
    ],
)
def test_changes(source, changes, tmp_path):
    file = tmp_path / "formula.py"
    file.write_text(f"def formula(x, y):\n    raise ValueError(1 + 1)\n    return {source}\n")
    expected = Counter(ast.unparse(ast.parse(change)) for change in changes)
    assert Counter(mutant.source.rpartition("return ")[2] for mutant in mutants_of(file)) == expected
    assert {mutant.line for mutant in mutants_of(file)} <= {3}


@pytest.mark.slow
def test_what_is_called_equivalent_is_a_mutant():
    changes = {f"{module}: {mutant.change}" for module in MODULES for mutant in mutants_of(path_of(module))}
    assert EQUIVALENT.keys() <= changes


@pytest.mark.slow
def test_a_wrong_formula_is_noticed_and_a_right_one_passes(monkeypatch):
    monkeypatch.setattr("benchmarks.mutants.TESTS", [file for file in TESTS if file.stem == "test_formulas"])
    source = path_of("layer_cam").read_text()
    assert is_killed("layer_cam", source.replace("grads.relu()", "grads"))
    assert not is_killed("layer_cam", source)

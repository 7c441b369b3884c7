"""Which room may import which: imports go down the layers, and there are no circles.

Imports are read from the source, those within functions and those for types too. What the package's `__init__` imports
for types is no import of it: these are names, such as `explain`, that it imports by a string when they are first used.
It is the one step up, so that the methods load without Pillow.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytorch_grad_cam"
TESTS = ROOT / "tests"
METHODS = "the methods"  # the files of the root that no layer names
# From the top. A layer's rooms import those of lower layers and themselves, not each other.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["evaluation"],
    ["explanations"],
    ["folder"],
    ["zoo", "metrics", "volumes", "callbacks"],
    ["demo"],
    ["__init__"],
    [METHODS, "feature_factorization"],
    ["perturbation"],
    ["attention", "words"],
    ["meta_cam"],
    ["grad_cam"],  # what a meta method takes by default
    ["base_cam"],
    ["utils"],
    ["registration"],
    ["locate"],
    ["activations_and_gradients"],  # the path to the hooks of 1.x
    ["compat"],
    ["ablation_layer"],
    ["engine"],
]
HEIGHT = {room: -depth for depth, rooms in enumerate(LAYERS) for room in rooms}


def name_of(file: Path) -> str:
    """`engine.maps` of engine/maps.py; `engine` of its __init__.py, `__init__` of the package's."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports_of(source: str, for_types: bool = True) -> set[str]:
    """The modules of the package that a source imports. for_types: those under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)) if for_types else run(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for path in paths:
            package, _, name = path.partition(".")
            if package == PACKAGE.name:
                found.add(next((each for each in (name, name.rpartition(".")[0]) if each in FILES), "__init__"))
    return found


def run(node: ast.AST) -> Iterator[ast.AST]:
    """The node and those within that are ever run."""
    yield node
    is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in node.orelse if is_for_types else ast.iter_child_nodes(node):
        yield from run(child)


def room_of(module: str) -> str:
    first = module.partition(".")[0]
    return first if first in HEIGHT or (PACKAGE / first).is_dir() else METHODS


@pytest.fixture(scope="module")
def imports():
    """Of each module."""
    return {name: imports_of(file.read_text(), for_types=name != "__init__") for name, file in FILES.items()}


def test_imports_go_down(imports):
    up = [
        (module, imported)
        for module in FILES
        for imported in imports[module]
        if room_of(imported) != room_of(module) and HEIGHT[room_of(imported)] >= HEIGHT[room_of(module)]
    ]
    assert not up


def test_there_are_no_circles(imports):
    TopologicalSorter(imports).prepare()


def test_every_room_has_a_layer_and_a_folder_of_tests():
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert rooms <= HEIGHT.keys()
    assert rooms <= {folder.name for folder in TESTS.iterdir()}
    assert HEIGHT.keys() - {METHODS} <= {name.partition(".")[0] for name in FILES}


def test_files_of_tests_have_names_of_their_own():
    """So that pytest can import them, and documents name them without their folder."""
    names = [file.name for file in TESTS.rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pytorch_grad_cam", {"__init__"}),
        ("from pytorch_grad_cam import GradCAM", {"__init__"}),
        ("from pytorch_grad_cam import base_cam", {"base_cam"}),
        ("import pytorch_grad_cam.engine.maps", {"engine.maps"}),
        ("def f():\n    from pytorch_grad_cam.engine.maps import min_max", {"engine.maps"}),
        ("from pytorch_grad_cam.locate import locate, search", {"locate", "locate.search"}),
        ("import torch, pytorch_grad_cam_of_others", set()),
    ],
)
def test_imports_are_read(source, expected):
    assert imports_of(source) == expected


@pytest.mark.parametrize(("for_types", "expected"), [(True, {"cam", "fem"}), (False, {"fem"})])
def test_imports_for_types_are_read_where_they_count(for_types, expected):
    source = "if TYPE_CHECKING:\n    import pytorch_grad_cam.cam\nelse:\n    import pytorch_grad_cam.fem"
    assert imports_of(source, for_types) == expected

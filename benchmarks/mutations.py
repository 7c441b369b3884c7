"""Small changes of a source, each of which should break a test: `mutants_of`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ANOTHER_OPERATOR: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.BitAnd: ast.BitOr, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
ANOTHER_REDUCTION = {
    "sum": "mean", "mean": "sum", "prod": "sum", "max": "min", "min": "max", "amax": "amin", "amin": "amax",
    "argmax": "argmin", "maximum": "minimum", "minimum": "maximum", "any": "all", "all": "any", "ceil": "floor",
    "softmax": "log_softmax", "log_softmax": "softmax", "zeros": "ones", "zeros_like": "ones_like",
    "new_zeros": "new_ones",
}  # fmt: skip
OF_BUILTINS = {"max", "min", "any", "all"}
LEFT_OUT = {
    "relu", "abs", "clamp", "clip", "maximum", "minimum", "sqrt", "rsqrt", "square", "exp", "tanh", "softmax",
    "log_softmax", "normalize", "masked_fill", "remainder", "cumsum", "min_max", "rescaled", "full_precision",
    "strongest_positive", "_over", "_blurred",
}  # fmt: skip
LIBRARIES = {"torch", "np", "F", "math"}
# What says nothing of a formula, or fails at the first call if it is changed.
PASSED_OVER = (ast.Raise, ast.Import, ast.ImportFrom, ast.arguments, ast.JoinedStr)
PASSED_OVER_FIELDS = {"annotation", "returns", "decorator_list", "bases"}
PASSED_OVER_OPTIONS = {"keepdim", "keepdims", "strict", "stacklevel"}
PASSED_OVER_ARGUMENTS = {"reshape", "flatten", "expand", "movedim", "diagonal"}


class Mutant(NamedTuple):
    """A module of the package with one change."""

    line: int
    change: str
    source: str


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of the source at a path, in its order, each once."""
    tree = ast.parse(path.read_text())
    mutants: dict[str, Mutant] = {}
    for parent, field, index in _places(tree):
        siblings, key = (vars(parent), field) if index is None else (getattr(parent, field), index)
        node = siblings[key]
        before = _shown(parent, node)
        for replacement in _replacements(node):
            siblings[key] = replacement
            source = ast.unparse(tree)
            line = getattr(node, "lineno", getattr(parent, "lineno", 1))
            mutants.setdefault(source, Mutant(line, f"{before} -> {_shown(parent, replacement)}", source))
        siblings[key] = node
    return list(mutants.values())


def _places(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    if _is_passed_over(parent):
        return
    for field, value in ast.iter_fields(parent):
        if field in PASSED_OVER_FIELDS or (field == "args" and _name(parent) in PASSED_OVER_ARGUMENTS):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.AST):
                yield parent, field, index if isinstance(value, list) else None
                yield from _places(node)


def _name(node: ast.AST) -> str | None:
    """Of what is called."""
    match node:
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name
    return None


def _is_passed_over(node: ast.AST) -> bool:
    match node:
        case ast.keyword(arg=option):
            return option in PASSED_OVER_OPTIONS
        case ast.Subscript(value=ast.Attribute(attr="shape")):
            return True
        case ast.UnaryOp(operand=ast.Constant()):
            return True
    return isinstance(node, PASSED_OVER)


def _replacements(node: Any) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    if type(node) in ANOTHER_OPERATOR:
        yield ANOTHER_OPERATOR[type(node)]()
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow()):
            yield left
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=number)):
            yield ast.Constant(1 - number)
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value=bool() as truth):
            yield ast.Constant(not truth)
        case ast.Constant(value=int() as number):
            yield ast.Constant(number - 1 if number > 0 else 1)  # also another axis
        case ast.Constant(value=float() as number):
            yield ast.Constant(2 * number if number else 1.0)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Call():
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    match node.func:
        case ast.Attribute(value=owner, attr=name):
            if name in ANOTHER_REDUCTION:
                yield ast.Call(ast.Attribute(owner, ANOTHER_REDUCTION[name]), node.args, node.keywords)
            is_name = isinstance(owner, ast.Name | ast.Attribute)
            of_library = is_name and ast.unparse(owner).partition(".")[0] in LIBRARIES
            if name in LEFT_OUT:
                yield node.args[0] if of_library else owner
            if name == "where":
                yield from node.args[1:]
        case ast.Name(id=name):
            if name in OF_BUILTINS:
                yield ast.Call(ast.Name(ANOTHER_REDUCTION[name]), node.args, node.keywords)
            if name in LEFT_OUT:
                yield node.args[0]


def _shown(parent: ast.AST, node: ast.AST) -> str:
    """The expression around a changed node; the node itself where that is a block of statements."""
    return ast.unparse(node if hasattr(parent, "body") and not isinstance(parent, ast.expr) else parent)

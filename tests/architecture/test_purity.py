"""gpcore takes time, chance and the world as arguments; what an import contract cannot see is looked for here."""

import ast
from pathlib import Path

import pytest

from tests.architecture.tree import CORE, modules, name, parsed

OUTSIDE = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}
"""Builtins that reach the world, or hide from these tests that something does."""

CHANCE = {"random"}
"""What numpy offers besides arithmetic."""


def _impurities(tree: ast.AST) -> list[str]:
    return sorted(f"line {line}: {what}" for node in ast.walk(tree) for line, what in _impurity(node))


def _impurity(node: ast.AST) -> list[tuple[int, str]]:
    match node:
        case ast.Name(id=called) if called in OUTSIDE:
            return [(node.lineno, called)]
        case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=attribute) if attribute in CHANCE:
            return [(node.lineno, f"numpy.{attribute}")]
        case ast.ImportFrom(module="numpy", names=names):
            return [(node.lineno, f"numpy.{alias.name}") for alias in names if alias.name in CHANCE]
        case ast.ImportFrom(module=str(module)) if module.startswith("numpy.random"):
            return [(node.lineno, module)]
        case ast.Import(names=names):
            return [(node.lineno, alias.name) for alias in names if alias.name.startswith("numpy.random")]
        case _:
            return []


@pytest.mark.parametrize("module", modules(CORE), ids=name)
def test_no_module_of_the_core_reaches_the_world(module: Path) -> None:
    assert _impurities(parsed(module)) == []


@pytest.mark.parametrize(
    "code",
    [
        "open('fleet.yaml')",
        "show = print",
        "np.random.default_rng()",
        "numpy.random.rand()",
        "from numpy import random",
        "from numpy.random import default_rng",
        "import numpy.random",
        "def roll():\n    from numpy import random as dice",
        "__import__('os')",
        "eval('1')",
    ],
)
def test_each_way_out_is_seen(code: str) -> None:
    assert _impurities(ast.parse(code))

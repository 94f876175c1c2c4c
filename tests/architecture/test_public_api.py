"""The public API is a promise: what `gpcore` exports changes on purpose only."""

import ast
from pathlib import Path

import gpcore
from tests.architecture.tree import CORE, parsed

PROMISED = Path(__file__).with_name("public-api.txt")


def test_what_gpcore_exports_is_what_was_promised() -> None:
    promised = PROMISED.read_text().splitlines()
    assert sorted(gpcore.__all__) == promised, f"is it on purpose? Then change {PROMISED.name}, and tell docs/changes"


def test_the_promise_is_sorted_and_names_everything_once() -> None:
    # ruff keeps the order of __all__ itself (RUF022), which puts constants before types.
    promised = PROMISED.read_text().splitlines()
    assert promised == sorted(set(promised))
    assert len(gpcore.__all__) == len(set(gpcore.__all__))


def test_every_promised_name_is_there_and_comes_from_gpcore() -> None:
    missing = [name for name in gpcore.__all__ if not hasattr(gpcore, name)]
    assert missing == []


def test_the_package_itself_only_hands_names_on() -> None:
    allowed = (ast.Expr, ast.ImportFrom, ast.Assign)  # its docstring, re-exports and __all__
    code = [ast.unparse(node) for node in parsed(CORE / "__init__.py").body if not isinstance(node, allowed)]
    assert code == []


def test_both_packages_tell_type_checkers_that_they_are_typed() -> None:
    assert (CORE / "py.typed").exists()
    assert (CORE.parent / "gpadapters" / "py.typed").exists()

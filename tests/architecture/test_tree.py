"""The tree: small files, tests where one looks for them, checks that reach every folder, nothing of one machine."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.tree import CORE, ROOT, SOURCES, modules, name, tracked

MOST_LINES = 500
MIRROR = ROOT / "tests" / "core"

MACHINE = re.compile(
    r"(?<![\w.~-])/(?:home/(?!dynamo\b)|root/|Users/|work/)\w|(?:extra-)?index-url|find-links", re.IGNORECASE
)
"""Folders of somebody's machine, and registries other than the reader's own; dynamo is the user inside the images."""


@pytest.mark.parametrize("module", modules(SOURCES), ids=name)
def test_a_source_file_is_one_thing(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MOST_LINES


def _test_of(module: Path) -> Path:
    return MIRROR / module.relative_to(CORE).with_name(f"test_{module.name}")


@pytest.mark.parametrize("module", [module for module in modules(CORE) if module.stem != "__init__"], ids=name)
def test_a_module_of_the_core_has_its_tests_where_one_looks_for_them(module: Path) -> None:
    assert _test_of(module).exists(), name(_test_of(module))


def test_every_folder_with_python_is_type_checked() -> None:
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    code = {name(path) for path in tracked() if path.suffix == ".py"}
    assert {path for path in code if not path.startswith(tuple(checked))} == set()


def test_every_rule_that_is_ignored_has_a_reason_beside_it() -> None:
    rule = re.compile(r'^\s+"[A-Z]+[0-9]*",')
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    assert [line for line in lines if rule.match(line) and not re.search(r"#\s*\S+ \S+", line)] == []


def _of_a_machine(text: str) -> list[str]:
    return [line for line in text.splitlines() if MACHINE.search(line)]


def test_nothing_in_the_repository_is_of_one_machine() -> None:
    texts = {path: path.read_bytes().decode(errors="replace") for path in tracked()}
    found = {name(path): lines for path, text in texts.items() if (lines := _of_a_machine(text))}
    found.pop(name(Path(__file__)), None)  # the examples below
    assert found == {}


@pytest.mark.parametrize("line", ["cd /home/ann", "'/work/x'", "--index-url x", "PATH=/root/bin"])
def test_what_is_of_one_machine_is_seen(line: str) -> None:
    assert _of_a_machine(line)


@pytest.mark.parametrize(
    "line", ["GET /v1/work/3", "https://example.org/home/ann", "../shared/envtest", "~/work/x", "/home/dynamo/x"]
)
def test_what_only_looks_like_it_is_let_be(line: str) -> None:
    assert not _of_a_machine(line)

"""Every code block of the README and of docs/ runs; `blocks.py` says how."""

from collections import Counter
from pathlib import Path

import pytest

from tests.docs.blocks import NEEDS, ROOT, Block, Reader, blocks, commands, pages

LEFT_OUT: dict[tuple[str, str], int] = {
    ("README.md", "checkout"): 3,
    ("docs/howto/dynamo.md", "dynamo"): 1,
    ("docs/howto/kubernetes.md", "cluster"): 1,
    ("docs/howto/stock-role.md", "cluster"): 2,
    ("docs/tutorial.md", "cluster"): 1,
}
"""How many blocks of which page are left out, and what they need. A block that can run has no place here."""

# Pages show servers on ports that a reader would use, so two pages are never tried at the same time.
pytestmark = pytest.mark.xdist_group("docs")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _block(text: str, language: str = "console", **options: str) -> Block:
    return Block("page.md:1", language, options, text)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.chdir(tmp_path)
    return Reader(tmp_path)


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_every_code_block_of_a_page_runs(page: Path, reader: Reader) -> None:
    with reader:
        for block in blocks(page):
            if "needs" not in block.options:
                reader.read(block)


def test_the_blocks_that_are_left_out_are_counted_and_have_a_reason() -> None:
    left_out = Counter(
        (_name(page), block.options["needs"]) for page in pages() for block in blocks(page) if "needs" in block.options
    )
    assert left_out == LEFT_OUT
    assert {need for _, need in left_out} <= NEEDS.keys()


def test_commands_for_a_checkout_are_run_by_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    shown = {
        command.line
        for page in pages()
        for block in blocks(page)
        if block.options.get("needs") == "checkout"
        for command in commands(block)
    }
    assert {command for command in shown if not any(line.startswith(command) for line in ci)} == set()


def test_names_and_files_of_one_block_are_there_in_the_next(reader: Reader) -> None:
    with reader:
        reader.read(_block("fleet: 3\n", "yaml", file="fleet.yaml"))
        reader.read(_block("gpus = 3\n", "python"))
        reader.read(_block(">>> gpus + 1\n4\n", "python"))
        reader.read(_block("$ cat fleet.yaml\nfleet: 3\n$ test -s \\\n  fleet.yaml\n"))


def test_a_command_in_the_background_is_waited_for_and_ends_with_the_page(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "server").write_text("echo $$ > pid; sleep 0.2; echo ready on port 1; sleep 600")
    with reader:
        reader.read(_block("$ bash server &\nready on port ...\n"))
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    "block",
    [
        _block("$ false\n"),
        _block("$ true\n", exit="1"),
        _block("$ echo 3\n4\n"),
        _block(">>> 1 + 1\n3\n", "python"),
        _block("raise ValueError\n", "python"),
        _block("{", "json"),
        _block("anything\n", "bash"),
    ],
    ids=lambda block: block.text.strip(),
)
def test_a_block_that_does_not_do_what_it_says_is_found(block: Block, reader: Reader) -> None:
    with reader, pytest.raises((AssertionError, ValueError)):
        reader.read(block)

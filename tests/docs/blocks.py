"""Code blocks of the README and of docs/, and a reader who tries them all.

Every fenced block of a page runs, in order and in one empty folder for the page, so a later block sees what an earlier
one did. The language after the fence says how:

* `python`: executed, or checked as a doctest if it has prompts. The blocks of a page share their names.
* `console`: each line after `$ ` is run by bash, and must succeed. Output that is shown must be what comes (`...`
  stands for anything, and only the kind of white space is free). A command that ends in `&` stays in the background
  until the page ends; the output shown for it is waited for.
* `json`, `yaml`, `toml`: must be well formed. `text` and `mermaid`: nothing to run.

Options follow the language: `file=NAME` also writes the block to that file, `exit=N` says how commands end, and
`needs=WHAT` leaves the block out, for a reason in `NEEDS` and counted in `test_blocks.py`.
"""

import contextlib
import doctest
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import yaml

ROOT = Path(__file__).parents[2]

NEEDS = {
    "checkout": "makes environments in the checkout itself; .ci/run runs the very same command",
    "cluster": "needs the reader's own Kubernetes cluster; tests/e2e does the same on a real API server",
    "dynamo": "needs Dynamo's runtime and a planner on it; tests/dynamo does the same with both",
    "network": "fetches from the network",
}

PATIENCE_S = 60.0
"""How long a command may take, and how long what a background command says is waited for."""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$", re.MULTILINE | re.DOTALL
)
_SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@attrs.frozen
class Block:
    """A fenced block: where it is, what its fence says, and its text."""

    place: str
    language: str
    options: dict[str, str]
    text: str


@attrs.frozen
class Command:
    """A line after a prompt, and the output that the page shows for it."""

    line: str
    shown: str


def pages() -> list[Path]:
    """Return the pages whose blocks must run."""
    return [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of *page*; MyST directives, which have a name in braces, are Sphinx's to check."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        language, *options = match["info"].split() or [""]
        if not language.startswith("{"):
            line = text.count("\n", 0, match.start()) + 1
            found.append(
                Block(
                    f"{page.name}:{line}",
                    language,
                    dict(o.split("=", 1) for o in options),
                    textwrap.dedent(match["text"]),
                )
            )
    return found


def commands(block: Block) -> list[Command]:
    """Return the commands of a `console` block."""
    _, *parts = re.split(r"^\$ ", block.text.replace("\\\n", " "), flags=re.MULTILINE)
    return [Command(*part.partition("\n")[::2]) for part in parts]


class Reader:
    """Tries the blocks of one page in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._background = contextlib.ExitStack()
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {"PATH": path, "HOME": str(folder), "NO_COLOR": "1", "COLUMNS": "120", "LC_ALL": "C.UTF-8"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._background.close()

    def read(self, block: Block) -> None:
        """Do what *block* says, or raise what is wrong with it."""
        if name := block.options.get("file"):
            (self._folder / name).write_text(block.text)
        ways: dict[str, Callable[[Block], object]] = {
            "python": self._python,
            "console": self._console,
            "json": lambda block: json.loads(block.text),
            "yaml": lambda block: list(yaml.safe_load_all(block.text)),
            "toml": lambda block: tomllib.loads(block.text),
            "text": lambda _: None,
            "mermaid": lambda _: None,
        }
        if block.language not in ways:
            message = f"{block.place}: a block is one of {', '.join(ways)}, not {block.language!r}"
            raise ValueError(message)
        ways[block.language](block)

    def _python(self, block: Block) -> None:
        if not block.text.startswith(">>>"):
            exec(compile(block.text, block.place, "exec"), self._names)  # noqa: S102 (this is what the page is for)
            return
        example = doctest.DocTestParser().get_doctest(block.text, self._names, block.place, block.place, 0)
        runner = doctest.DocTestRunner(optionflags=_SAME)
        wrong: list[str] = []
        runner.run(example, out=wrong.append, clear_globs=False)
        self._names.update(example.globs)
        assert not wrong, "".join(wrong)

    def _console(self, block: Block) -> None:
        for command in commands(block):
            if command.line.endswith("&"):
                self._start(command, block.place)
            else:
                self._run(command, block)

    def _run(self, command: Command, block: Block) -> None:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command.line],  # noqa: S607 (the reader's own bash)
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == int(block.options.get("exit", 0)), f"{block.place}: {command.line}\n{done.stdout}"
        assert not command.shown.strip() or _same(command.shown, done.stdout), (
            f"{block.place}: {command.line}\n--- shown\n{command.shown}--- came\n{done.stdout}"
        )

    def _start(self, command: Command, place: str) -> None:
        log = self._folder / f".{place}.log"
        line = f"exec {command.line.removesuffix('&')}"
        said = self._background.enter_context(_started(line, cwd=self._folder, env=self._environment, log=log))
        patience = time.monotonic() + PATIENCE_S
        while command.shown.strip() and not _same(command.shown, said()):
            assert time.monotonic() < patience, f"{place}: {command.line}\n--- shown\n{command.shown}--- came\n{said()}"
            time.sleep(0.05)


@contextlib.contextmanager
def _started(line: str, *, cwd: Path, env: dict[str, str], log: Path) -> Iterator[Callable[[], str]]:
    """Run *line* meanwhile; what is given back tells what it has said so far."""
    with log.open("w") as out:
        process = subprocess.Popen(
            ["bash", "-c", line],  # noqa: S607 (the reader's own bash)
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children end with it
        )
    try:
        yield log.read_text
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE_S)


def _same(shown: str, came: str) -> bool:
    return doctest.OutputChecker().check_output(shown, came, _SAME)

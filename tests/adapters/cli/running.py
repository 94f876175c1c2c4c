"""Running the real command, as others do."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

GPCTL = (sys.executable, "-m", "gpadapters.cli")


@attrs.frozen
class Daemon:
    """A planner that is ready, where it listens, and what it logged until then."""

    url: str
    process: subprocess.Popen[str]
    said: str = ""


def gpctl(*arguments: str, server: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; its exit code is for the caller to judge."""
    return subprocess.run(
        [*GPCTL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"GPCTL_SERVER": server} | environ,
    )


@contextmanager
def started(*arguments: str, **environ: str) -> Iterator[Daemon]:
    """Run a planner with *arguments*, give it when it is ready, and end it."""
    command: Sequence[str] = (*GPCTL, "planner", *arguments)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environ) as process:
        try:
            url, said = _ready(process)
            yield Daemon(url, process, said)
        finally:
            process.kill()
            process.communicate()


def _ready(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"ready.* (http://[^\s\"]+)", line):
            return found[1], "".join(lines)
    raise AssertionError("".join(lines))

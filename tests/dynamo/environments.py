"""Where Dynamo itself is: its runtime in two versions for our processes, and the whole of it for its own.

`python -m tests.dynamo.environments` makes what is missing; `nox -s dynamo` does that first. A runtime is a folder that
our own interpreter looks into first, so that everything else is as in every other test; Dynamo's own programs have an
environment of their own, the one that the benchmarks compare with.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import _peer
from benchmarks._environment import ROOT, Environment

RUNTIMES = ("1.4.2", "1.6.1")
"""The versions of ai-dynamo-runtime that ours is tried on: the oldest that it takes, and the newest that there is."""

STOCK = Environment(f"ai-dynamo-{_peer.VERSION}", f"ai-dynamo {_peer.VERSION}")
"""The whole of Dynamo: its planner, frontend, routers and mocker."""


def runtime(version: str) -> Path:
    """Return the folder of the runtime *version*."""
    return ROOT / ".nox" / f"ai-dynamo-runtime-{version}"


def ours(version: str) -> Mapping[str, str]:
    """Return the environment variables with which our interpreter has the runtime *version*."""
    paths = [str(runtime(version)), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def stock(version: str) -> Mapping[str, str]:
    """Return the environment variables with which the interpreter of STOCK has Dynamo's own programs of *version*."""
    paths = [str(runtime(version))]
    if version != _peer.VERSION:  # what its programs need beside the runtime is the same for both
        paths.insert(0, str(_programs(version)))
    return {"PYTHONPATH": os.pathsep.join(paths)}


def get_runtimes() -> None:
    """Get the runtimes that are missing."""
    for version in RUNTIMES:
        _get(runtime(version), f"ai-dynamo-runtime=={version}")


def main() -> None:
    """Make what is missing."""
    get_runtimes()
    _peer.make()
    for version in set(RUNTIMES) - {_peer.VERSION}:
        _get(_programs(version), "--no-deps", f"ai-dynamo=={version}")


def _programs(version: str) -> Path:
    """Return the folder of Dynamo's own programs of *version*, without its runtime."""
    return ROOT / ".nox" / f"ai-dynamo-programs-{version}"


def _get(folder: Path, *what: str) -> None:
    """Install *what* into *folder*, where it is missing."""
    if not (folder / "made").exists():
        print(f"getting {what[-1]}", file=sys.stderr)  # noqa: T201 - what takes so long
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--target", str(folder), *what], check=True)
        (folder / "made").touch()


if __name__ == "__main__":
    main()

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


def main() -> None:
    """Make what is missing."""
    for version in RUNTIMES:
        folder = runtime(version)
        if not (folder / "made").exists():
            print(f"getting ai-dynamo-runtime {version}", file=sys.stderr)  # noqa: T201 - what takes so long
            shutil.rmtree(folder, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            subprocess.run([*pip, "--target", str(folder), f"ai-dynamo-runtime=={version}"], check=True)
            (folder / "made").touch()
    _peer.make()


if __name__ == "__main__":
    main()

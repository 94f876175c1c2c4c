"""A Dynamo of this machine alone: discovery in a folder, requests over loopback, and the processes that use it.

Rules of this file: every process is on a leash, so that none outlives the tests; what it says goes to a log beside
its folder.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.cluster.processes import Leashed
from tests.cluster.waiting import eventually
from tests.dynamo import environments

READY_WITHIN_S = 60.0


@attrs.frozen
class Plane:
    """One Dynamo in *folder*; everything on it runs on the runtime *version*."""

    folder: Path
    version: str

    @property
    def environ(self) -> dict[str, str]:
        """Give the variables that every process of this Dynamo has."""
        return {
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(self.folder / "discovery"),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "zmq",
            "DYN_TCP_RPC_HOST": "127.0.0.1",
            "DYN_TCP_RESPONSE_STREAM_HOST": "lo",
            "DYN_SYSTEM_HOST": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def inherited(self) -> dict[str, str]:
        """Give those and the variables of this process."""
        return os.environ | self.environ

    def ours(self, name: str, module: str, *arguments: str, **environ: str) -> Leashed:
        """Return a program of this project's that can be started on this Dynamo."""
        return self._program(name, [sys.executable, "-m", module, *arguments], environments.ours(self.version), environ)

    def stock(self, name: str, *arguments: str, **environ: str) -> Leashed:
        """Return a program of Dynamo's own, given to its interpreter as *arguments*."""
        return self._program(
            name, [str(environments.STOCK.programs / "python"), *arguments], self._stock_path(), environ
        )

    def log(self, name: str) -> Path:
        """Return where the program *name* says what it does."""
        return self.folder / f"{name}.log"

    @contextlib.contextmanager
    def asking(self, *arguments: str, **environ: str) -> Iterator["Asking"]:
        """Run Dynamo's own client of the global planner as a process that takes lines of JSON."""
        script = Path(__file__).with_name("stock_client.py")
        command = [str(environments.STOCK.programs / "python"), str(script), *arguments]
        with (
            self.log("client").open("ab") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.inherited | self._stock_path() | environ,
            ) as process,
        ):
            try:
                yield Asking(process, self.log("client"))
            finally:
                process.kill()

    def _stock_path(self) -> dict[str, str]:
        """Return what puts the runtime of this Dynamo in the place of the one that its programs came with."""
        return {"PYTHONPATH": str(environments.runtime(self.version))}

    def _program(self, name: str, command: Sequence[str], *environs: Mapping[str, str]) -> Leashed:
        variables = self.environ
        for environ in environs:
            variables |= environ
        assignments = [f"{variable}={value}" for variable, value in variables.items()]
        return Leashed(name, ["/usr/bin/env", *assignments, *command], log=self.log(name))


@contextlib.contextmanager
def running(program: Leashed, ready: str) -> Iterator[str]:
    """Run *program*, which has not run before, and kill it afterwards.

    The body gets what the pattern *ready* found in what it says: its group, if it has one.
    """
    program.start()
    try:
        yield eventually(lambda: _found(program, ready), within_s=READY_WITHIN_S, every_s=0.05)
    except TimeoutError:
        raise AssertionError(f"{program.name}: {program.tail()}") from None
    finally:
        program.kill()


def _found(program: Leashed, ready: str) -> str:
    match = re.search(ready, program.log.read_text(errors="replace"))
    if match is None and not program.running:
        raise AssertionError(f"{program.name} ended: {program.tail()}")
    return "" if match is None else match[match.lastindex or 0]


@attrs.frozen
class Asking:
    """A process that does what a line of JSON says, and says in another what came of it."""

    process: "subprocess.Popen[str]"
    log: Path

    def ask(self, do: str, **what: Any) -> Any:  # noqa: ANN401 - JSON
        """Let it *do* something, and return what came of it."""
        self.send(do, **what)
        return self.receive()

    def send(self, do: str, **what: Any) -> None:  # noqa: ANN401 - JSON
        """Let it *do* something."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(f"{json.dumps({'do': do, **what})}\n")
        stdin.flush()

    def receive(self) -> Any:  # noqa: ANN401 - JSON
        """Return what came of it."""
        stdout = self.process.stdout
        assert stdout is not None
        answer = stdout.readline()
        assert answer, self.log.read_text(errors="replace")[-3000:]
        return json.loads(answer)

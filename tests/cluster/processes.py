"""Child processes that cannot outlive the tests.

Rules of this file: every child leads its own process group, so its own children end with it; every child is forked by
one thread that lives as long as this process, because the kernel's parent-death signal fires at the end of the
*thread* that forked.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

_LEASH = Path(__file__).with_name("leash.py")


class Leashed:
    """A program that can be started, killed, paused and started again; its output goes to *log*."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, cwd: Path | None = None) -> None:
        """Remember how to run *command*; nothing runs yet."""
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Give the pid of the running program."""
        if self._process is None:
            msg = f"{self.name} is not running"
            raise RuntimeError(msg)
        return self._process.pid

    @property
    def running(self) -> bool:
        """Say whether the program was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program, or start it again after its end."""
        if self.running:
            msg = f"{self.name} is running already"
            raise RuntimeError(msg)
        self._process = _forker().submit(self._spawn).result()

    def tell(self, line: str) -> None:
        """Write *line* to its standard input."""
        if self._process is None or self._process.stdin is None:
            msg = f"{self.name} is not running"
            raise RuntimeError(msg)
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def kill(self) -> None:
        """Kill the whole process group and wait for its leader; no harm when it has ended."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._process = None

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay open and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # until its last thread has stopped

    def resume(self) -> None:
        """Let it go on after a pause."""
        os.killpg(self.pid, signal.SIGCONT)

    def tail(self, lines: int = 20) -> str:
        """Give the end of the log, for messages."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _spawn(self) -> subprocess.Popen[bytes]:
        leash = (sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                (*leash, *self.command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                start_new_session=True,
            )


@cache
def _forker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")

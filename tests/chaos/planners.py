"""Several planners of one fleet, as processes that can be killed, each behind a proxy of its own.

Rules of this file: a planner is only ever told what anybody could tell it: flags, requests, signals. All ends with the
context, whatever became of it.
"""

import contextlib
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import attrs

from tests.chaos.proxy import FaultProxy
from tests.cluster import Access, eventually
from tests.cluster.processes import Leashed

READY_WITHIN_S = 60.0
_ROOT = Path(__file__).parents[2]


@attrs.define(eq=False)
class Planner:
    """One of them: its *name*, its *proxy*, and its process in its present life."""

    name: str
    proxy: FaultProxy
    folder: Path
    command: Sequence[str]
    lives: Iterator[int] = attrs.field(factory=itertools.count)
    process: Leashed = attrs.field(init=False)
    url: str = ""

    def __attrs_post_init__(self) -> None:
        self.process = self._life()

    def begin(self) -> None:
        """Start the process, for the first time or after its death; it is not ready yet."""
        self.kill()
        self.process = self._life()
        self.process.start()

    def ready(self) -> str:
        """Wait until it is ready and return where it listens."""
        self.url = eventually(self.listens, within_s=READY_WITHIN_S, every_s=0.05)
        return self.url

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.url = ""

    def _life(self) -> Leashed:
        log = self.folder / f"{self.name}.{next(self.lives)}.log"
        return Leashed(self.name, self.command, log=log, cwd=_ROOT)

    def listens(self) -> str:
        """Return where it listens, "" while it is not ready."""
        found = re.search(r"ready.* (http://[^\s\"]+)", self.process.tail(200))
        if found is None and not self.process.running:
            raise AssertionError(f"{self.name} has ended:\n{self.process.tail()}")
        return "" if found is None else found[1]


class Planners:
    """*count* planners of the deployments in *namespace*; use it as a context manager.

    Each reaches the API server of *access* through a proxy of its own.
    """

    def __init__(
        self,
        access: Access,
        namespace: str,
        folder: Path,
        *flags: str,
        count: int = 4,
    ) -> None:
        """Prepare; nothing runs yet. *flags* are for all of them."""
        self._stack = contextlib.ExitStack()
        self._access, self._namespace, self._flags = access, namespace, flags
        self._folder = folder
        self._armed = folder / "armed"
        self._count = count
        self.all: list[Planner] = []

    def __enter__(self) -> Self:
        """Start all, and wait until all are ready."""
        try:
            self._armed.mkdir()
            for number in range(self._count):
                self.all.append(self._made(f"planner-{number}"))
            for one in self.all:
                one.begin()
            for one in self.all:
                one.ready()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all."""
        self._stack.close()

    def arm(self, point: str) -> None:
        """Let the first planner that comes to *point* die there."""
        (self._armed / point).touch()

    def dead(self) -> list[Planner]:
        """Return those that do not run."""
        return [one for one in self.all if not one.process.running]

    def died(self, *, within_s: float = 30.0) -> Planner:
        """Wait until one of them has died by itself, and return it."""
        return eventually(self.dead, within_s=within_s)[0]

    def _made(self, name: str) -> Planner:
        proxy = self._stack.enter_context(FaultProxy(self._access))
        kubeconfig = proxy.access.write_kubeconfig(self._folder / f"{name}.json", namespace=self._namespace)
        where = ("--kubeconfig", str(kubeconfig), "--kubernetes-namespaces", self._namespace)
        entry = ("/usr/bin/env", f"GP_CRASH_AT={self._armed}", sys.executable, "-m", "tests.chaos.planner")
        made = Planner(name, proxy, self._folder, (*entry, *where, "--listen", "127.0.0.1:0", *self._flags))
        self._stack.callback(made.kill)
        return made

"""Answer how soon a planner is ready after its start on a fleet, and how much memory it takes.

Each round starts `gpctl planner` on a real API server and asks `/readyz` until it says 200; *peak* is the most memory
that the process has had by then. In alternation, what none of it can be faster than: a bare Python, one that imports
the base of this project, one that imports all that the planner uses, and one LIST of all deployments over a kept
connection.

The ledger is in the cluster and knows the fleet: the first planner there has made it before, and marked every object
with a fence, which takes one write for each. The lease is that of the planner before, which was killed, so what is
ready here is a planner that can answer reads and dry runs and knows who leads.
"""

import argparse
import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import attrs

from benchmarks import _cluster
from benchmarks._cluster import Kept, Process, planner_command
from benchmarks._report import Times, table, verdict
from tests.cluster import ApiServer, graphs
from tests.cluster.processes import Leashed

SIZES = (1, 1_000)
ROUNDS = 7
GOAL_S = 2.0
GOAL_MB = 150.0
_EVERY_S = 0.025  # each look costs the planner a millisecond, on the processors that it starts on

IMPORTS = {
    "bare Python": "pass",
    "import gpcore": "import gpcore",
    "import what the planner uses": "import gpadapters.cli.planner, gpadapters.kubernetes.cluster",
}


@attrs.define
class Start:
    """What the starts of one thing took."""

    name: str
    act: Callable[[], tuple[float, float | None]]
    seconds: Times = attrs.field(factory=Times)
    peak_mb: list[float] = attrs.field(factory=list)

    def play(self) -> None:
        """Do it once more."""
        seconds, peak_mb = self.act()
        self.seconds += Times((seconds,))
        if peak_mb is not None:
            self.peak_mb.append(peak_mb)


def _importing(code: str) -> tuple[float, float]:
    """Return the seconds that a Python takes to run *code* and to end, and its peak memory in MB."""
    tell = "print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], check=True, capture_output=True, text=True)
    return time.perf_counter() - began, int(done.stdout.split()[1]) * 1024 / 1e6


def _listing(kept: Kept, namespace: str) -> tuple[float, None]:
    """Return the seconds that one LIST takes as the planner asks for it, without its decoding."""
    began = time.perf_counter()
    status, _ = kept.send("GET", graphs(namespace))
    assert status == 200
    return time.perf_counter() - began, None


def _planner(server: ApiServer, namespace: str) -> tuple[float, float]:
    """Return the seconds from the start of a planner to its first 200 for `/readyz`, and its peak memory in MB."""
    port = _free_port()
    command = planner_command(server, namespace, listen=f"127.0.0.1:{port}")
    process = Leashed("planner", command, log=server.folder / "startup.log")
    began = time.perf_counter()
    process.start()
    try:
        while not _ready(port):
            if not process.running or time.perf_counter() - began > _cluster.READY_WITHIN_S:
                raise TimeoutError(process.tail())
            time.sleep(_EVERY_S)
        took = time.perf_counter() - began
        return took, Process(f"http://127.0.0.1:{port}", process.pid).peak_mb
    finally:
        process.kill()


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False  # it does not listen yet


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def report(starts: list[Start]) -> None:
    """Print what was measured."""
    rows = [(one.name, one.seconds, f"{max(one.peak_mb):.0f}" if one.peak_mb else "-") for one in starts]
    table(("", "seconds", "peak MB"), rows)
    print(
        "ai-dynamo 1.4.2: 1,835 ms to import its handler, 961 MB with 1,000 DGDs (performance.md, sections 2 and 5)\n"
    )


def judge(planner: Start) -> None:
    """Print how the goals are met."""
    median, peak_mb = planner.seconds.median, max(planner.peak_mb)
    verdict(f"{planner.name}: ready in at most {GOAL_S:g} s", holds=median <= GOAL_S, found=str(planner.seconds))
    verdict(f"{planner.name}: at most {GOAL_MB:g} MB", holds=peak_mb <= GOAL_MB, found=f"{peak_mb:.0f}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="How soon is a planner ready?")
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="DGDs (default: %(default)s)")
    sizes = tuple(parser.parse_args().sizes)
    starts = [Start(name, partial(_importing, code)) for name, code in IMPORTS.items()]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_cluster.api_server())
        kept = stack.enter_context(
            Kept(server.url, {"Authorization": f"Bearer {server.admin.token}"}, ca=server.admin.ca)
        )
        for size, namespace in zip(sizes, _cluster.filled(server, *sizes), strict=True):
            starts.append(Start(f"LIST of {size:,} DGDs", partial(_listing, kept, namespace)))
            with _cluster.planner(server, namespace):
                pass  # it has made the ledger when it is ready
            starts.append(Start(f"planner with {size:,} DGDs", partial(_planner, server, namespace)))
        for _ in range(ROUNDS):
            for one in starts:
                one.play()
    print(_cluster.busy())
    report(starts)
    judge(starts[-1])


if __name__ == "__main__":
    main()

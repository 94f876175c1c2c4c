"""Answer what one scale request costs beside the write that it leads to, on a real API server.

`gpctl planner` runs as a process of its own, budget on, on fleets of several sizes: once where the replicas stand in
the deployment itself (DGD), once where each has a scaling adapter (DGDSA). One caller with a kept connection asks for
one replica more or less of a deployment; in alternation a bare JSON PATCH sets the same field of the same object over
a kept connection. Before each request the planner has seen the bare PATCH, and has adopted what it finds, since it was
somebody else who wrote it.

The ledger is in memory, so that one request is one write, with its fence, and all that is asked about is what the
planner puts around it. What a ledger in the cluster costs on top of it is asked by `ledger_request`.

*ratio* is the median of the one over the median of the other. *no write* is a request for what already is: what the
planner costs without the API server. *CPU* is the planner's own processor time from the request to the answer.

Then 8 and 32 callers at once, each with a deployment of its own, through the planner and as bare PATCHes.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Self

import attrs

from benchmarks import _cluster
from benchmarks._cluster import Kept, Process, Target
from benchmarks._report import Times, shown, table, verdict
from tests.cluster import ApiServer, eventually
from tests.cluster.client import JSON_PATCH

SIZES = (1, 200, 1_000)
CALLERS = (8, 32)
ROUNDS = 5
TURNS = 30  # a round
ROUNDS_AT_ONCE = 3
REQUESTS = 192  # a round, by all callers at once together
GOAL = 1.5
GROWTH = 1.25  # what "independent of the number of deployments" may be, given how much one run differs from the next
LOW, HIGH = 3, 4

# Medians of ai-dynamo 1.4.2 with its budget on, on a machine of this kind, where a bare PATCH took 5.0 ms.
# Source: performance.md, section 2, of the project's reference notes.
PEER = {1: 0.016, 200: 0.438, 1_000: 2.15}
PEER_PATCH_S = 0.005


class Caller:
    """Somebody with a connection to the planner and one to the API server."""

    def __init__(self, server: ApiServer, process: Process, target: Target) -> None:
        """Scale *target*, a deployment of nobody else."""
        self.target = target
        headers = {"Authorization": f"Bearer {server.admin.token}", "Content-Type": JSON_PATCH}
        self._api = Kept(server.url, headers, ca=server.admin.ca)
        self._planner = Kept(process.url, {"Content-Type": "application/json"})

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both connections."""
        self._api.__exit__()
        self._planner.__exit__()

    def patch(self, replicas: int) -> float:
        """Set *replicas* by a bare PATCH and return the seconds that it took."""
        body = self.target.patch(replicas)
        began = time.perf_counter()
        status, answer = self._api.send("PATCH", self.target.path, body)
        took = time.perf_counter() - began
        assert status == 200, answer
        return took

    def ask(self, replicas: int) -> float:
        """Ask the planner for *replicas* and return the seconds that it took."""
        body = self.target.request(replicas)
        began = time.perf_counter()
        status, answer = self._planner.send("POST", "/v1/scale", body)
        took = time.perf_counter() - began
        assert (status, json.loads(answer)["status"]) == (200, "success"), answer
        return took

    def seen(self, replicas: int) -> None:
        """Wait until the planner has seen *replicas*."""
        eventually(lambda: self._unchanged(replicas), within_s=30, every_s=0.002)

    def _unchanged(self, replicas: int) -> bool:
        _, answer = self._planner.send("POST", "/v1/decide", self.target.request(replicas))
        decided = json.loads(answer)
        return not decided["plan"] and decided["reason"] is None


@attrs.define
class Bench:
    """One planner on one fleet, and what was measured there."""

    size: int
    mode: str
    process: Process
    callers: list[Caller]
    asked: Times = attrs.field(factory=Times)
    patched: Times = attrs.field(factory=Times)
    unchanged: Times = attrs.field(factory=Times)
    cpu: Times = attrs.field(factory=Times)  # a request
    at_once: dict[int, tuple[Times, Times]] = attrs.field(factory=dict)  # per request: through the planner, bare

    @property
    def ratio(self) -> float:
        """Return the time of a request over that of a bare PATCH."""
        return self.asked.median / self.patched.median

    def alone(self) -> None:
        """Let the first caller do one round."""
        caller = self.callers[0]
        caller.patch(LOW)
        for _ in range(TURNS):
            caller.seen(LOW)
            cpu_s = self.process.cpu_s
            self.asked += Times((caller.ask(HIGH),))
            self.cpu += Times((self.process.cpu_s - cpu_s,))
            self.unchanged += Times((caller.ask(HIGH),))
            self.patched += Times((caller.patch(LOW),))

    def together(self, count: int) -> None:
        """Let *count* callers do one round, if there is a deployment for each of them."""
        callers = self.callers[:count]
        if len(callers) < count:
            return
        for caller in callers:
            caller.patch(LOW)
        for caller in callers:
            caller.seen(LOW)
        asked, patched = self.at_once.get(count, (Times(), Times()))
        asked += _at_once(callers, Caller.ask)
        patched += _at_once(callers, Caller.patch)
        self.at_once[count] = (asked, patched)


def _at_once(callers: list[Caller], act: Callable[[Caller, int], float]) -> Times:
    """Let all *callers* act, each again and again, and return the seconds for each of all their actions."""
    turns = REQUESTS // len(callers)
    start = threading.Barrier(len(callers) + 1)

    def play(caller: Caller) -> None:
        act(caller, HIGH)  # not timed: it connects where nothing was kept
        start.wait()
        for turn in range(turns):
            act(caller, HIGH if turn % 2 else LOW)

    with ThreadPoolExecutor(len(callers)) as threads:
        playing = [threads.submit(play, caller) for caller in callers]
        start.wait()
        began = time.perf_counter()
        for one in playing:
            one.result()
        return Times(((time.perf_counter() - began) / (turns * len(callers)),))


@contextmanager
def benches(server: ApiServer, sizes: tuple[int, ...]) -> Iterator[list[Bench]]:
    """Run a planner for each of *sizes* and each way to hold replicas, all of them at the same time."""
    with ExitStack() as stack:
        made = []
        for mode, scaling_adapter in (("DGD", False), ("DGDSA", True)):
            namespaces = _cluster.filled(server, *sizes, scaling_adapter=scaling_adapter)
            for size, namespace in zip(sizes, namespaces, strict=True):
                _cluster.check_shape(server, namespace)
                process = stack.enter_context(_cluster.planner(server, namespace, ledger="memory"))
                targets = [Target(namespace, number, scaling_adapter) for number in range(min(size, max(CALLERS)))]
                callers = [stack.enter_context(Caller(server, process, target)) for target in targets]
                made.append(Bench(size, mode, process, callers))
        yield made


def report(made: Iterable[Bench]) -> None:
    """Print what was measured."""
    head = ("DGDs", "scale request", "bare PATCH", "ratio", "no write", "CPU", "peak MB", "ai-dynamo 1.4.2*")
    rows = []
    for one in made:
        peer = PEER.get(one.size) if one.mode == "DGD" else None
        said = "-" if peer is None else f"{shown(peer)}, ratio {peer / PEER_PATCH_S:,.0f}"
        numbers = (one.asked, one.patched, f"{one.ratio:.2f}", shown(one.unchanged.median), shown(one.cpu.median))
        rows.append((f"{one.size:>5,} {one.mode}", *numbers, f"{one.process.peak_mb:.0f}", said))
    table(head, rows)
    print("* as published in performance.md, section 2: another run, whose bare PATCH took 5.0 ms; not of this run\n")


def report_at_once(made: Iterable[Bench]) -> None:
    """Print what was measured of several callers at once."""
    rows = []
    for one in made:
        for count, (asked, patched) in one.at_once.items():
            ours, bare = 1 / asked.median, 1 / patched.median
            rows.append((f"{one.size:>5,} {one.mode}", count, f"{ours:,.0f}", f"{bare:,.0f}", f"{bare / ours:.2f}"))
    if rows:
        table(("DGDs", "callers", "scale requests/s", "bare PATCHes/s", "ratio"), rows)
        print("ai-dynamo 1.4.2, 8 callers, 200 DGDs: 2.2 s a request behind one lock (performance.md, section 2)\n")


def judge(made: list[Bench]) -> None:
    """Print how the goals are met."""
    for mode in dict.fromkeys(one.mode for one in made):
        ratios = {one.size: one.ratio for one in made if one.mode == mode}
        found = ", ".join(f"{size:,} DGDs {ratio:.2f}" for size, ratio in ratios.items())
        verdict(f"{mode}: at most {GOAL} bare PATCHes", holds=max(ratios.values()) <= GOAL, found=found)
        growth = ratios[max(ratios)] / ratios[min(ratios)]
        claim = f"{mode}: the same whatever the number of DGDs (at most {GROWTH} times)"
        verdict(claim, holds=growth <= GROWTH, found=f"{growth:.2f}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What does a scale request cost?")
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="DGDs (default: %(default)s)")
    sizes = tuple(parser.parse_args().sizes)
    with _cluster.api_server() as server, benches(server, sizes) as made:
        for _ in range(ROUNDS):
            for one in made:
                one.alone()
        for count in CALLERS:
            for _ in range(ROUNDS_AT_ONCE):
                for one in made:
                    one.together(count)
        print(f"one caller; {_cluster.busy()}")
        report(made)
        report_at_once(made)
        judge(made)


if __name__ == "__main__":
    main()

"""Answer what the ledger costs: one increase that waits for no release beside a bare PATCH, on a real API server.

`gpctl planner` runs as a process of its own on 200 pools, with its ledger on the same API server. One caller with a
kept connection asks for one replica more; in alternation a bare JSON PATCH of the same object changes a count that no
planner manages (the frontend's), so that nothing has to be adopted between two requests. Where each pool has a scaling
adapter, an adapter holds nothing else to change, and the bare PATCH is of an equal one that nobody follows.

*writes* are all requests other than reads that the planner sends for one increase, the PATCH included, counted by a
proxy between it and the API server in a run of its own; without those of its lease, which it sends in any case, and
without the Event that tells of the end when all is done.

Then 64 callers at once, each with a deployment of its own: what the planner settles a second beside bare PATCHes of
an equal fleet that nobody follows. Last, how soon a planner decides that starts on a ledger of 1,000 pools.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Self

import attrs

from benchmarks import _cluster
from benchmarks._cluster import Kept, Process, Target
from benchmarks._report import Times, shown, table, verdict
from tests.chaos.proxy import FaultProxy
from tests.cluster import ApiServer, eventually
from tests.cluster.client import JSON_PATCH

DEPLOYMENTS = 100  # of two pools each
ROUNDS = 5
TURNS = 40  # a round
COUNTED = 20
CALLERS = 64
ROUNDS_AT_ONCE = 3
TURNS_AT_ONCE = 6  # of each caller, a round
STARTED_ON = 500  # deployments
STARTS = 5
QUIET_S = 2.0
_AGAIN_S = 0.02

MOST_TIMES = {"DGD": 3.0, "DGDSA": 5.0}
MOST_WRITES = 3  # the PATCH itself, and two more
LEAST_SHARE = 0.6
START_S = 3.0

_FRONTEND = "/spec/components/0/replicas"


class Caller:
    """Somebody who scales *target* through the planner and patches *bare* beside it; each value is a new one."""

    def __init__(self, server: ApiServer, process: Process | None, target: Target, *, bare: str, pointer: str) -> None:
        """Connect to both; *pointer* is what a bare PATCH replaces in the object at the path *bare*."""
        headers = {"Authorization": f"Bearer {server.admin.token}", "Content-Type": JSON_PATCH}
        self._target, self._bare, self._pointer = target, bare, pointer
        self._replicas, self._values = count(20), count(20)
        self._api = Kept(server.url, headers, ca=server.admin.ca)
        self._planner = Kept(process.url if process else server.url, {"Content-Type": "application/json"})

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both connections."""
        self._api.__exit__()
        self._planner.__exit__()

    def patch(self) -> float:
        """Send one bare PATCH and return the seconds that it took."""
        operation = {"op": "add", "path": self._pointer, "value": next(self._values)}
        body = json.dumps([operation]).encode()
        began = time.perf_counter()
        status, answer = self._api.send("PATCH", self._bare, body)
        took = time.perf_counter() - began
        assert status == 200, answer
        return took

    def ask(self) -> float:
        """Ask the planner for one replica more and return the seconds that it took."""
        body = self._target.request(next(self._replicas))
        began = time.perf_counter()
        status, answer = self._planner.send("POST", "/v1/scale", body)
        told = json.loads(answer)
        operation = told.get("operation_id")
        while told["status"] == "scaling":  # it takes longer than a caller is kept waiting
            time.sleep(_AGAIN_S)
            status, answer = self._planner.send("GET", f"/v1/operations/{operation}")
            told = json.loads(answer)
        took = time.perf_counter() - began
        assert (status, told["status"]) == (200, "success"), answer
        return took


@attrs.define
class Bench:
    """One planner on one fleet, an equal fleet that nobody follows, and what was measured."""

    mode: str
    callers: list[Caller]  # of the planner's fleet
    strangers: list[Caller]  # of the other
    asked: Times = attrs.field(factory=Times)
    patched: Times = attrs.field(factory=Times)
    rates: list[tuple[float, float]] = attrs.field(factory=list)  # settled and bare, a second
    writes: float = 0.0

    @property
    def ratio(self) -> float:
        """Return the time of a request over that of a bare PATCH."""
        return self.asked.median / self.patched.median

    def alone(self) -> None:
        """Let the first caller do one round."""
        caller = self.callers[0]
        for act in (caller.ask, caller.patch):
            act()  # not timed: it connects where nothing was kept
        for _ in range(TURNS):
            self.asked += Times((caller.ask(),))
            self.patched += Times((caller.patch(),))

    def together(self) -> None:
        """Let all do one round."""
        self.rates.append((_rate(self.callers, Caller.ask), _rate(self.strangers, Caller.patch)))

    @property
    def share(self) -> float:
        """Return what the planner settles over what bare PATCHes reach, by the sums of all rounds."""
        return sum(ours for ours, _ in self.rates) / sum(bare for _, bare in self.rates)


def _rate(callers: Sequence[Caller], act: Callable[[Caller], float]) -> float:
    """Let all *callers* act again and again at once, and return how often they did a second."""
    start = threading.Barrier(len(callers) + 1)

    def play(caller: Caller) -> None:
        act(caller)  # not timed: it connects where nothing was kept
        start.wait()
        for _ in range(TURNS_AT_ONCE):
            act(caller)

    with ThreadPoolExecutor(len(callers)) as threads:
        playing = [threads.submit(play, caller) for caller in callers]
        start.wait()
        began = time.perf_counter()
        for one in playing:
            one.result()
        return len(callers) * TURNS_AT_ONCE / (time.perf_counter() - began)


@contextmanager
def benches(server: ApiServer) -> Iterator[list[Bench]]:
    """Make both modes, each with a planner that is ready."""
    with ExitStack() as stack:
        made = []
        for mode, scaling_adapter in (("DGD", False), ("DGDSA", True)):
            ours, others = _cluster.filled(server, DEPLOYMENTS, DEPLOYMENTS, scaling_adapter=scaling_adapter)
            _cluster.check_shape(server, ours)
            process = stack.enter_context(_cluster.planner(server, ours))
            callers, strangers = [], []
            for number in range(CALLERS):
                target, other = (Target(one, number, scaling_adapter) for one in (ours, others))
                bare, pointer = (other.path, "/spec/replicas") if scaling_adapter else (target.path, _FRONTEND)
                callers.append(stack.enter_context(Caller(server, process, target, bare=bare, pointer=pointer)))
                pointer = "/spec/replicas" if scaling_adapter else "/spec/components/1/replicas"
                strangers.append(stack.enter_context(Caller(server, None, other, bare=other.path, pointer=pointer)))
            made.append(Bench(mode, callers, strangers))
        yield made


def counted(server: ApiServer, *, scaling_adapter: bool) -> float:
    """Return the writes for one increase, lease aside, on a fleet and with a planner of their own."""
    (namespace,) = _cluster.filled(server, DEPLOYMENTS, scaling_adapter=scaling_adapter)
    target = Target(namespace, 0, scaling_adapter)
    with (
        FaultProxy(server.admin) as proxy,
        _cluster.planner(server, namespace, access=proxy.access) as process,
        Caller(server, process, target, bare=target.path, pointer="") as caller,
    ):
        _quiet(proxy)
        before = _writes(proxy)
        for _ in range(COUNTED):
            caller.ask()
            _quiet(proxy)
        return (_writes(proxy) - before) / COUNTED


def _writes(proxy: FaultProxy) -> int:
    beside = ("/leases", "/events")
    return sum(one.method != "GET" and not any(part in one.path for part in beside) for one in proxy.log)


def _quiet(proxy: FaultProxy) -> None:
    """Wait until nothing is written any more."""

    def quiet() -> bool:
        before = _writes(proxy)
        time.sleep(QUIET_S)
        return _writes(proxy) == before

    eventually(quiet, within_s=60)


def started(server: ApiServer) -> Times:
    """Return the seconds from a planner's start to its first decision, on a ledger of 1,000 pools that is there."""
    (namespace,) = _cluster.filled(server, STARTED_ON)
    with _cluster.planner(server, namespace):
        pass  # it has made the ledger when it is ready
    times = Times()
    for _ in range(STARTS):
        began = time.perf_counter()
        with _cluster.planner(server, namespace) as process:
            eventually(partial(_decides, process, Target(namespace, 0).request(20)), within_s=60)
            times += Times((time.perf_counter() - began,))
    return times


def _decides(process: Process, request: bytes) -> bool:
    with Kept(process.url, {"Content-Type": "application/json"}) as kept:
        status, answer = kept.send("POST", "/v1/decide", request)
    return status == 200 and bool(json.loads(answer)["plan"])


def report(made: list[Bench], start: Times) -> None:
    """Print what was measured."""
    rows = [(one.mode, one.asked, one.patched, f"{one.ratio:.2f}", f"{one.writes:.2f}") for one in made]
    table(("one caller", "increase", "bare PATCH", "ratio", "writes"), rows)
    print()
    rates = [
        (one.mode, *(f"{sum(side) / len(side):,.0f}" for side in zip(*one.rates, strict=True)), f"{one.share:.2f}")
        for one in made
    ]
    table((f"{CALLERS} callers", "settled/s", "bare PATCHes/s", "share"), rates)
    print(f"\nfrom the start of a planner to its first decision, on a ledger of {2 * STARTED_ON:,} pools: {start}\n")


def judge(made: list[Bench], start: Times) -> None:
    """Print how the goals are met."""
    for one in made:
        goal = MOST_TIMES[one.mode]
        verdict(f"{one.mode}: at most {goal:g} bare PATCHes", holds=one.ratio <= goal, found=f"{one.ratio:.2f}")
        claim = f"{one.mode}: at most {MOST_WRITES} writes, the PATCH included"
        verdict(claim, holds=one.writes <= MOST_WRITES, found=f"{one.writes:.2f}")
        claim = f"{one.mode}: {CALLERS} callers settle at least {LEAST_SHARE:.0%} of what bare PATCHes reach"
        verdict(claim, holds=one.share >= LEAST_SHARE, found=f"{one.share:.0%}")
    claim = f"a ledger of {2 * STARTED_ON:,} pools is read and planned on in at most {START_S:g} s"
    verdict(claim, holds=start.median <= START_S, found=shown(start.median))


def main() -> None:
    """Measure, and print."""
    argparse.ArgumentParser(description="What does the ledger cost?").parse_args()
    with _cluster.api_server() as server:
        with benches(server) as made:
            for _ in range(ROUNDS):
                for one in made:
                    one.alone()
            for _ in range(ROUNDS_AT_ONCE):
                for one in made:
                    one.together()
        for one in made:
            one.writes = counted(server, scaling_adapter=one.mode == "DGDSA")
        start = started(server)
        print(_cluster.busy())
        report(made, start)
        judge(made, start)


if __name__ == "__main__":
    main()

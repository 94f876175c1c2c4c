"""Answer what one routing decision costs, and how many there are in a second when they come in arrays.

*route* is `gpcore.routing.route` on a request that is there; *made* also makes the `RouteRequest` of it. The peer
(the `select_pool` of ai-dynamo's global router, in its own process) gets the same tables and requests in alternation
with ours, is called with positional arguments, and has to choose the same pools.

The batch is a million requests to a grid of 8 x 8 on one core. Its limit is memory: *copy* only copies the two arrays.

Ratios and rates compare the fastest rounds: there is no waiting in any of this, so whatever is slower is somebody else.
"""

import argparse
import contextlib
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np

from benchmarks import _peer
from benchmarks._environment import MissingError
from benchmarks._report import Times, shown, table, verdict
from gpcore.routing import Phase, Route, RouteRequest, RoutingTable, route, route_batch
from gpcore.wire import routing_config

ROUNDS = 40
TURNS = 2_000  # a round
SIZE = 1_000_000
POOLS = 3
BINS = 8

PLAIN = "8 x 8"
RULES = "8 x 8, 2 rules"
DEEP = "8 x 8 x 8"

Document = dict[str, Any]


@attrs.frozen
class Case:
    """One table, and requests to it as the peer takes them: length, target, priority."""

    name: str
    phase: Phase
    strategy: Document
    requests: tuple[tuple[Any, ...], ...]

    def table(self) -> RoutingTable:
        """Return the table as our router reads it; the phase that is not asked about has one cell."""
        document: Document = {"mode": "agg" if self.phase is Phase.AGG else "disagg"}
        decode = _ranges(["context_length", "itl"], 1) | {"decode_pool_mapping": [[0]]}
        strategies = {"agg": self.strategy} if self.phase is Phase.AGG else {"prefill": self.strategy, "decode": decode}
        for phase, strategy in strategies.items():
            document[f"num_{phase}_pools"] = POOLS
            document[f"{phase}_pool_dynamo_namespaces"] = [f"{phase}-{at}" for at in range(POOLS)]
            document[f"{phase}_pool_selection_strategy"] = strategy
        return routing_config(json.dumps(document).encode()).table

    def asked(self, request: tuple[Any, ...]) -> RouteRequest:
        """Return one of the requests as ours."""
        if self.phase is Phase.AGG:
            ttft, itl, priority, length = request
            return RouteRequest(self.phase, length, ttft, itl, priority)
        length, ttft, priority = request
        return RouteRequest(self.phase, length, ttft, None, priority)


def cases() -> Iterator[Case]:
    """Yield the tables that are asked about, each with its random requests."""
    chance = random.Random(8)  # noqa: S311 - the same on every run
    flat = _ranges(["isl", "ttft"], BINS) | {"prefill_pool_mapping": _cells(chance, 2)}
    rules = [{"min_priority": at, "max_priority": at + 1, "target_pool": 0} for at in (1, 5)]
    deep = _ranges(["isl", "ttft", "itl"], BINS) | {"agg_pool_mapping": _cells(chance, 3)}
    values = [
        (chance.randrange(40_000), chance.uniform(0, 3_500), chance.uniform(0, 3_500), chance.randrange(9))
        for _ in range(TURNS)
    ]
    yield Case(PLAIN, Phase.PREFILL, flat, tuple((isl, ttft, None) for isl, ttft, _, _ in values))
    ruled = flat | {"priority_overrides": rules}
    yield Case(RULES, Phase.PREFILL, ruled, tuple((isl, ttft, priority) for isl, ttft, _, priority in values))
    yield Case(DEEP, Phase.AGG, deep, tuple((ttft, itl, None, isl) for isl, ttft, itl, _ in values))


def _ranges(axes: list[str], bins: int) -> Document:
    made: Document = {}
    for axis in axes:
        unit, high = ("_ms", 3_000) if axis in {"ttft", "itl"} else ("", 32_000)
        made |= {f"{axis}_min{unit}": 10, f"{axis}_max{unit}": high, f"{axis}_resolution": bins}
    return made


def _cells(chance: random.Random, dimensions: int) -> Any:  # noqa: ANN401 - nested lists
    return [_cells(chance, dimensions - 1) for _ in range(BINS)] if dimensions else chance.randrange(POOLS)


class Ours:
    """Our router in one case."""

    def __init__(self, case: Case) -> None:
        """Read the table."""
        self._table, self._requests = case.table(), [case.asked(request) for request in case.requests]
        self.route, self.made = Times(), Times()

    def play(self) -> None:
        """Route every request, once as it is there and once made anew."""
        routing, requests = self._table, self._requests
        start = time.perf_counter()
        for request in requests:
            route(routing, request)
        there = time.perf_counter()
        for phase, length, ttft, itl, priority in requests:
            route(routing, RouteRequest(phase, length, ttft, itl, priority))
        end = time.perf_counter()
        self.route += Times(((there - start) / len(requests),))
        self.made += Times(((end - there) / len(requests),))

    def pools(self) -> list[int]:
        """Return the pool of every request."""
        found = [route(self._table, request) for request in self._requests]
        return [one.pool.index for one in found if isinstance(one, Route)]


class Theirs:
    """The peer in one case."""

    def __init__(self, case: Case, peer: _peer.Peer) -> None:
        """Have it make the strategy."""
        self._case, self._peer = case, peer
        self.select, self.pools = Times(), list[int]()
        peer.ask({"case": case.name, "phase": case.phase.value, "strategy": case.strategy})

    def play(self) -> None:
        """Have it select a pool for every request."""
        answer = self._peer.ask({"case": self._case.name, "requests": self._case.requests})
        self.select += Times((answer["seconds"],))
        self.pools = answer["pools"]


Results = dict[str, tuple[Ours, Theirs | None]]


def measure(peer: _peer.Peer | None) -> Results:
    """Play all cases in rounds, so that whatever else the machine does meets all of them."""
    playing = {case.name: (Ours(case), Theirs(case, peer) if peer else None) for case in cases()}
    gc.collect()
    gc.freeze()
    for _ in range(ROUNDS):
        for ours, theirs in playing.values():
            ours.play()
            if theirs:
                theirs.play()
    for ours, theirs in playing.values():
        assert theirs is None or ours.pools() == theirs.pools, "the same pools"
    return playing


def batch() -> tuple[Times, Times]:
    """Return what a million requests at once take, and what copying them takes."""
    (case, *_) = cases()
    routing, chance = case.table(), np.random.default_rng(8)
    lengths, targets = chance.uniform(0, 40_000, SIZE), chance.uniform(0, 3_500, SIZE)
    routed = _times(lambda: route_batch(routing, case.phase, lengths=lengths, ttft_ms=targets))
    return routed, _times(lambda: (lengths.copy(), targets.copy()))


def _times(what: Callable[[], object]) -> Times:
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        what()
        took.append(time.perf_counter() - start)
    return Times(tuple(took))


def report(results: Results, routed: Times, copied: Times) -> None:
    """Print what was measured."""
    rows = [
        [name, ours.route, ours.made, theirs.select if theirs else "-", _ratio(ours, theirs)]
        for name, (ours, theirs) in results.items()
    ]
    table(("table", "route", "made and routed", f"ai-dynamo {_peer.VERSION}", "route / peer"), rows)
    print()
    rates = [[name, times, f"{SIZE / min(times.seconds) / 1e6:,.0f} M/s"] for name, times in _named(routed, copied)]
    table((f"{SIZE:,} at once, 8 x 8", "time", "rate"), rates)


def _named(routed: Times, copied: Times) -> list[tuple[str, Times]]:
    return [("route_batch", routed), ("copy", copied)]


def _ratio(ours: Ours, theirs: Theirs | None) -> str:
    return f"{min(ours.route.seconds) / min(theirs.select.seconds):.2f}" if theirs else "-"


def judge(results: Results, routed: Times, copied: Times) -> None:
    """Print how the goals are met."""
    for name, (ours, theirs) in results.items():
        if theirs:
            ratio = min(ours.route.seconds) / min(theirs.select.seconds)
            verdict(f"{name}: at most 1/4 of the peer", holds=ratio <= 0.25, found=f"{ratio:.2f}")
    rate = SIZE / min(routed.seconds) / 1e6
    copying = min(copied.seconds)
    found = f"{rate:,.0f} M/s, {min(routed.seconds) / copying:.1f} times copying the arrays ({shown(copying)})"
    verdict("at least 50 million decisions a second on one core at 8 x 8", holds=rate >= 50, found=found)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What does a routing decision cost?")
    parser.add_argument("--no-peer", action="store_true", help="measure our side alone")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        peer = None
        if not options.no_peer:
            try:
                peer = stack.enter_context(_peer.running("_peer_route.py"))
            except MissingError as missing:
                print(f"without ai-dynamo {_peer.VERSION}: {missing}", file=sys.stderr)
        results = measure(peer)
    routed, copied = batch()
    report(results, routed, copied)
    judge(results, routed, copied)


if __name__ == "__main__":
    main()

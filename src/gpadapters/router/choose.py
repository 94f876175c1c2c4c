"""Where one request goes: the grid's own result, and what is left out of it for now.

Rules of this file: no I/O and no clock of its own; the grid's result is the core's and stays as it is; moving on from a
pool that cannot serve follows the order of the core, towards faster pools only; what an answer says about it is made
once for every route and not once for every request.
"""

from collections.abc import Iterable, Mapping
from typing import assert_never

import attrs

from gpadapters.router import refusals
from gpadapters.router.asking import Wish
from gpadapters.router.fleet import Condition, Endpoint, Pool
from gpadapters.router.refusals import Refusal
from gpcore.routing import (
    Aggregated,
    Destination,
    Disaggregated,
    Phase,
    Route,
    Routed,
    RouteRequest,
    RoutingTable,
    Selection,
    Unroutable,
)
from gpcore.targets import Source

_LENGTHS = 65_536
_PREFIXES = {Phase.PREFILL.value: "prefill-"}
_MISSING_REPLICAS = {Condition.EMPTY, Condition.COLD, Condition.DRAINING, Condition.DENIED}


@attrs.define(eq=False)
class Way:
    """A route with the pools that it names: *order* begins with the grid's pool and grows faster."""

    route: Route
    order: tuple[Pool, ...]
    retries: tuple[Pool, ...]
    """Where a request may be tried again, when its own pool failed it."""
    lines: bytes
    """What the answer says when the grid's own pool served."""
    once: dict[tuple[Source, Source], bytes] = attrs.field(factory=dict)
    """The same with everything else that it says where it took one attempt, by where the targets came from."""


@attrs.frozen
class Chosen:
    """One pool that can serve now, and what was left out before it."""

    pool: Pool
    left_out: tuple[tuple[Pool, Condition], ...] = ()


class Ways:
    """A routing table together with the pools that it names; replaced as a whole when the table is."""

    def __init__(self, table: RoutingTable, pools: Mapping[tuple[str, str], Pool]) -> None:
        """Prepare nothing yet: each route is prepared when it is first taken, and there are only so many."""
        self.table = table
        self._pools = pools
        self._ways: dict[int, Way] = {}
        self._plain: dict[int, Way] = {}
        match table:
            case Disaggregated(prefill, decode):
                self.prefill: Selection | None = prefill
                self.serving = decode
            case Aggregated(agg):
                self.prefill = None
                self.serving = agg
            case _:
                assert_never(table)

    def for_prefill(self, wish: Wish, length: int) -> Way | Refusal | None:
        """Return the way of the input; None where one pool does all the work."""
        if self.prefill is None:
            return None
        request = RouteRequest(Phase.PREFILL, length, wish.ttft.value, None, wish.priority)
        return self._way(self.prefill.route(request), "prefill-")

    def for_serving(self, wish: Wish, length: int) -> Way | Refusal:
        """Return the way of the output, or of everything."""
        serving = self.serving
        routed = serving.route(RouteRequest(serving.phase, length, wish.ttft.value, wish.itl.value, wish.priority))
        return self._ways.get(id(routed)) or self._way(routed, "")

    def for_plain(self, wish: Wish, length: int) -> Way | Refusal:
        """Return the same as `for_serving`, for the one *wish* that most requests have: only *length* differs."""
        way = self._plain.get(length)
        if way is not None:
            return way
        found = self.for_serving(wish, length)
        if isinstance(found, Way) and len(self._plain) < _LENGTHS:
            self._plain[length] = found
        return found

    def _way(self, routed: Routed, prefix: str) -> Way | Refusal:
        way = self._ways.get(id(routed))
        if way is not None:
            return way
        if isinstance(routed, Unroutable):
            return refusals.invalid(str(routed))
        return self._prepare(routed, prefix)

    def _prepare(self, route: Route, prefix: str) -> Way:
        role = Phase.PREFILL.value if prefix else self.serving.phase.value
        pools = tuple(self._pools[role, one.namespace] for one in (route.pool, *route.faster))
        retries = tuple(self._pools[role, one.namespace] for one in route.fallbacks)
        way = Way(route, pools, retries, lines(prefix, route.pool, route))
        self._ways[id(route)] = way  # the table holds the route, and this object the table, so the id stays taken
        return way


def lines(prefix: str, pool: Destination | Pool, route: Route) -> bytes:
    """Return what the answer says about *pool* having served *route*."""
    name = pool.namespace if isinstance(pool, Destination) else pool.name
    cell = ",".join(map(str, route.cell)) if route.cell is not None else "priority"
    return f"x-gp-{prefix}pool: {name}\r\nx-gp-{prefix}cell: {cell}\r\n".encode("ascii", "replace")


def first_serving(way: Way, now: float) -> Chosen | Refusal | None:
    """Return the first pool of *way* that can serve; None where a replica may come, a refusal where all are unwell."""
    first = way.order[0]
    if first.condition(now) is Condition.SERVING:
        return Chosen(first)
    left_out: list[tuple[Pool, Condition]] = []
    for pool in way.order:
        condition = pool.condition(now)
        if condition is Condition.SERVING:
            return Chosen(pool, tuple(left_out))
        left_out.append((pool, condition))
    return None if all(condition in _MISSING_REPLICAS for _, condition in left_out) else refusals.NO_HEALTHY


def left_out_line(left_out: tuple[tuple[Pool, Condition], ...]) -> bytes:
    """Return what the answer says about the pools that were passed over."""
    said = ", ".join(f"{pool.name}={condition.value}" for pool, condition in left_out)
    return f"x-gp-left-out: {said}\r\n".encode("ascii", "replace")


def again(way: Way, pool: Pool, tried: list[Endpoint], *, now: float) -> Endpoint | None:
    """Return where to try again: elsewhere in *pool*, then in a faster one where the configuration allows that."""
    if pool.planned is Condition.SERVING and (endpoint := pool.pick(now, tried)) is not None:
        return endpoint
    for other in way.retries:
        if other is not pool and other.planned is Condition.SERVING:
            endpoint = other.pick(now, tried)
            if endpoint is not None:
                return endpoint
    return None


def targets_line(wish: Wish) -> bytes:
    """Return what the answer says about where the targets came from."""
    return f"x-gp-targets: ttft={wish.ttft.source}, itl={wish.itl.source}\r\n".encode()


def about(
    took: Iterable[tuple[Way, Pool | None]],
    wish: Wish,
    *,
    left_out: tuple[tuple[Pool, Condition], ...],
    attempts: int,
) -> bytes:
    """Return all that the answer says: which pools served, in place of which, for which targets."""
    said = [
        way.lines if pool is None or pool is way.order[0] else lines(_PREFIXES.get(pool.role, ""), pool, way.route)
        for way, pool in took
    ]
    if left_out:
        said.append(left_out_line(left_out))
    return b"%b%bx-gp-attempts: %d\r\n" % (b"".join(said), targets_line(wish), attempts)


def about_once(way: Way, wish: Wish) -> bytes:
    """Return all that the answer says where the grid's own pool served at the first attempt."""
    key = (wish.ttft.source, wish.itl.source)
    said = way.once.get(key)
    if said is None:
        way.once[key] = said = b"%b%bx-gp-attempts: 1\r\n" % (way.lines, targets_line(wish))
    return said


def priority_of(wish: Wish) -> int:
    """Return the priority by which a request is admitted; the core has refused what is not a number."""
    value = wish.priority
    if not isinstance(value, int | float):
        return 0
    return 1 if value > 0 else -1 if value < 0 else 0

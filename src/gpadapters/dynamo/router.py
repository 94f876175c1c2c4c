"""The router as Dynamo's frontend sees it: a worker that hands each request to the pool which the grid names for it.

Rules of this file: one loop owns it, and the runtime is known by what is called of it. A request may be tried again
until the first output, towards faster pools only. Whatever goes wrong is told with one kind of error: the frontend
takes some others to mean that this router itself is gone, and sends it nothing any more.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import attrs

from gpadapters.dynamo import router_faults as faults
from gpadapters.dynamo.router_faults import Fault, Kind
from gpadapters.dynamo.router_measures import Counts, PoolCounts, exposition
from gpadapters.dynamo.router_pools import (
    Bounds,
    Instance,
    Place,
    Pool,
    RetryBudget,
    Standing,
    advertised,
    again,
    first,
    hopeful,
)
from gpadapters.dynamo.router_requests import NO_DEFAULTS, Defaults, asked, finishes, forwarded, told
from gpcore.routing import Phase, Route, RoutingTable, Unroutable, route

log = logging.getLogger(__name__)

UNHEALTHY = Fault(Kind.FAILED, 503, "no pool for this request is healthy")
NO_REPLICA = Fault(Kind.NO_REPLICA, 503, "no pool has a replica yet")
CROWDED = Fault(Kind.NO_REPLICA, 503, "too many requests wait for a first replica")

Key = tuple[str, str]
"""A pool: its role and its Dynamo namespace."""

_LOOK_S = 0.25
"""How often a request that waits looks whether somebody came."""


class Callee(Protocol):
    """The routers of one pool, as the runtime reaches them."""

    def instance_ids(self) -> Sequence[int]:
        """Return who is there."""
        ...

    async def direct(
        self,
        request: object,
        instance_id: int,
        *,
        annotated: bool,
        context: Any,  # noqa: ANN401 (both are the runtime's)
    ) -> AsyncIterator[Any]:
        """Send *request* to one of them and return its answer, piece by piece."""
        ...


class Context(Protocol):
    """A request under way, as the runtime knows it."""

    def is_stopped(self) -> bool:
        """Say whether nobody waits for the answer any more."""
        ...


Refuse = Callable[[int, str], Exception]
"""Makes the error that tells a client an HTTP status and a message."""


class Router:
    """Serve one routing table."""

    def __init__(
        self,
        table: RoutingTable,
        callees: Mapping[Key, Callee],
        *,
        refuse: Refuse,
        bounds: Bounds | None = None,
        defaults: Defaults = NO_DEFAULTS,
        asks_planner: bool = False,
        router_id: str = "0",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with the pools of *table*, each reached by its one of *callees*."""
        self.bounds = bounds or Bounds()
        self.closing = False
        self.under_way = 0
        self.counts = Counts()
        self.advertised = False
        self._refuse = refuse
        self._defaults = defaults
        self._planned = None if asks_planner else Standing.SERVING
        self._router_id = router_id
        self._clock = clock
        self._budget = RetryBudget(self.bounds)
        self._pools: dict[Key, tuple[Pool, PoolCounts]] = {}
        self.serve(table, callees)

    def serve(self, table: RoutingTable, callees: Mapping[Key, Callee]) -> None:
        """Route by *table* from the next request on; *callees* reach every pool of it."""
        self.table = table
        self._callees = dict(callees)
        for role, namespace in keys(table):
            if (role, namespace) not in self._pools:
                pool = Pool(role, namespace, self.bounds, planned=self._planned)
                self._pools[role, namespace] = pool, PoolCounts(role, namespace, self._router_id)

    def planned(self, said: Mapping[Key, str]) -> None:
        """Leave out the pools that the planner says cannot serve; a pool that it does not know serves."""
        self._planned = Standing.SERVING
        for key, (pool, _) in self._pools.items():
            pool.planned = Standing(said.get(key, Standing.SERVING))

    def advertises(self) -> bool:
        """Say whether the model is to be listed now."""
        phases = [[self._seen(key) for key in keys(self.table) if key[0] == phase] for phase in phases_of(self.table)]
        self.advertised = advertised(phases, before=self.advertised)
        return self.advertised

    def metrics(self) -> str:
        """Return everything that is measured, as Prometheus reads it."""
        return exposition(self.counts, self._pools.values(), self._clock())

    async def answer(self, phase: Phase, payload: object, context: Context) -> AsyncIterator[object]:
        """Yield what the pool answers that serves *payload*."""
        wish = asked(payload, phase, defaults=self._defaults)
        way = route(self.table, wish)
        if isinstance(way, Unroutable):
            self._end(Fault(Kind.REFUSED, 400, str(way)))
        if log.isEnabledFor(logging.INFO):
            log.info("%s", told(wish, way))
        self._budget.request()
        self._pools[phase, way.pool.namespace][1].routed += 1
        now = self._clock()
        bounds = self.bounds
        request = _Request(
            phase, way, forwarded(payload), context, now + bounds.total_s, now + bounds.wait_for_replica_s
        )
        self.under_way += 1
        try:
            async for item in self._served(request):
                yield item
        finally:
            self.under_way -= 1

    async def _served(self, request: "_Request") -> AsyncIterator[object]:
        """Yield the answer of the first place that gives one."""
        place = self._begun(request) or await self._waited(request)
        while place is not None:
            request.tried.append(place.instance)
            begun = False
            try:
                async for item in self._asked(place, request):
                    begun = True
                    yield item
            except _FailedError as exc:
                fault = exc.fault
                self._note(place, fault, begun=begun)
                if request.context.is_stopped():
                    return
                if begun:
                    self._end(Fault(fault.kind, fault.status, f"the answer was cut off: {fault.message}"))
                place = await self._next(place, request, fault)
            else:
                self._count(place.pool).ok += 1
                return

    async def _asked(self, place: Place, request: "_Request") -> AsyncIterator[object]:
        """Yield what one place answers; raise `_FailedError` unless it is a whole answer."""
        instance, bounds = place.instance, self.bounds
        callee = self._callees[place.pool.role, place.pool.namespace]
        self._count(place.pool).attempts += 1
        instance.outstanding += 1
        begun = whole = False
        items: AsyncIterator[object] | None = None
        try:
            while True:
                limit = bounds.between_outputs_s if begun else bounds.first_output_s
                async with asyncio.timeout(min(limit, max(request.ends - self._clock(), 0.0))):
                    if items is None:
                        items = await callee.direct(
                            request.payload, instance.number, annotated=False, context=request.context
                        )
                    item = await anext(items)
                if not begun:
                    begun = True
                    instance.succeeded()
                whole = whole or finishes(item)
                yield item
        except StopAsyncIteration:
            if not begun:
                raise _FailedError(faults.EMPTY) from None
            if not whole and request.phase is not Phase.PREFILL and not request.context.is_stopped():
                raise _FailedError(faults.CUT) from None
        except TimeoutError:
            raise _FailedError(faults.SLOW) from None
        except Exception as exc:  # the runtime raises what it likes, and the text says what it was
            raise _FailedError(faults.fault(str(exc))) from exc
        finally:
            instance.outstanding -= 1

    async def _next(self, place: Place, request: "_Request", fault: Fault) -> Place | None:
        """Return where to try next after *fault*, or raise."""
        if fault.kind is Kind.NO_REPLICA or fault.kind is Kind.UNREACHABLE:  # nothing was done, so this is no retry
            return await self._waited(request, fault)
        if not fault.elsewhere or len(request.tried) >= self.bounds.attempts:
            self._end(fault)
        fallbacks = [self._seen((request.phase, one.namespace)) for one in request.way.fallbacks]
        found = again(place.pool, fallbacks, request.tried, now=self._clock())
        if found is None:
            self._end(fault)
        if not self._budget.spend():
            self.counts.retries_denied += 1
            self._end(fault)
        self.counts.retries += 1
        log.warning("pool %s failed (%s); trying pool %s", place.pool.namespace, fault.message, found.pool.namespace)
        return found

    def _begun(self, request: "_Request") -> Place | None:
        """Return where to begin, if somebody is there; what misses its own pool is counted there."""
        pools = self._order(request)
        found = first(pools, self._clock())
        if found is None or found.pool is not pools[0]:
            self._count(pools[0]).missed += 1
        return found

    async def _waited(self, request: "_Request", fault: Fault = UNHEALTHY) -> Place | None:
        """Return the first place that there is in time; None if nobody wants the answer any more.

        Where waiting cannot help, *fault* is why.
        """
        waits = False
        try:
            while not request.context.is_stopped():
                now, pools = self._clock(), self._order(request)
                found = first(pools, now)
                if found is not None:
                    return found
                if not hopeful(pools, now):
                    self._end(fault)
                if now >= request.waits_until or self.closing:
                    self._end(NO_REPLICA)
                if not waits:
                    self._wait()
                    waits = True
                await asyncio.sleep(min(_LOOK_S, request.waits_until - now))
            return None
        finally:
            self.counts.waiting -= waits

    def _wait(self) -> None:
        """Count one request more that waits, if there is room."""
        if self.counts.waiting >= self.bounds.waiting:
            self._end(CROWDED)
        self.counts.waiting += 1

    def _order(self, request: "_Request") -> list[Pool]:
        """Return the pools of a request: the grid's own and the faster ones, as discovery shows them now."""
        way = request.way
        return [self._seen((request.phase, one.namespace)) for one in (way.pool, *way.faster)]

    def _seen(self, key: Key) -> Pool:
        """Return a pool as discovery shows it now."""
        pool = self._pools[key][0]
        pool.see(self._callees[key].instance_ids())
        return pool

    def _count(self, pool: Pool) -> PoolCounts:
        return self._pools[pool.role, pool.namespace][1]

    def _note(self, place: Place, fault: Fault, *, begun: bool) -> None:
        """Remember what went wrong where."""
        counts = self._count(place.pool)
        if begun:
            counts.cut += 1
        elif fault.kind is Kind.REFUSED:
            counts.refused += 1
        else:
            counts.failed += 1
        now = self._clock()
        if fault.kind is Kind.NO_REPLICA:
            place.pool.nobody(now)
        elif fault.elsewhere:
            place.instance.failed(fault.kind, now)

    def _end(self, fault: Fault) -> NoReturn:
        """Tell the client about *fault*."""
        self.counts.refused[fault.status] = self.counts.refused.get(fault.status, 0) + 1
        log.warning("answered %d: %s", fault.status, fault.message)
        raise self._refuse(fault.status, fault.message)


@attrs.frozen
class _Request:
    """Hold one request under way; times are those of the clock."""

    phase: Phase
    way: Route
    payload: object
    context: Context
    ends: float
    waits_until: float
    tried: list[Instance] = attrs.field(factory=list)


class _FailedError(Exception):
    """One place did not answer."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def phases_of(table: RoutingTable) -> tuple[Phase, ...]:
    """Return the phases that *table* chooses for."""
    return tuple(selection.phase for selection in table.selections)


def keys(table: RoutingTable) -> Iterable[Key]:
    """Return every pool that *table* names, once."""
    return dict.fromkeys((one.phase.value, pool.namespace) for one in table.selections for pool in one.pools)

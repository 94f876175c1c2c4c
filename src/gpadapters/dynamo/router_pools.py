"""The pools as Dynamo's discovery shows them: who is there, who is left alone, and what to try in which order.

Rules of this file: one loop owns all of it, nothing awaits and time comes in as an argument. The grid's result is the
core's; moving on from a pool that cannot serve follows the order of the core, towards faster pools only.
"""

import enum
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import attrs

from gpadapters.dynamo.router_faults import Kind


class Standing(enum.StrEnum):
    """Whether a pool serves, or why not; the planner's words for it are the same."""

    SERVING = "serving"
    EMPTY = "empty"
    COLD = "cold"
    DRAINING = "draining"
    DENIED = "denied"
    UNHEALTHY = "unhealthy"


_NO_REPLICA = {Standing.EMPTY, Standing.COLD, Standing.DRAINING, Standing.DENIED}


@attrs.frozen(kw_only=True)
class Bounds:
    """Bound what a request may take; times in seconds, and what is tried again as a share of all requests."""

    first_output_s: float = 120.0
    between_outputs_s: float = 60.0
    total_s: float = 3600.0
    wait_for_replica_s: float = 30.0
    waiting: int = 1024
    """Requests that wait for a first replica."""
    attempts: int = 3
    retry_share: float = 0.1
    retry_burst: int = 10
    failures: int = 5
    """In a row, after which an instance is left alone."""
    alone_s: float = 5.0
    """For how long at first; it doubles with each further failure."""
    alone_max_s: float = 60.0
    without_worker_s: float = 1.0
    """How long a pool counts as empty after its router has said that nobody works there."""
    drain_linger_s: float = 5.0
    drain_grace_s: float = 300.0


class Instance:
    """One router of a pool, as discovery knows it by *number*."""

    __slots__ = ("_alone_s", "_bounds", "_failures", "alone_until", "number", "outstanding")

    def __init__(self, number: int, bounds: Bounds) -> None:
        """Begin well."""
        self.number = number
        self.outstanding = 0
        self.alone_until = 0.0
        self._bounds = bounds
        self._failures = 0
        self._alone_s = bounds.alone_s

    def usable(self, now: float) -> bool:
        """Say whether a request may go here; after its time alone one at a time, until one succeeds."""
        return self.alone_until == 0.0 or (now >= self.alone_until and not self.outstanding)

    def succeeded(self) -> None:
        """Remember a good answer."""
        self._failures, self.alone_until, self._alone_s = 0, 0.0, self._bounds.alone_s

    def failed(self, kind: Kind, now: float) -> None:
        """Remember a failure; whoever cannot be reached is left alone at once."""
        self._failures += 1
        enough = kind is Kind.UNREACHABLE or self.alone_until != 0.0 or self._failures >= self._bounds.failures
        if enough and now >= self.alone_until:
            self.alone_until = now + self._alone_s
            self._alone_s = min(2 * self._alone_s, self._bounds.alone_max_s)


class Pool:
    """The routers of one pool, and what the planner says of it."""

    __slots__ = ("_bounds", "_empty_until", "_turn", "instances", "namespace", "planned", "role")

    def __init__(self, role: str, namespace: str, bounds: Bounds, *, planned: Standing | None = None) -> None:
        """Begin with nobody; *planned* is what the planner says, None as long as it was not heard."""
        self.role = role
        self.namespace = namespace
        self.planned = planned
        self.instances: tuple[Instance, ...] = ()
        self._bounds = bounds
        self._empty_until = 0.0
        self._turn = 0

    def see(self, numbers: Sequence[int]) -> None:
        """Have one instance for each of *numbers*, keeping those that stay."""
        known = {instance.number: instance for instance in self.instances}
        if known.keys() != set(numbers):
            self.instances = tuple(known.get(number) or Instance(number, self._bounds) for number in sorted(numbers))

    def nobody(self, now: float) -> None:
        """Take note that the pool's router has nobody to give work to."""
        self._empty_until = now + self._bounds.without_worker_s

    def standing(self, now: float) -> Standing:
        """Say whether requests can go here, or why not."""
        if self.planned is not None and self.planned is not Standing.SERVING:
            return self.planned
        if not self.instances or now < self._empty_until:
            return Standing.EMPTY
        return Standing.SERVING if any(one.usable(now) for one in self.instances) else Standing.UNHEALTHY

    def pick(self, now: float, tried: Collection[Instance] = ()) -> Instance | None:
        """Return the usable instance with the least outstanding, in turn where several have; one not *tried*."""
        if self.standing(now) is not Standing.SERVING:
            return None
        self._turn += 1
        at = self._turn % len(self.instances)
        usable = [one for one in (*self.instances[at:], *self.instances[:at]) if one.usable(now) and one not in tried]
        return min(usable, key=lambda one: one.outstanding, default=None)

    @property
    def may_serve(self) -> bool:
        """Say whether the pool serves, or may once it is scaled up; while nothing is known, who is there counts."""
        return bool(self.instances) if self.planned is None else self.planned is not Standing.DENIED


class Place(NamedTuple):
    """Where a request goes."""

    pool: Pool
    instance: Instance


def first(order: Iterable[Pool], now: float) -> Place | None:
    """Return the first place of *order*, which begins with the grid's pool and grows faster."""
    return next((Place(pool, one) for pool in order if (one := pool.pick(now)) is not None), None)


def again(pool: Pool, fallbacks: Iterable[Pool], tried: Collection[Instance], *, now: float) -> Place | None:
    """Return where to try next: elsewhere in *pool*, then in a faster one where the configuration allows that."""
    places = (Place(one, found) for one in (pool, *fallbacks) if (found := one.pick(now, tried)) is not None)
    return next(places, None)


def hopeful(order: Iterable[Pool], now: float) -> bool:
    """Say whether waiting may help: all of *order* lack a replica, and none is there and unwell."""
    return all(pool.standing(now) in _NO_REPLICA for pool in order)


def advertised(phases: Iterable[Iterable[Pool]], *, before: bool) -> bool:
    """Say whether the model is to be listed: each phase has a pool that serves or may be scaled up, or it was *before*.

    What is listed once stays so: a model that leaves the list with its last replica gives clients a 404, nobody asks
    for it any more, and nothing ever scales it up again.
    """
    return before or all(any(pool.may_serve for pool in pools) for pools in phases)


class RetryBudget:
    """What may be tried again: a share of the requests, saved up to a small burst."""

    __slots__ = ("_burst", "_saved", "_share")

    def __init__(self, bounds: Bounds) -> None:
        """Begin with the whole burst."""
        self._share = bounds.retry_share
        self._burst = self._saved = float(bounds.retry_burst)

    def request(self) -> None:
        """Save for one request more."""
        self._saved = min(self._burst, self._saved + self._share)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True

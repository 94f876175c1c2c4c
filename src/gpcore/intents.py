"""The wishes that were not met, filed so that those which could help a request are found at once.

Rules of this file: an intent is a wish and promises nothing. Intents are filed as of one snapshot: by whether the
pool would release or acquire, by GPUs per replica, and by how much; a change re-files the pools that changed and
no other.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import NamedTuple

import attrs

from gpcore.indexes import Index
from gpcore.pools import Pool, PoolKey, Snapshot

RELEASE = -1
ACQUIRE = 1
_IDLE = 0


@attrs.frozen
class Intent:
    """Remember that *pool* wanted *replicas* at *seen_at* (seconds on the caller's clock)."""

    pool: PoolKey
    replicas: int
    seen_at: float


class Candidate(NamedTuple):
    """A pool that wishes to move *replicas* in the direction that is asked about; sorts oldest first, then by key.

    *pool* and *gpus* (per replica) stand behind the sort keys.
    """

    seen_at: float
    order: tuple[str, str]
    replicas: int
    pool: PoolKey
    gpus: int


@attrs.frozen
class Shelf:
    """Hold the candidates of one direction and GPU size, oldest first on each level.

    A level holds the candidates whose replicas have the same number of binary digits, so that "the oldest that
    can give n" looks through one level at most. *units* is the sum of their replicas.
    """

    units: int = 0
    levels: Mapping[int, tuple[Candidate, ...]] = attrs.field(factory=dict)

    def __iter__(self) -> Iterator[Candidate]:
        for level in self.levels.values():
            yield from level

    def with_one(self, candidate: Candidate) -> "Shelf":
        """Return this shelf with *candidate* in its place."""
        digits = candidate.replicas.bit_length()
        level = self.levels.get(digits, ())
        at = bisect_left(level, candidate)
        return Shelf(self.units + candidate.replicas, {**self.levels, digits: (*level[:at], candidate, *level[at:])})

    def without(self, candidate: Candidate) -> "Shelf":
        """Return this shelf without *candidate*, which must be on it."""
        digits = candidate.replicas.bit_length()
        level = self.levels[digits]
        at = bisect_left(level, candidate)
        levels = {**self.levels, digits: level[:at] + level[at + 1 :]}
        if not levels[digits]:
            del levels[digits]
        return Shelf(self.units - candidate.replicas, levels)


Shelves = Mapping[int, Mapping[int, Shelf]]
"""By direction, then by GPUs per replica."""

_EMPTY = Shelf()
_ODD = 2  # times a direction: where the pools stand of which something is on its way, apart from those that are settled
_NOTHING: Shelves = {place: {} for place in (_ODD * RELEASE, RELEASE, _IDLE, ACQUIRE, _ODD * ACQUIRE)}


class _Filed(NamedTuple):
    """An intent, where it stands (by the direction in which its pool would move), and the candidate that it makes."""

    intent: Intent
    direction: int
    candidate: Candidate


@attrs.frozen
class Intents:
    """Hold at most one intent a pool, filed as of one snapshot."""

    _entries: Index[PoolKey, _Filed] = attrs.field(factory=Index)
    _shelves: Shelves = attrs.field(default=_NOTHING, repr=False, hash=False)
    _as_of: Snapshot = attrs.field(factory=Snapshot, repr=False, eq=False)

    @classmethod
    def of(cls, intents: Iterable[Intent], snapshot: Snapshot) -> "Intents":
        """Return *intents* filed as of *snapshot*; of two for one pool, the newer."""
        return cls().follow(snapshot, (), intents)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Intent]:
        return (entry.intent for entry in self._entries.values())

    def get(self, key: PoolKey) -> Intent | None:
        """Return the intent of the pool *key*."""
        entry = self._entries.get(key)
        return None if entry is None else entry.intent

    def record(self, intent: Intent) -> "Intents":
        """Return these intents with *intent* in the place of an older one of its pool; one that is met is dropped."""
        return self.follow(self._as_of, (), (intent,))

    def drop(self, key: PoolKey) -> "Intents":
        """Return these intents without the one of the pool *key*, which need not be there."""
        return self._refiled({key: None}, self._as_of)

    def follow(self, snapshot: Snapshot, changed: Iterable[PoolKey], wishes: Iterable[Intent] = ()) -> "Intents":
        """Return these intents filed as of *snapshot*, with new *wishes* in the place of older ones of their pools.

        *snapshot* may differ from the last one in the pools *changed* and those of *wishes*, and in no other. An
        intent whose pool is as it wished is met, and dropped; one whose pool is gone waits for its time. Of two for
        one pool the newer is kept: a request that is decided anew is as old as it was.
        """
        refiled: dict[PoolKey, Intent | None] = {key: self.get(key) for key in changed}
        for wish in wishes:
            known = refiled.get(wish.pool) or self.get(wish.pool)
            refiled[wish.pool] = known if known is not None and known.seen_at > wish.seen_at else wish
        return self._refiled(refiled, snapshot)

    def fresh(self, now: float, *, ttl_s: float) -> "Intents":
        """Return the intents of at most *ttl_s* seconds of age at *now*, at the cost of those that expire."""
        expired = [
            candidate.pool
            for shelves in self._shelves.values()
            for shelf in shelves.values()
            for level in shelf.levels.values()
            if now - level[0].seen_at > ttl_s
            for candidate in takewhile(lambda one: now - one.seen_at > ttl_s, level)
        ]
        return self._refiled(dict.fromkeys(expired), self._as_of) if expired else self

    def _refiled(self, intents: Mapping[PoolKey, Intent | None], as_of: Snapshot) -> "Intents":
        """Return these intents as of *as_of*, with those of some pools replaced, or dropped (None)."""
        entries: dict[PoolKey, _Filed | None] = {}
        shelves = {direction: dict(sizes) for direction, sizes in self._shelves.items()}
        for key, intent in intents.items():
            before = self._entries.get(key)
            if before is not None:
                _take(shelves[before.direction], before.candidate)
            filed = None if intent is None else _file(intent, as_of.pool(key))
            if filed is not None:
                sizes, gpus = shelves[filed.direction], filed.candidate.gpus
                sizes[gpus] = (sizes.get(gpus) or _EMPTY).with_one(filed.candidate)
            if before is not None or filed is not None:
                entries[key] = filed
        return Intents(self._entries.replaced(entries) if entries else self._entries, shelves, as_of)

    def shelves(self, snapshot: Snapshot, direction: int) -> Mapping[int, Shelf]:
        """Return the settled candidates of *direction* (RELEASE or ACQUIRE) in *snapshot*, by GPUs per replica.

        A pool is settled when it counts for what is asked of it and for nothing else. Free where the intents are filed
        as of this very snapshot; else they are filed anew.
        """
        return self._filed_as_of(snapshot)._shelves[direction]  # noqa: SLF001 - its own class

    def odd(self, snapshot: Snapshot, direction: int) -> list[Candidate]:
        """Return the candidates of *direction* in *snapshot* that are not settled, the oldest first."""
        shelves = self._filed_as_of(snapshot)._shelves[_ODD * direction]  # noqa: SLF001 - its own class
        return sorted(candidate for shelf in shelves.values() for candidate in shelf)

    def candidate(self, snapshot: Snapshot, key: PoolKey, direction: int) -> Candidate | None:
        """Return the settled candidate that the intent of *key* makes, if it moves in *direction* in *snapshot*."""
        filed = self._filed_as_of(snapshot)._entries.get(key)  # noqa: SLF001 - its own class
        return filed.candidate if filed is not None and filed.direction == direction else None

    def _filed_as_of(self, snapshot: Snapshot) -> "Intents":
        return self if self._as_of is snapshot else Intents.of(self, snapshot)


def _take(shelves: dict[int, Shelf], candidate: Candidate) -> None:
    """Take *candidate* off its shelf, and an empty shelf away."""
    shelf = shelves[candidate.gpus].without(candidate)
    if shelf.levels:
        shelves[candidate.gpus] = shelf
    else:
        del shelves[candidate.gpus]


def _file(intent: Intent, pool: Pool | None) -> _Filed | None:
    """Say where *intent* belongs, or None where it is met.

    A pool that is gone, promised to an operation, or without known GPUs can help nobody.
    """
    order, key = intent.pool.order, intent.pool
    if pool is None or pool.reserved is not None or not pool.gpus_per_replica or pool.replicas == intent.replicas:
        met = pool is not None and pool.reserved is None and pool.replicas == intent.replicas
        return None if met else _Filed(intent, _IDLE, Candidate(intent.seen_at, order, 0, key, 0))
    wish = intent.replicas - pool.replicas
    candidate = Candidate(intent.seen_at, order, abs(wish), key, pool.gpus_per_replica)
    direction = ACQUIRE if wish > 0 else RELEASE
    settled = pool.most == pool.least == pool.replicas
    return _Filed(intent, direction if settled else _ODD * direction, candidate)

"""Who should be paired, by trying everything: the issue's text turned into the dullest code that obeys it.

Rules of this file: nothing of `pairing` and `policy` is used, no cleverness but that numpy tries all amounts at once.
A case is small (six candidates at most), so that trying everything stays possible.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random

import attrs
import numpy as np
import numpy.typing as npt

from gpcore.budgets import Budget
from gpcore.intents import Intent
from gpcore.pools import Authority, ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.requests import Claimed, ScaleRequest, Target

MOST_CANDIDATES = 6

Partners = dict[PoolKey, int]
"""The replicas that each partner comes to have."""

_Ints = npt.NDArray[np.int64]


@attrs.frozen
class Case:
    """One request of a participant, by pool, and everything that its decision depends on."""

    pools: Mapping[PoolKey, Pool]
    intents: tuple[Intent, ...]
    budget: Budget
    asked: Mapping[PoolKey, int]

    @property
    def snapshot(self) -> Snapshot:
        """Return the pools as the core takes them."""
        return Snapshot.of_pools(self.pools.values())

    @property
    def request(self) -> ScaleRequest:
        """Return the request as the core takes it."""
        participant = next(iter(self.asked)).participant
        targets = tuple(Target(key.role, replicas) for key, replicas in self.asked.items())
        return ScaleRequest(Claimed(participant.dynamo_namespace), participant, targets)

    def asking(self, asked: Mapping[PoolKey, int]) -> "Case":
        """Return this case with another request."""
        return attrs.evolve(self, asked=asked)


def best(case: Case) -> Partners | None:
    """Return the best partners of the request (empty: none are needed), or None where it is to be refused."""
    if all(case.pools[key].replicas == replicas for key, replicas in case.asked.items()):
        return {}
    before = np.array([_charges(pool) for pool in case.pools.values()]).sum(axis=0)
    after = np.array([_when_done(pool, case.asked) for pool in case.pools.values()]).sum(axis=0)
    if _above(case, after) <= 0 and _below(case, after) <= 0:
        return {}
    if _below(case, before) > 0 and after[1] > before[1] and _above(case, after) <= 0:
        return {}
    if _above(case, before) > 0 and after[0] < before[0] and _below(case, after) <= 0:
        return {}
    return _best_of_all(case, after)


def nearest(case: Case) -> tuple[int, Partners] | None:
    """Return the approved count nearest to what a request for one pool asks, short of what is, and its partners."""
    ((key, asked),) = case.asked.items()
    now = case.pools[key].replicas
    for count in range(asked, now, 1 if asked < now else -1):
        partners = best(case.asking({key: count}))
        if partners is not None:
            return count, partners
    return None


def _best_of_all(case: Case, after: _Ints) -> Partners | None:
    """Try every amount of every candidate; first those inside the band, then those within the tolerance."""
    moved = {key: (n - case.pools[key].replicas) * _gpus(case.pools[key]) for key, n in case.asked.items()}
    net = sum(moved.values())
    candidates = _candidates(case, -1 if net > 0 else 1) if net else ()
    amounts = _amounts(tuple(abs(wish.replicas - case.pools[wish.pool].replicas) for wish in candidates))
    sizes = np.array([_gpus(case.pools[wish.pool]) for wish in candidates], dtype=np.int64)
    gpus = amounts @ sizes
    way = -1 if net > 0 else 1
    shifts = sum(
        (_shifts(case.pools[wish.pool], wish, way)[amounts[:, at]] for at, wish in enumerate(candidates)),
        start=np.zeros((len(amounts), 2), dtype=np.int64),
    )
    short = _below(case, after) - shifts[:, 1]
    fits = _above(case, after) + shifts[:, 0] <= 0
    inside = fits & (short <= 0)
    releases = any(n < 0 for n in moved.values()) | ((net > 0) & (gpus > 0))
    acquires = any(n > 0 for n in moved.values()) | ((net < 0) & (gpus > 0))
    own_size = max(
        (_gpus(case.pools[key]) for key, n in case.asked.items() if n != case.pools[key].replicas), default=0
    )
    largest = np.maximum(((amounts > 0) * sizes).max(axis=1, initial=0), own_size)
    chosen = inside if inside.any() else fits & releases & acquires & (short <= largest)
    if not chosen.any():
        return None
    participant = next(iter(case.asked)).participant
    at_home = amounts @ np.array([wish.pool.participant == participant for wish in candidates] * sizes, dtype=np.int64)
    first = _first(amounts[chosen], gpus[chosen], at_home[chosen])
    return {
        wish.pool: case.pools[wish.pool].replicas + way * int(n) for wish, n in zip(candidates, first, strict=True) if n
    }


def _shifts(pool: Pool, wish: Intent, way: int) -> _Ints:
    """Return by how much the charges change when *pool* moves 0, 1, 2 ... replicas toward its *wish*."""
    moves = range(abs(wish.replicas - pool.replicas) + 1)
    done = np.array([_when_done(pool, {pool.key: pool.replicas + way * n}) for n in moves], dtype=np.int64)
    return done - np.array(_charges(pool), dtype=np.int64)


def _first(amounts: _Ints, gpus: _Ints, at_home: _Ints) -> _Ints:
    """Return the first by: fewest GPUs, most of them at home, fewest partners, most for the oldest, then the next."""
    partners = (amounts > 0).sum(axis=1)
    order = np.lexsort([*(-column for column in reversed(amounts.T)), partners, -at_home, gpus])
    first: _Ints = amounts[order[0]]
    return first


@lru_cache(maxsize=4096)
def _amounts(most: tuple[int, ...]) -> _Ints:
    """Return every way to move 0 to *most* replicas of each candidate, a row a way."""
    if not most:
        return np.zeros((1, 0), dtype=np.int64)
    return np.indices([n + 1 for n in most], dtype=np.int64).reshape(len(most), -1).T


def _candidates(case: Case, way: int) -> tuple[Intent, ...]:
    """Return the wishes of other pools that go the opposite *way*, by age descending, then by key."""
    wishes = [
        wish
        for wish in case.intents
        if wish.pool not in case.asked
        and (pool := case.pools.get(wish.pool)) is not None
        and pool.reserved is None
        and _gpus(pool) > 0
        and (wish.replicas - pool.replicas) * way > 0
    ]
    return tuple(sorted(wishes, key=lambda one: (one.seen_at, str(one.pool.participant), one.pool.role.value)))


def _gpus(pool: Pool) -> int:
    return pool.gpus_per_replica or 0


def _charges(pool: Pool) -> tuple[int, int]:
    """Return the GPUs of *pool* that count against the ceiling, and toward the floor."""
    asked = [n for n in (pool.replicas, pool.relayed, pool.reserved) if n is not None]
    return max(*asked, pool.present) * _gpus(pool), min(asked) * _gpus(pool)


def _when_done(pool: Pool, asked: Mapping[PoolKey, int]) -> tuple[int, int]:
    """Return the charges of *pool* when it is as *asked*: what it gave is free, what it holds longer is held."""
    after = asked.get(pool.key, pool.replicas)
    if after == pool.replicas:
        return _charges(pool)
    if after < pool.replicas:
        return after * _gpus(pool), after * _gpus(pool)
    return max(after, pool.present, pool.relayed or 0) * _gpus(pool), after * _gpus(pool)


def _above(case: Case, totals: _Ints) -> int:
    """Return the GPUs above the ceiling, negative below it."""
    return int(totals[0]) - (_NO_CEILING if case.budget.ceiling is None else case.budget.ceiling)


def _below(case: Case, totals: _Ints) -> int:
    """Return the GPUs below the floor, negative above it."""
    return case.budget.floor - int(totals[1])


_NO_CEILING = 1 << 40
_SIZES = ((1,), (1, 1, 2), (1, 2, 4, 8), (2, 3), (1, 8), (2, 4), (3, 5, 7), (0, 1, 2))


def cases(seed: int) -> Iterator[Case]:
    """Yield small cases for ever, near the bounds as often as not; the same for the same *seed*."""
    chance = Random(seed)  # noqa: S311 - nothing here is a secret
    while True:
        yield _case(chance)


def _case(chance: Random) -> Case:
    sizes = chance.choice(_SIZES)
    home = ParticipantId("ns", chance.choice("ae"))
    roles = chance.choice(((Role.PREFILL, Role.DECODE), tuple(Role)))
    own = [_own(chance, PoolKey(home, role), sizes) for role in roles]
    count = chance.randrange(MOST_CANDIDATES + 1)
    others = [_other(chance, at, sizes) for at in range(chance.randrange(count, MOST_CANDIDATES + 1))]
    pools = {pool.key: pool for pool in (*own, *others)}
    asked = {pool.key: max(0, pool.replicas + _move(chance)) for pool in own[: chance.choice((1, 1, 2))]}
    wishing = [*chance.sample(others, min(count, len(others))), *chance.sample(own, chance.randrange(len(own) + 1))]
    way = _opposite(pools, asked, chance)
    wished = [pool for pool in wishing if chance.random() < 0.95][:MOST_CANDIDATES]
    intents = tuple(_wish(chance, pool, way, many=len(wished) > 4) for pool in wished)
    case = Case(pools, intents, Budget(), asked)
    return attrs.evolve(case, budget=_bounds(chance, case))


def _own(chance: Random, key: PoolKey, sizes: Sequence[int]) -> Pool:
    replicas = chance.randrange(9)
    present = max(0, replicas + chance.choice((0, 0, 0, -2, -1, 1, 3)))
    relayed = chance.choice((None, None, None, replicas, max(0, replicas - 1), replicas + 2))
    authority = Authority(chance.choice(("", key.role.value)))
    return Pool(key, replicas, chance.choice(sizes), present=present, relayed=relayed, authority=authority)


def _other(chance: Random, at: int, sizes: Sequence[int]) -> Pool:
    key = PoolKey(ParticipantId("ns", "bcdfgh"[at // 2 + chance.choice((0, 3))]), tuple(Role)[at % 2])
    replicas = chance.randrange(9)
    reserved = chance.choice((None,) * 9 + (replicas + 1,))
    present = max(0, replicas + chance.choice((0, 0, 0, 0, -1, 1, 3)))
    relayed = chance.choice((None,) * 8 + (max(0, replicas - 1), replicas + 2))
    return Pool(key, replicas, chance.choice(sizes), present=present, relayed=relayed, reserved=reserved)


def _move(chance: Random) -> int:
    return chance.choice((-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 9))


def _opposite(pools: Mapping[PoolKey, Pool], asked: Mapping[PoolKey, int], chance: Random) -> int:
    """Return the way in which partners would help, mostly."""
    net = sum((n - pools[key].replicas) * _gpus(pools[key]) for key, n in asked.items())
    return chance.choice((1, -1)) if net == 0 or chance.random() < 0.1 else (-1 if net > 0 else 1)


def _wish(chance: Random, pool: Pool, way: int, *, many: bool) -> Intent:
    """Return a wish of *pool*; those of *many* are small, so that all ways together stay few."""
    moved = chance.choice((1, 1, 2, 2, 3) if many else (1, 1, 2, 2, 3, 4, 6))
    return Intent(pool.key, max(0, pool.replicas + way * moved), float(chance.randrange(4)))


def _bounds(chance: Random, case: Case) -> Budget:
    """Return bounds where something is decided: around what is, or around what would be."""
    before = np.array([_charges(pool) for pool in case.pools.values()]).sum(axis=0)
    after = np.array([_when_done(pool, case.asked) for pool in case.pools.values()]).sum(axis=0)
    charged, least = (int(n) for n in chance.choice((before, before, after)))
    floor = max(0, least - chance.choice((0, 0, 0, 1, 2, 3, 5, -1, -2, -6)))
    ceiling = max(floor, charged + chance.choice((0, 0, 0, 1, 2, 3, 5, -1, -2, -6)))
    both = Budget(floor, ceiling)
    return chance.choice((both, both, Budget(0, ceiling), Budget(floor), Budget(floor, floor)))

"""Which fresh opposite intents make a request fit.

Rules of this file: exact. Of all ways in which partners can move GPUs the best is the first by: does without the
floor's tolerance; moves the fewest GPUs of partners; moves the most of them within the request's own participant;
asks the fewest partners; gives the most to the oldest intent, then to the next (equal ages: by key).

How: what partners can move together is a sum of multiples of few GPU sizes, so a bit set over the sizes (not over
the candidates) tells the sums that can be reached, and the smallest one in range is the amount. Who moves it is then
a search among the few candidates that can be best: one alone straight from the shelves, or several by dynamic
programming.

A pool of which something is on its way (replicas that still shut down, or are still relayed) counts for more, or for
less, than it moves. Such candidates are few; each way to use them is tried, and the rest of the gap filled as above.
"""

from collections.abc import Iterator, Mapping
from itertools import product

import attrs
import numpy as np
import numpy.typing as npt

from gpcore.budgets import Budget
from gpcore.intents import RELEASE, Candidate, Intents, Shelf
from gpcore.pools import Deployment, Pool, PoolKey, Snapshot, Totals

EXACT_CELLS = 4_000_000
"""Candidates times GPUs up to which several partners are searched exactly; beyond it the oldest just go first."""

ODD_WAYS = 4_096
"""Ways to use the candidates of which something is on its way; beyond it, the youngest of them are not asked."""

_FAR = 1 << 30

Shares = dict[Candidate, int]
"""The replicas that each partner moves."""


@attrs.frozen
class Gap:
    """What a request leaves for partners to do: it alone would end at *after*.

    *direction* is what partners must do: release under the ceiling, or acquire up to the floor. *own_gpus* is the
    largest GPUs per replica among the pools that the request changes, and *transfers* says that it both releases and
    acquires; the floor's tolerance depends on both.
    """

    after: Totals
    budget: Budget
    direction: int
    own_gpus: int
    transfers: bool

    def left_by(self, moved: Shares, pools: Mapping[PoolKey, Pool]) -> "Gap":
        """Return what is left to do when the partners *moved* have done their share."""
        after, largest = self.after, self.own_gpus
        for candidate, replicas in moved.items():
            pool = pools[candidate.pool]
            after += pool.shift(pool.replicas + self.direction * replicas)
            largest = max(largest, candidate.gpus)
        return Gap(after, self.budget, self.direction, largest, self.transfers or bool(moved))

    def tolerance(self, amount: int) -> int:
        """Return the tolerance at the floor (GPUs) that is needed when partners move *amount* GPUs."""
        moved = self.direction * amount
        return self.budget.shortfall(self.after + Totals(moved, moved))

    @property
    def inside(self) -> range:
        """Return the amounts that end inside the band."""
        if self.direction == RELEASE:
            return range(self.budget.excess(self.after), self.after.least - self.budget.floor + 1)
        return range(self.budget.shortfall(self.after), self._most_acquired + 1)

    def tolerated(self, tolerance: int) -> range:
        """Return the amounts that need some of *tolerance*, fewest first."""
        if self.direction == RELEASE:
            spare = self.after.least - self.budget.floor
            return range(max(self.budget.excess(self.after), spare + 1), spare + tolerance + 1)
        short = self.budget.shortfall(self.after)
        first = max(0 if self.transfers else 1, short - tolerance)
        return range(first, min(short, self._most_acquired + 1))

    @property
    def _most_acquired(self) -> int:
        room = self.budget.headroom(self.after)
        return room if room is not None else self.budget.shortfall(self.after) + _FAR


@attrs.frozen
class Amount:
    """Partners move *gpus* together; one of them must have at least *demand* GPUs per replica (0: any)."""

    gpus: int
    demand: int = 0


@attrs.frozen
class Market:
    """The candidates that one request may be paired with.

    Those that are settled, of its *own* participant and all others by GPU size, and the *odd* ones with their pools.
    """

    own: tuple[Candidate, ...] = ()
    shelves: Mapping[int, Shelf] = attrs.field(factory=dict)
    units: Mapping[int, int] = attrs.field(factory=dict)
    home: str = ""
    odd: tuple[Candidate, ...] = ()
    pools: Mapping[PoolKey, Pool] = attrs.field(factory=dict)
    way: int = RELEASE

    @classmethod
    def of(
        cls, intents: Intents, snapshot: Snapshot, *, home: Deployment, asked: frozenset[PoolKey], way: int
    ) -> "Market":
        """Return the market for a request that asks for the pools *asked* of *home*; partners move in *way*."""
        shelves = intents.shelves(snapshot, way)
        units = {gpus: shelf.units for gpus, shelf in shelves.items()}
        at_home = [one for pool in home.pools if (one := intents.candidate(snapshot, pool.key, way))]
        for candidate in at_home:
            if candidate.pool in asked:
                units[candidate.gpus] -= candidate.replicas
        own = tuple(sorted(one for one in at_home if one.pool not in asked))
        odd = tuple(one for one in intents.odd(snapshot, way) if one.pool not in asked)
        pools = {one.pool: pool for one in odd if (pool := snapshot.pool(one.pool)) is not None}
        return cls(own, shelves, {gpus: n for gpus, n in units.items() if n}, str(home.id), odd, pools, way)

    @property
    def offer(self) -> int:
        """Return the GPUs that all candidates together would move, with what is on its way."""
        return sum(gpus * units for gpus, units in self.units.items()) + sum(map(self._counted, self.odd))

    def _counted(self, odd: Candidate) -> int:
        """Return the GPUs by which all that an *odd* candidate would move counts where it helps."""
        pool = self.pools[odd.pool]
        shift = pool.shift(pool.replicas + self.way * odd.replicas)
        return -shift.charged if self.way == RELEASE else shift.least

    def fill(self, gap: Gap) -> Shares | None:
        """Return the best way to fill *gap*, or None where there is none."""
        if not self.odd:
            amount = self.amount(gap)
            return None if amount is None else self.share(amount)
        best: _Way | None = None
        for moved in _odd_ways(self.odd, gap):
            if best is not None and not best.tolerated and _gpus(moved) > best.gpus:
                break
            way = self._way(moved, gap)
            best = way if best is None or (way is not None and way.beats(best)) else best
        return None if best is None else best.shares

    def _way(self, moved: Shares, gap: Gap) -> "_Way | None":
        """Return the best way to fill *gap* when just these odd candidates have *moved*."""
        left = gap.left_by(moved, self.pools)
        amount = self.amount(left)
        if amount is None:
            return None
        shares = {**moved, **self.share(amount)}
        at_home = sum(n * one.gpus for one, n in shares.items() if one.order[0] == self.home)
        return _Way(left.tolerance(amount.gpus) > 0, _gpus(shares), at_home, shares)

    def amount(self, gap: Gap) -> Amount | None:
        """Return the best amount that fills *gap* and can be made up, or None."""
        largest = max(self.units, default=0)
        inside = gap.inside
        if inside:
            limit = min(inside[-1], inside[0] + largest)
            found = (_reach(self.units, limit) >> inside[0]) & ((1 << (limit - inside[0] + 1)) - 1)
            if found:
                return Amount(inside[0] + (found & -found).bit_length() - 1)
        tolerated = gap.tolerated(max(largest, gap.own_gpus))
        sums = _reach(self.units, tolerated[-1]) if tolerated else 0
        for gpus in tolerated:
            if sums >> gpus & 1:
                tolerance = gap.tolerance(gpus)
                demand = tolerance if tolerance > gap.own_gpus else 0
                if not demand or self._includes(gpus, demand):
                    return Amount(gpus, demand)
        return None

    def share(self, amount: Amount) -> Shares:
        """Return who moves how much of *amount*, which must be one that can be made up."""
        if not self.own:
            return self._fewest(amount.gpus, amount.demand) or {}
        own_units: dict[int, int] = {}
        for candidate in self.own:
            own_units[candidate.gpus] = own_units.get(candidate.gpus, 0) + candidate.replicas
        others = {gpus: n - own_units.get(gpus, 0) for gpus, n in self.units.items()}
        own_sums, other_sums = _reach(own_units, amount.gpus), _reach(others, amount.gpus)
        for own_gpus in range(own_sums.bit_length() - 1, -1, -1):
            if own_sums >> own_gpus & 1 and other_sums >> (amount.gpus - own_gpus) & 1:
                best = self._best_with(own_gpus, amount)
                if best is not None:
                    return best
        raise AssertionError(amount)

    def _includes(self, gpus: int, demand: int) -> bool:
        """Say whether *gpus* can be made up with at least one replica of *demand* GPUs or more."""
        for size in self.units:
            if demand <= size <= gpus:
                rest = {**self.units, size: self.units[size] - 1}
                if _reach(rest, gpus) >> (gpus - size) & 1:
                    return True
        return False

    def _best_with(self, own_gpus: int, amount: Amount) -> Shares | None:
        """Return the best way in which the own participant moves exactly *own_gpus* of *amount*."""
        rest = amount.gpus - own_gpus
        others = {demand: self._fewest(rest, demand) for demand in {0, amount.demand}}
        best: Shares | None = None
        for own in _ways(self.own, own_gpus):
            met = any(candidate.gpus >= amount.demand for candidate in own)
            found = others[0 if met else amount.demand]
            if found is not None:
                shares = {**own, **found}
                best = shares if best is None or _better(shares, best) else best
        return best

    def _fewest(self, gpus: int, demand: int) -> Shares | None:
        """Return the fewest others, the oldest first, that move exactly *gpus*."""
        if gpus == 0:
            return None if demand else {}
        alone: Candidate | None = None
        for size, shelf in self.shelves.items():
            if size >= demand and gpus % size == 0:
                alone = self._oldest(shelf, gpus // size, than=alone)
        return self._several(gpus, demand) if alone is None else {alone: gpus // alone.gpus}

    def _oldest(self, shelf: Shelf, replicas: int, *, than: Candidate | None) -> Candidate | None:
        """Return the oldest other candidate that can move *replicas*, if it is older *than* the one given."""
        oldest = than
        for digits, level in shelf.levels.items():
            if digits >= replicas.bit_length():
                for candidate in level:
                    if candidate.replicas >= replicas and self._other(candidate):
                        oldest = candidate if oldest is None or candidate < oldest else oldest
                        break
        return oldest

    def _other(self, candidate: Candidate) -> bool:
        return candidate.order[0] != self.home

    def _several(self, gpus: int, demand: int) -> Shares | None:
        """Return the fewest others that together move exactly *gpus*."""
        candidates = sorted(self._undominated(gpus))
        if len(candidates) * (gpus + 1) > EXACT_CELLS:
            return self._oldest_first(gpus, demand)
        return _search(candidates, gpus, demand)

    def _undominated(self, gpus: int) -> Iterator[Candidate]:
        """Yield the candidates that a best answer can use.

        Of those that can move the same, an older one is always as good, so only so many of the oldest matter as
        the amount has room for.
        """
        for size, shelf in self.shelves.items():
            room = gpus // size
            taken: dict[int, int] = {}
            for candidate in sorted(shelf):
                useful = min(candidate.replicas, room)
                if taken.get(useful, 0) < room and self._other(candidate):
                    taken[useful] = taken.get(useful, 0) + 1
                    yield candidate

    def _oldest_first(self, gpus: int, demand: int) -> Shares | None:
        """Return partners that move exactly *gpus*, the oldest as much as they can, without counting how many."""
        candidates = sorted(one for shelf in self.shelves.values() for one in shelf if self._other(one))
        left = dict.fromkeys(self.shelves, 0)
        for candidate in candidates:
            left[candidate.gpus] += candidate.replicas
        shares: Shares = {}
        for candidate in sorted(candidates, key=lambda one: one.gpus < demand):
            left[candidate.gpus] -= candidate.replicas
            sums = _reach(left, gpus)
            most = min(candidate.replicas, gpus // candidate.gpus)
            moved = next((n for n in range(most, -1, -1) if sums >> (gpus - n * candidate.gpus) & 1), 0)
            if moved:
                shares[candidate] = moved
                gpus -= moved * candidate.gpus
        met = not demand or any(one.gpus >= demand for one in shares)
        return shares if gpus == 0 and met else None


@attrs.frozen
class _Way:
    """One way to fill a gap, and what it is judged by before partners are counted."""

    tolerated: bool
    gpus: int
    at_home: int
    shares: Shares

    def beats(self, other: "_Way") -> bool:
        """Say whether this is the better way."""
        judged, others = (self.tolerated, self.gpus, -self.at_home), (other.tolerated, other.gpus, -other.at_home)
        return judged < others or (judged == others and _better(self.shares, other.shares))


def _gpus(shares: Shares) -> int:
    return sum(replicas * candidate.gpus for candidate, replicas in shares.items())


def _odd_ways(odd: tuple[Candidate, ...], gap: Gap) -> list[Shares]:
    """Return every way to move some of *odd*, those that move the fewest GPUs first."""
    most = gap.budget.excess(gap.after) + gap.budget.shortfall(gap.after)
    tried: list[tuple[Candidate, int]] = []
    ways = 1
    for candidate in odd:
        useful = min(candidate.replicas, -(-most // candidate.gpus))
        ways *= useful + 1
        if ways > ODD_WAYS:
            break
        tried.append((candidate, useful))
    amounts = product(*(range(useful + 1) for _, useful in tried))
    moved = ({one: n for (one, _), n in zip(tried, way, strict=True) if n} for way in amounts)
    return sorted(moved, key=_gpus)


def _reach(units: Mapping[int, int], limit: int) -> int:
    """Return a bit set: bit n says whether n GPUs, at most *limit*, are a sum of at most *units* of each size."""
    mask = (1 << (limit + 1)) - 1
    sums = 1
    for size, count in units.items():
        left, batch = min(count, limit // size), 1
        while left > 0:
            take = min(batch, left)
            sums |= sums << (take * size) & mask
            left -= take
            batch *= 2
    return sums


def _ways(own: tuple[Candidate, ...], gpus: int) -> Iterator[Shares]:
    """Yield every way in which *own* candidates move exactly *gpus*; there are two of them at most."""
    if not own:
        yield {}  # the last of them has moved all that was left
        return
    first, *rest = own
    step = range(min(first.replicas, gpus // first.gpus), -1, -1)
    if not rest:
        step = range(gpus // first.gpus, gpus // first.gpus - 1, -1) if gpus % first.gpus == 0 else range(0)
    for replicas in step:
        if replicas <= first.replicas:
            for others in _ways(tuple(rest), gpus - replicas * first.gpus):
                yield {first: replicas, **others} if replicas else others


def _better(one: Shares, other: Shares) -> bool:
    """Say whether *one* asks fewer partners than *other*, or as many and gives more to the oldest."""
    if len(one) != len(other):
        return len(one) < len(other)
    order = sorted({*one, *other})
    return [one.get(candidate, 0) for candidate in order] > [other.get(candidate, 0) for candidate in order]


def _search(candidates: list[Candidate], gpus: int, demand: int) -> Shares | None:
    """Return the fewest of *candidates*, then the oldest, that move exactly *gpus*, by dynamic programming.

    `free[j][n]` is the fewest of the candidates from j on that move n GPUs; `bound[j][n]` the same when one of them
    must still meet *demand*.
    """
    nothing = np.full(gpus + 1, _FAR, dtype=np.int32)
    free, bound = [nothing.copy()], [nothing]
    free[0][0] = 0
    for candidate in reversed(candidates):
        joined = _one_more(free[-1], candidate)
        bound.append(np.minimum(bound[-1], joined if candidate.gpus >= demand else _one_more(bound[-1], candidate)))
        free.append(np.minimum(free[-1], joined))
    free.reverse()
    bound.reverse()
    table = bound if demand else free
    if table[0][gpus] >= _FAR:
        return None
    shares: Shares = {}
    for at, candidate in enumerate(candidates):
        after = free if candidate.gpus >= demand else table
        fewest = table[at][gpus]
        for replicas in range(min(candidate.replicas, gpus // candidate.gpus), 0, -1):
            if after[at + 1][gpus - replicas * candidate.gpus] + 1 == fewest:
                shares[candidate] = replicas
                gpus -= replicas * candidate.gpus
                table = after
                break
    return shares


def _one_more(fewest: npt.NDArray[np.int32], candidate: Candidate) -> npt.NDArray[np.int32]:
    """Return, for each sum, the fewest partners when *candidate* moves at least one replica of it.

    A sliding minimum over 1 to *replicas* multiples of its size: windows of doubled width, the last two overlapping.
    """
    most = min(candidate.replicas, (len(fewest) - 1) // candidate.gpus)
    window, width = _shifted(fewest, candidate.gpus), 1
    while width < most:
        grow = min(width, most - width)
        window = np.minimum(window, _shifted(window, grow * candidate.gpus))
        width += grow
    return np.minimum(window + 1, _FAR).astype(np.int32)


def _shifted(values: npt.NDArray[np.int32], by: int) -> npt.NDArray[np.int32]:
    shifted = np.full_like(values, _FAR)
    shifted[by:] = values[: len(values) - by]
    return shifted

"""How a request is decided.

Rules of this file: pure, and blind to who asks; `control` has asked that before. A policy of your own is any function
with the signature of `Policy`; `gpcore.testing.laws.check_policy` says whether it keeps the laws.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import attrs

from gpcore.budgets import Budget
from gpcore.decisions import (
    Approved,
    CeilingBreach,
    Decision,
    FloorBreach,
    Nearest,
    NotScaled,
    OnePoolTwice,
    Rejected,
    ShapeUnknown,
    UnknownDeployment,
    UnknownPool,
    WrongComponent,
)
from gpcore.intents import ACQUIRE, RELEASE, Intents
from gpcore.pairing import Gap, Market, Shares
from gpcore.plans import Change, Plan
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Snapshot, Totals
from gpcore.requests import ScaleRequest, Target

_SHOWN = 3


class _Move(NamedTuple):
    """A pool as it is, and the replicas that it is to have."""

    pool: Pool
    after: int

    @property
    def acquires(self) -> bool:
        """Say whether the pool gets more replicas."""
        return self.after > self.pool.replicas

    @property
    def gpus(self) -> int:
        """Return the GPUs acquired, negative for a release."""
        return (self.after - self.pool.replicas) * (self.pool.gpus_per_replica or 0)


class Policy(Protocol):
    """Decide a request from what is deployed, what others wish, and the bounds."""

    def __call__(self, request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Decision:
        """Return what to do; *intents* hold fresh ones only. Deterministic, and free of side effects."""
        ...


def decide(request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Decision:
    """Approve *request* alone, or with the best partners, or say why not.

    Alone when its end lies in the band or it leads back toward the band; else with the partners that `pairing`
    finds; else within the tolerance at the floor; else it is rejected with the nearest thing that would be approved.
    """
    resolved = resolve(request, snapshot)
    if isinstance(resolved, Rejected):
        return resolved
    moves = tuple(
        _Move(pool, target.replicas)
        for target, pool in zip(request.targets, resolved, strict=True)
        if target.replicas != pool.replicas
    )
    if not moves:
        return Approved(Plan(), snapshot.totals)
    unknown = _unknown(moves, snapshot, budget)
    if unknown:
        return Rejected(ShapeUnknown(unknown))
    case = _Case(request.participant, frozenset(pool.key for pool in resolved), snapshot, intents, budget)
    return case.approve(moves) or Rejected(case.breach(moves))


def resolve(request: ScaleRequest, snapshot: Snapshot) -> tuple[Pool, ...] | Rejected:
    """Return the pool that each target of *request* means, or why one means none."""
    deployment = snapshot.deployment(request.participant)
    if deployment is None:
        return Rejected(UnknownDeployment(request.participant))
    pools: list[Pool] = []
    for target in request.targets:
        pool = snapshot.answering(request.participant, target.role)
        if pool is None:
            key, why = PoolKey(request.participant, target.role), deployment.unscaled_because(target.role)
            return Rejected(UnknownPool(key) if why is None else NotScaled(key, why))
        if pool in pools:
            return Rejected(OnePoolTwice(pool.key))
        if _misnamed(target, pool, deployment):
            return Rejected(WrongComponent(pool.key, pool.component, target.component or ""))
        pools.append(pool)
    return tuple(pools)


def _misnamed(target: Target, pool: Pool, deployment: Deployment) -> bool:
    """Say whether *target* calls *pool* by the name of another component of its deployment.

    A name that no component has is an alias: Dynamo's planners send the runtime's name for a role.
    """
    return any(other.component == target.component for other in deployment.pools if other.component and other != pool)


def _unknown(moves: Sequence[_Move], snapshot: Snapshot, budget: Budget) -> tuple[ParticipantId, ...]:
    """Return the deployments of unknown shape that keep the bounds from being checked for *moves*."""
    own = [move.pool.key.participant for move in moves if move.pool.gpus_per_replica is None]
    if budget.floor and own:
        return tuple(own[:1])
    if budget.ceiling is not None and len(snapshot.unknown) and any(move.acquires for move in moves):
        return tuple(sorted(snapshot.unknown, key=str)[:_SHOWN])
    return ()


def violation(plan: Plan, asked: Mapping[PoolKey, int], *, snapshot: Snapshot, budget: Budget) -> str | None:
    """Return how *plan* breaks a rule that no policy may break, or None.

    It does all that was *asked* for, on pools as they are, changes each once, no step of it ends above the ceiling
    and above where it began, and its end keeps the floor within the tolerance or does not lead further below it.
    """
    return next(_violations(plan, asked, snapshot, budget), None)


def _violations(plan: Plan, asked: Mapping[PoolKey, int], snapshot: Snapshot, budget: Budget) -> Iterator[str]:
    before = totals = snapshot.totals
    left, tolerance = dict(asked), 0
    changed: set[PoolKey] = set()
    for step in plan.steps:
        for change in step.changes:
            key, pool = change.pool, snapshot.pool(change.pool)
            if key in changed:
                yield f"it changes {key} twice"
            if left.pop(key, change.after) != change.after:
                yield f"it does not do what was asked of {key}"
            if pool is None or not change.begins_at(pool) or change.after < 0:
                yield f"it changes {key} from what it is not"
            else:
                totals += pool.shift(change.after)
            changed.add(key)
            tolerance = max(tolerance, change.gpus_per_replica or 0)
        if budget.excess(totals) > budget.excess(before):
            yield f"after {step.changes[0].pool} the total is {totals.charged} GPUs, above the ceiling"
    for key, replicas in left.items():
        if (pool := snapshot.pool(key)) is None or pool.replicas != replicas:
            yield f"it does not do what was asked of {key}"
    if budget.shortfall(totals) > max(tolerance, budget.shortfall(before)):
        yield f"it ends with {totals.least} GPUs, below the floor ({budget.floor})"


@attrs.frozen
class _Case:
    """One request's surroundings, in which variants of its moves are tried."""

    participant: ParticipantId
    asked: frozenset[PoolKey]
    snapshot: Snapshot
    intents: Intents
    budget: Budget

    def approve(self, moves: Sequence[_Move]) -> Approved | None:
        """Return the best plan with *moves*, or None where there is none."""
        before = self.snapshot.totals
        after = _ending(before, moves)
        if self.budget.holds(after) or self.budget.recovers(before, after):
            return Approved(_planned(moves), after)
        gap = _gap(moves, after, self.budget)
        market = self._market(moves, gap)
        shares = market.fill(gap)
        if shares is None:
            return None
        partners = self._partners(shares, gap.direction)
        return Approved(_planned((*moves, *partners)), _ending(after, partners))

    def breach(self, moves: Sequence[_Move]) -> CeilingBreach | FloorBreach:
        """Return which bound *moves* break, and the nearest that would not."""
        after = _ending(self.snapshot.totals, moves)
        gap = _gap(moves, after, self.budget)
        offer = self._market(moves, gap).offer
        nearest = self._nearest(moves, gap.direction)
        if gap.direction == RELEASE:
            return CeilingBreach(after.charged, after.charged - self.budget.excess(after), offer, nearest)
        return FloorBreach(after.least, self.budget.floor, gap.own_gpus if gap.transfers else 0, offer, nearest)

    def _market(self, moves: Sequence[_Move], gap: Gap) -> Market:
        """Return who may help: pools that wish the opposite of what *moves* do as a whole.

        Nobody may grow under a ceiling while the GPUs of something are not known.
        """
        net = sum(move.gpus for move in moves)
        opposite = RELEASE if net > 0 else ACQUIRE
        home = self.snapshot.deployment(self.participant)
        blind = opposite == ACQUIRE and self.budget.ceiling is not None and len(self.snapshot.unknown) > 0
        if home is None or net == 0 or opposite != gap.direction or blind:
            return Market()
        return Market.of(self.intents, self.snapshot, home=home, asked=self.asked, way=opposite)

    def _partners(self, shares: Shares, direction: int) -> tuple[_Move, ...]:
        pools = [(self.snapshot.pool(candidate.pool), replicas) for candidate, replicas in sorted(shares.items())]
        return tuple(_Move(pool, pool.replicas + direction * replicas) for pool, replicas in pools if pool is not None)

    def _nearest(self, moves: Sequence[_Move], direction: int) -> Nearest:
        """Return the first variant that would be approved when *moves* ask for ever less, the last one first."""
        for variant in self._variants(moves, direction):
            approved = self.approve(variant)
            if approved is not None:
                own = tuple(Change.of(move.pool, move.after) for move in variant)
                return Nearest(own, tuple(change for change in approved.plan.changes if change not in own))
        return Nearest()

    def _variants(self, moves: Sequence[_Move], direction: int) -> Iterator[tuple[_Move, ...]]:
        """Yield *moves* with ever less of what breaks the bound, leaving out what cannot fit yet."""
        kept = list(moves)
        for move in [move for move in reversed(moves) if move.gpus * direction < 0]:
            at = kept.index(move)
            counts = range(move.after, move.pool.replicas, direction)
            for after in counts[self._hopeless(kept, move) :]:
                kept[at] = _Move(move.pool, after)
                yield tuple(kept)
            del kept[at]
            if kept:
                yield tuple(kept)

    def _hopeless(self, kept: Sequence[_Move], move: _Move) -> int:
        """Return how many replicas of *move* must be given up before the rest could fit, or lead toward the band."""
        before, budget = self.snapshot.totals, self.budget
        after = _ending(before, kept)
        gap = _gap(kept, after, budget)
        market = self._market(kept, gap)
        tolerance = max([gap.own_gpus, *market.units, *(one.gpus for one in market.odd)])
        if gap.direction == RELEASE:
            missing = budget.excess(after) - max(market.offer, budget.excess(before) - 1)
        else:
            missing = budget.shortfall(after) - max(market.offer + tolerance, budget.shortfall(before) - 1)
        return max(0, -(-missing // (move.pool.gpus_per_replica or 1)))


def _ending(totals: Totals, moves: Sequence[_Move]) -> Totals:
    """Return *totals* when *moves* are done."""
    for move in moves:
        totals += move.pool.shift(move.after)
    return totals


def _planned(moves: Sequence[_Move]) -> Plan:
    return Plan.of(Change.of(move.pool, move.after) for move in moves)


def _gap(moves: Sequence[_Move], after: Totals, budget: Budget) -> Gap:
    """Return what *moves*, which alone end at *after*, leave for partners to do."""
    signs = [move.gpus for move in moves]
    transfers = max(signs) > 0 > min(signs)
    own_gpus = max(move.pool.gpus_per_replica or 0 for move in moves)
    # Who releases can break the floor only, even while what others have not freed yet stands above the ceiling.
    direction = RELEASE if sum(signs) >= 0 and budget.excess(after) else ACQUIRE
    return Gap(after, budget, direction, own_gpus, transfers)

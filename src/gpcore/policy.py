"""How a request is decided.

Rules of this file: pure, and blind to who asks; `control` has asked that before. A policy of your own is any function
with the signature of `Policy`; `gpcore.testing.check_policy` says whether it keeps the laws.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs

from gpcore.budgets import Budget
from gpcore.decisions import (
    Approved,
    CeilingBreach,
    Decision,
    FloorBreach,
    Nearest,
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
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Role, Snapshot, Totals, totals_of
from gpcore.requests import ScaleRequest, Target

_SHOWN = 3


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
    changes = tuple(
        Change.of(pool, target.replicas)
        for target, pool in zip(request.targets, resolved, strict=True)
        if target.replicas != pool.replicas
    )
    if not changes:
        return Approved(Plan(), snapshot.totals)
    unknown = _unknown(changes, snapshot, budget)
    if unknown:
        return Rejected(ShapeUnknown(unknown))
    case = _Case(request.participant, snapshot, intents, budget)
    return case.approve(changes) or Rejected(case.breach(changes))


def resolve(request: ScaleRequest, snapshot: Snapshot) -> tuple[Pool, ...] | Rejected:
    """Return the pool that each target of *request* means, or why one means none."""
    deployment = snapshot.deployment(request.participant)
    if deployment is None:
        return Rejected(UnknownDeployment(request.participant))
    pools: list[Pool] = []
    for target in request.targets:
        pool = snapshot.answering(request.participant, target.role)
        if pool is None:
            return Rejected(UnknownPool(PoolKey(request.participant, target.role)))
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


def _unknown(changes: Sequence[Change], snapshot: Snapshot, budget: Budget) -> tuple[ParticipantId, ...]:
    """Return the deployments of unknown shape that keep the bounds from being checked for *changes*."""
    own = [change.pool.participant for change in changes if change.gpus_per_replica is None]
    if budget.floor and own:
        return tuple(own[:1])
    if budget.ceiling is not None and len(snapshot.unknown) and not all(change.releases for change in changes):
        return tuple(sorted(snapshot.unknown, key=str)[:_SHOWN])
    return ()


@attrs.frozen
class _Case:
    """One request's surroundings, in which variants of its changes are tried."""

    participant: ParticipantId
    snapshot: Snapshot
    intents: Intents
    budget: Budget

    def approve(self, changes: Sequence[Change]) -> Approved | None:
        """Return the best plan with *changes*, or None where there is none."""
        before, after = self.snapshot.totals, self._after(changes)
        if self.budget.holds(after) or self.budget.recovers(before, after):
            return Approved(Plan.of(changes), after)
        gap = self._gap(changes, after)
        market = self._market(changes, gap)
        amount = market.amount(gap)
        if amount is None:
            return None
        paired = (*changes, *self._moves(market.share(amount), gap.direction))
        return Approved(Plan.of(paired), self._after(paired))

    def breach(self, changes: Sequence[Change]) -> CeilingBreach | FloorBreach:
        """Return which bound *changes* break, and the nearest that would not."""
        after = self._after(changes)
        gap = self._gap(changes, after)
        offer = self._market(changes, gap).offer
        nearest = self._nearest(changes, gap.direction)
        if self.budget.excess(after):
            return CeilingBreach(after.charged, after.charged - self.budget.excess(after), offer, nearest)
        return FloorBreach(after.least, self.budget.floor, gap.own_gpus if gap.transfers else 0, offer, nearest)

    def _after(self, changes: Sequence[Change]) -> Totals:
        return self.snapshot.totals_if({change.pool: change.after for change in changes})

    def _gap(self, changes: Sequence[Change], after: Totals) -> Gap:
        transfers = any(change.gpus > 0 for change in changes) and any(change.gpus < 0 for change in changes)
        return Gap(after, self.budget, max(change.gpus_per_replica or 0 for change in changes), transfers)

    def _market(self, changes: Sequence[Change], gap: Gap) -> Market:
        """Return who may help: pools that wish the opposite of what *changes* do as a whole."""
        net = sum(change.gpus for change in changes)
        opposite = RELEASE if net > 0 else ACQUIRE
        home = self.snapshot.deployment(self.participant) or Deployment(self.participant)
        if net == 0 or opposite != gap.direction:
            return Market((), {}, {}, home)
        asked = frozenset(change.pool for change in changes)
        return Market.of(self.intents, self.snapshot, home=home, asked=asked, way=opposite)

    def _moves(self, shares: Shares, direction: int) -> Iterator[Change]:
        for candidate, replicas in sorted(shares.items()):
            pool = self.snapshot.pool(candidate.pool)
            if pool is not None:
                yield Change.of(pool, pool.replicas + direction * replicas)

    def _nearest(self, changes: Sequence[Change], direction: int) -> Nearest:
        """Return the first variant that would be approved when *changes* ask for ever less, the last change first."""
        for variant in self._variants(changes, direction):
            approved = self.approve(variant)
            if approved is not None:
                own = {change.pool for change in variant}
                partners = tuple(change for change in approved.plan.changes if change.pool not in own)
                return Nearest(tuple(variant), partners)
        return Nearest()

    def _variants(self, changes: Sequence[Change], direction: int) -> Iterator[tuple[Change, ...]]:
        """Yield *changes* with ever less of what breaks the bound, leaving out what cannot fit yet."""
        kept = list(changes)
        for change in [change for change in reversed(changes) if change.gpus * direction < 0]:
            at = kept.index(change)
            counts = range(change.after, change.before, direction)
            for after in counts[self._hopeless(kept, change) :]:
                kept[at] = attrs.evolve(change, after=after)
                yield tuple(kept)
            del kept[at]
            if kept:
                yield tuple(kept)

    def _hopeless(self, kept: Sequence[Change], change: Change) -> int:
        """Return how many replicas of *change* must be given up before all partners together could fill the gap."""
        after = self._after(kept)
        gap = self._gap(kept, after)
        sizes = [gap.own_gpus, *self._market(kept, gap).units]
        missing = max(self.budget.excess(after), self.budget.shortfall(after) - max(sizes))
        gpus = abs(change.gpus_per_replica or 1)
        return max(0, -(-(missing - self._market(kept, gap).offer) // gpus))

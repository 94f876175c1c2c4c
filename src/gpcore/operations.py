"""An approved plan on its way, and what the cluster shows of it.

Rules of this file: it asks and never acts; what is done about the answers is in `control`.
"""

from collections.abc import Iterable, Mapping

import attrs

from gpcore.plans import Change, Plan, Step
from gpcore.pools import PoolKey, Snapshot, Totals
from gpcore.requests import ScaleRequest

MAX_WAITERS = 1_000
"""How many requests may share one operation; to one more its pools are busy."""


@attrs.frozen
class Operation:
    """An approved plan on its way.

    Its steps: *waiting* are not begun, *sent* not answered, *unsure* of unknown outcome, *landed* accepted but not
    seen yet, and *done* seen. *noticed* were seen while not answered: somebody may undo them before the answer comes.

    *excess* are the GPUs by which the fleet was above the ceiling when it was approved, and *totals* what was expected
    at its end; *waiters* are the requests
    that are answered when it ends; *problem* is what went wrong, after which nothing more is begun.
    """

    id: str
    request: ScaleRequest
    plan: Plan
    started_at: float
    waiting: tuple[Step, ...]
    sent: tuple[Step, ...] = ()
    unsure: tuple[Step, ...] = ()
    landed: tuple[Step, ...] = ()
    done: tuple[Step, ...] = ()
    noticed: tuple[Step, ...] = ()
    excess: int = 0
    totals: Totals = attrs.field(factory=Totals)
    problem: str | None = None
    retries: int = 0
    waiters: tuple[str, ...] = ()

    @property
    def unfinished(self) -> bool:
        """Say whether something that was begun has not been seen yet."""
        return bool(self.sent or self.unsure or self.landed)

    def seen_landing(self) -> "Operation":
        """Return this operation when all is seen: what landed is in it, even where somebody has undone it since."""
        if not self.landed:
            return self
        return attrs.evolve(self, landed=(), done=(*self.done, *self.landed))

    def sending(self, ready: tuple[Step, ...]) -> "Operation":
        """Return this operation with *ready* of its waiting steps sent."""
        return Operation(
            self.id,
            self.request,
            self.plan,
            self.started_at,
            tuple([one for one in self.waiting if one not in ready]),
            self.sent + ready,
            self.unsure,
            self.landed,
            self.done,
            self.noticed,
            self.excess,
            self.totals,
            self.problem,
            self.retries,
            self.waiters,
        )

    def fulfils(self, asked: Mapping[PoolKey, int]) -> bool:
        """Say whether all that is *asked* is what this operation does, and one more may share it."""
        afters = self.plan.afters
        if self.problem is not None or len(self.waiters) >= MAX_WAITERS:
            return False
        return all(afters.get(key) == replicas for key, replicas in asked.items())

    def holding(self, snapshot: Snapshot) -> tuple[Change, ...]:
        """Return the applied releases whose GPUs are still seen in use."""
        return tuple(
            change
            for step in self.done
            for change in step.changes
            if change.releases
            and (pool := snapshot.pool(change.pool)) is not None
            and pool.authority == change.authority
            and not pool.seen_at_most(change.after)
        )


def outdated(refused: Step, snapshot: Snapshot) -> bool:
    """Say whether a pool of *refused* is no longer as the decision saw it."""
    pools = [(snapshot.pool(change.pool), change) for change in refused.changes]
    return any(
        pool is None or pool.replicas != change.before or pool.authority != change.authority for pool, change in pools
    )


def shown(step: Step, snapshot: Snapshot) -> bool:
    """Say whether every pool of *step* is as it would be after it."""
    pools = [(snapshot.pool(change.pool), change) for change in step.changes]
    return all(
        pool is not None and pool.replicas == change.after and pool.authority == change.authority
        for pool, change in pools
    )


def overtaken(landed: Step, snapshot: Snapshot) -> bool:
    """Say whether no pool of a *landed* step is seen as it was before it, whoever has changed it since."""
    pools = [(snapshot.pool(change.pool), change) for change in landed.changes]
    return all(
        pool is None or pool.replicas != change.before or pool.authority != change.authority for pool, change in pools
    )


def promised(waiting: Step, snapshot: Snapshot) -> Totals:
    """Return what the pools of a *waiting* step are charged for being promised alone."""
    pools = [pool for change in waiting.changes if (pool := snapshot.pool(change.pool)) is not None]
    return sum((pool.totals - pool.reserving(None).totals for pool in pools), Totals())


def needed(waiting: Iterable[Step], snapshot: Snapshot) -> Totals:
    """Return what the pools of *waiting* steps take more than now when the steps are done."""
    changes = [change for one in waiting for change in one.changes]
    pools = [(pool, change.after) for change in changes if (pool := snapshot.pool(change.pool)) is not None]
    return sum((pool.reserving(None).shift(after) for pool, after in pools), Totals())

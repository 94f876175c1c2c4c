"""An approved plan on its way, as it is written down before anything of it is done.

Rules of this file: values only. Whatever a planner must know to finish an operation, or to give back what it took, is
in here, since the planner that finishes it may not be the one that began it.
"""

import enum
from collections.abc import Mapping

import attrs

from gpcore.plans import Change, Plan, Step
from gpcore.pools import PoolKey, Snapshot, Totals
from gpcore.requests import ScaleRequest
from gpcore.successors import Successive


class Stage(enum.Enum):
    """How far one leg of an operation is."""

    WAITING = "waiting"
    RESERVED = "reserved"
    DONE = "done"
    DROPPED = "dropped"


@attrs.frozen
class Leg:
    """One write of an operation. *stage* RESERVED: it may be written at any time, by whoever drives the operation."""

    step: Step
    stage: Stage = Stage.WAITING

    @property
    def open(self) -> bool:
        """Say whether it may still be written."""
        return self.stage in (Stage.WAITING, Stage.RESERVED)


@attrs.frozen(slots=False)
class Operation(Successive):
    """Carry out *plan* for *request*, or leave everything as it was.

    It began at *began_at* (wall-clock seconds). *legs* are what is being written: the steps of the plan, or, when
    *returning*, what puts back those that were done. *before* and *totals* are the fleet's GPUs when it was approved
    and when it is done; *excess* those by which the fleet was above the ceiling then. *escrow* are GPUs that it holds
    for legs still to come, and *dip* those by which the fleet may stand below the floor meanwhile. *problem* is what
    went wrong, after which nothing new is acquired.
    """

    id: str
    request: ScaleRequest
    plan: Plan
    legs: tuple[Leg, ...]
    began_at: float = 0.0
    before: Totals = attrs.field(factory=Totals)
    totals: Totals = attrs.field(factory=Totals)
    excess: int = 0
    escrow: int = 0
    dip: int = 0
    retries: int = 0
    problem: str | None = None
    returning: bool = False

    @property
    def open(self) -> bool:
        """Say whether something of it may still be written."""
        return any(leg.open for leg in self.legs)

    @property
    def waiting(self) -> tuple[Step, ...]:
        """Return the steps that are not begun."""
        return self.at(Stage.WAITING)

    @property
    def reserved(self) -> tuple[Step, ...]:
        """Return the steps that may be written at any time."""
        return self.at(Stage.RESERVED)

    @property
    def done(self) -> tuple[Step, ...]:
        """Return the steps that are written."""
        return self.at(Stage.DONE)

    def at(self, stage: Stage) -> tuple[Step, ...]:
        """Return the steps of the legs at *stage*."""
        return tuple([leg.step for leg in self.legs if leg.stage is stage])

    def goal(self, key: PoolKey) -> int:
        """Return the replicas that the pool *key* of this operation is to have, as things stand."""
        goals = {change.pool: change.after for leg in self.legs for change in leg.step.changes}
        if key in goals:
            return goals[key]
        return next(change.before for change in self.plan.changes if change.pool == key)  # on the way back: never done

    def with_leg(self, at: int, leg: Leg, *, escrow: int) -> "Operation":
        """Return this operation with another leg at the place *at*, and another escrow."""
        return self.but(legs=(*self.legs[:at], leg, *self.legs[at + 1 :]), escrow=escrow)

    def fulfils(self, asked: Mapping[PoolKey, int]) -> bool:
        """Say whether all that is *asked* is what this operation does."""
        afters = self.plan.afters
        return self.problem is None and all(afters.get(key) == replicas for key, replicas in asked.items())

    def holding(self, snapshot: Snapshot) -> tuple[Change, ...]:
        """Return the releases that were written and whose GPUs are still seen in use."""
        return tuple(
            change
            for step in self.done
            for change in step.changes
            if change.releases
            and (pool := snapshot.pool(change.pool)) is not None
            and pool.authority == change.authority
            and not pool.seen_at_most(change.after)
        )


def needed(steps: tuple[Step, ...], snapshot: Snapshot) -> Totals:
    """Return what the pools of *steps* take more than now when the steps are done."""
    changes = [change for one in steps for change in one.changes]
    pools = [(pool, change.after) for change in changes if (pool := snapshot.pool(change.pool)) is not None]
    return sum((pool.reserving(None).shift(after) for pool, after in pools), Totals())


def promised(waiting: Step, snapshot: Snapshot) -> Totals:
    """Return what the pools of a *waiting* step are charged for being promised alone."""
    pools = [pool for change in waiting.changes if (pool := snapshot.pool(change.pool)) is not None]
    return sum((pool.totals - pool.reserving(None).totals for pool in pools), Totals())

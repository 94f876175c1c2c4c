"""What is to be done, in which order.

Rules of this file: a plan is data. Each step is one write to one authority object; steps that release come before
those that acquire, so that no prefix of a plan stands above both where it began and where it ends.
"""

from collections.abc import Iterable

import attrs

from gpcore.fences import Fence
from gpcore.pools import Authority, ParticipantId, Pool, PoolKey


@attrs.frozen
class Change:
    """Take *pool* from *before* replicas to *after*.

    *charged* are the GPUs by which the total changes when it is done; they differ from *gpus* where replicas of an
    earlier change still shut down.
    """

    pool: PoolKey
    before: int
    after: int
    gpus_per_replica: int | None
    authority: Authority = attrs.field(factory=Authority)
    charged: int = attrs.field(default=attrs.Factory(lambda self: self.gpus, takes_self=True), eq=False)

    @classmethod
    def of(cls, pool: Pool, after: int) -> "Change":
        """Return the change that takes *pool* from what is asked for now to *after* replicas."""
        charged = pool.shift(after).charged
        return cls(pool.key, pool.replicas, after, pool.gpus_per_replica, pool.authority, charged)

    def begins_at(self, pool: Pool) -> bool:
        """Say whether *pool* is free and as this change found it."""
        return (
            pool.reserved is None
            and pool.replicas == self.before
            and pool.gpus_per_replica == self.gpus_per_replica
            and pool.authority == self.authority
        )

    @property
    def releases(self) -> bool:
        """Say whether the pool gives replicas away."""
        return self.after < self.before

    @property
    def gpus(self) -> int:
        """Return the GPUs acquired, negative for a release; 0 where the shape is unknown or needs none."""
        return (self.after - self.before) * (self.gpus_per_replica or 0)


@attrs.frozen
class Step:
    """Do these *changes*, of pools of one authority object, in one write.

    *fence* None: no write of it is promised yet, and none may be made.
    """

    changes: tuple[Change, ...]
    fence: Fence | None = None

    @property
    def participant(self) -> ParticipantId:
        """Return the deployment that is written to."""
        return self.changes[0].pool.participant

    @property
    def authority(self) -> Authority:
        """Return the object that is written."""
        return self.changes[0].authority

    @property
    def gpus(self) -> int:
        """Return the GPUs acquired by the whole step, negative for a release."""
        return sum([change.gpus for change in self.changes])

    @property
    def acquires(self) -> bool:
        """Say whether the step as a whole may not run before others have released."""
        return self.order[0]

    @property
    def parts(self) -> tuple["Step", ...]:
        """Return this step as two writes, what it releases before what it acquires, where it does both."""
        releases = tuple([change for change in self.changes if change.releases])
        others = tuple([change for change in self.changes if not change.releases])
        return (Step(releases), Step(others)) if releases and others else (self,)

    @property
    def order(self) -> tuple[bool, int]:
        """Return what steps are sorted by: whether they acquire, then the GPUs by which the total changes."""
        gpus = sum([change.charged for change in self.changes])
        return (gpus > 0 or (gpus == 0 and not any(change.releases for change in self.changes)), gpus)


@attrs.frozen
class Plan:
    """Do these *steps*: first those that release, then those that acquire."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, changes: Iterable[Change]) -> "Plan":
        """Return the plan of *changes*, in order; those of one authority object go together."""
        grouped: dict[tuple[object, Authority], list[Change]] = {}
        for change in changes:
            grouped.setdefault((change.pool.participant, change.authority), []).append(change)
        steps = [Step(tuple(members)) for members in grouped.values()]
        return cls(tuple(sorted(steps, key=lambda step: step.order) if steps[1:] else steps))

    @property
    def changes(self) -> tuple[Change, ...]:
        """Return every change, in order."""
        return tuple([change for step in self.steps for change in step.changes])

    @property
    def afters(self) -> dict[PoolKey, int]:
        """Return the replicas of each changed pool when all is done."""
        return {change.pool: change.after for step in self.steps for change in step.changes}

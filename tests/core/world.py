"""A tiny world that the planner acts on: objects with versions, writes under way, and news that arrives late.

Rules of this file: nothing of `control` is used. What can go wrong goes wrong here, by the names of the methods; what
a port promises (`gpcore.ports`) is kept.
"""

from collections import defaultdict

import attrs

from gpcore.events import Apply, Event, Gone, Listed, Seen, StepApplied, StepRefused, StepUnknown
from gpcore.plans import Step
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role

NAMES = ("a", "b", "c")
ROLES = (Role.PREFILL, Role.DECODE)
GPUS = {"a": (1, 2), "b": (1, 1), "c": (4, 1)}
BY_ADAPTER = "b"
"""The deployment whose pools have scaling adapters, so that each is an object of its own."""


@attrs.define(eq=False)
class Sent:
    """A write under way; *seen* are the versions of its objects when it set off."""

    order: Apply
    seen: dict[PoolKey, int]
    answer: Event | None = None
    shown: dict[ParticipantId, int] = attrs.field(factory=dict)


@attrs.define(eq=False)
class World:
    """Hold deployments as they are, what of it the planner has yet to hear, and writes that are under way."""

    deployments: dict[ParticipantId, Deployment] = attrs.field(factory=dict)
    news: dict[ParticipantId, list[tuple[int, Deployment | None]]] = attrs.field(factory=lambda: defaultdict(list))
    sent: list[Sent] = attrs.field(factory=list)
    lost: list[Sent] = attrs.field(factory=list)
    landed: set[tuple[str, Step]] = attrs.field(factory=set)
    values: set[tuple[PoolKey, Authority, int]] = attrs.field(factory=set)
    written: dict[PoolKey, tuple[Authority, int, int]] = attrs.field(factory=dict)
    version: int = 0
    forced: int = 0
    """GPUs above the ceiling that others have caused."""
    overlap: int = 0
    """GPUs that one write gave to a pool while another pool of the same write still held them."""

    @property
    def asked_gpus(self) -> int:
        """Return the GPUs that are asked for at the authorities."""
        return sum(pool.replicas * (pool.gpus_per_replica or 0) for pool in self.pools())

    @property
    def held_gpus(self) -> int:
        """Return the GPUs that may be in use."""
        return sum(
            max(pool.replicas, pool.relayed or 0, pool.present) * (pool.gpus_per_replica or 0) for pool in self.pools()
        )

    def pools(self) -> list[Pool]:
        """Return every pool as it is."""
        return [pool for deployment in self.deployments.values() for pool in deployment.pools]

    def pool(self, key: PoolKey) -> Pool | None:
        """Return the pool *key* as it is."""
        deployment = self.deployments.get(key.participant)
        return None if deployment is None else deployment.pool(key.role)

    def create(self, name: str, counts: tuple[int, int]) -> None:
        """Create the deployment *name*, with uids of its own."""
        participant = ParticipantId("ns", name)
        self.version += 1
        uid = f"uid-{self.version}"
        pools = []
        for role, count, gpus in zip(ROLES, counts, GPUS[name], strict=True):
            adapter = name == BY_ADAPTER
            authority = Authority(f"{name}-{role.value}" if adapter else name, uid)
            relayed = count if adapter else None
            pools.append(
                Pool(PoolKey(participant, role), count, gpus, present=count, relayed=relayed, authority=authority)
            )
        self._foreign(Deployment(participant, tuple(pools)))

    def delete(self, participant: ParticipantId) -> None:
        """Delete a deployment."""
        del self.deployments[participant]
        self.version += 1
        self.news[participant].append((self.version, None))

    def overwrite(self, pool: Pool, replicas: int) -> None:
        """Write replicas behind the planner's back."""
        changed = attrs.evolve(pool, replicas=replicas, present=max(pool.present, replicas))
        self._foreign(self.deployments[pool.key.participant].with_pool(changed))

    def settle(self, participant: ParticipantId) -> None:
        """Let the operator finish: relay, start what is missing, end what is too much."""
        deployment = self.deployments[participant]
        for pool in deployment.pools:
            relayed = None if pool.relayed is None else pool.replicas
            done = attrs.evolve(pool, relayed=relayed, present=pool.replicas, ready=pool.replicas)
            deployment = deployment.with_pool(done)
        self._put(deployment)

    def send(self, order: Apply) -> None:
        """Let a write set off."""
        self.sent.append(Sent(order, {change.pool: self._version_of(change.pool) for change in order.step.changes}))

    def land(self, sent: Sent) -> None:
        """Let a write that is under way arrive: all of it where everything is as it says, else nothing."""
        order = sent.order
        sent.answer = StepRefused(order.operation, order.step, "not as the step says")
        if self._as_the_step_says(order.step):
            self.overlap += self._overlap(order.step)
            for change in order.step.changes:
                self._write(change.pool, change.after)
            self.landed.add((order.operation, order.step))
            sent.answer = StepApplied(order.operation, order.step)
        sent.shown = {change.pool.participant: self.version for change in order.step.changes}

    def late(self, sent: Sent) -> None:
        """Let a write arrive that nobody waits for any more; what was written meanwhile keeps it out, like a fence."""
        self.lost.remove(sent)
        if all(self._version_of(key) == version for key, version in sent.seen.items()):
            self.land(sent)

    def told(self, sent: Sent) -> list[Event]:
        """Return what the planner hears when the answer to *sent* arrives: first what it made."""
        self.sent.remove(sent)
        events = [event for participant, upto in sent.shown.items() for event in self.hear(participant, upto)]
        return [*events, *([] if sent.answer is None else [sent.answer])]

    def lose(self, sent: Sent) -> Event:
        """Lose the answer to *sent*, or the write itself, which may arrive later all the same."""
        self.sent.remove(sent)
        if sent.answer is None:
            self.lost.append(sent)
        return StepUnknown(sent.order.operation, sent.order.step, "no answer")

    def hear(self, participant: ParticipantId, upto: int | None = None) -> list[Event]:
        """Return the news of one deployment, in order, up to a version (None: just the next)."""
        queue = self.news[participant]
        events: list[Event] = []
        while queue and (queue[0][0] <= upto if upto is not None else not events):
            _, deployment = queue.pop(0)
            events.append(Gone(participant) if deployment is None else Seen(deployment))
        return events

    def list(self) -> Event:
        """Return everything as it is; older news is none any more."""
        self.news.clear()
        return Listed(tuple(self.deployments.values()))

    def forgive(self, ceiling: int | None) -> None:
        """Count what stands above the ceiling now as the only thing that others forced."""
        self.overlap = 0
        self.forced = 0 if ceiling is None else max(0, self.asked_gpus - ceiling, self.held_gpus - ceiling)

    def _foreign(self, deployment: Deployment) -> None:
        before = self.held_gpus + self.asked_gpus
        self._put(deployment)
        self.forced += max(0, self.held_gpus + self.asked_gpus - before)

    def _write(self, key: PoolKey, replicas: int) -> None:
        pool = self.pool(key)
        assert pool is not None
        changed = attrs.evolve(pool, replicas=replicas, present=max(pool.present, replicas))
        self._put(self.deployments[key.participant].with_pool(changed))

    def _put(self, deployment: Deployment) -> None:
        self.version += 1
        self.deployments[deployment.id] = deployment
        self.news[deployment.id].append((self.version, deployment))
        self.values |= {(pool.key, pool.authority, pool.replicas) for pool in deployment.pools}
        for pool in deployment.pools:
            if self.written.get(pool.key, ())[:2] != (pool.authority, pool.replicas):
                self.written[pool.key] = (pool.authority, pool.replicas, self.version)

    def _overlap(self, step: Step) -> int:
        """Return the GPUs that *step* gives to one pool while another that it takes from still holds them."""
        acquired = sum(max(0, change.gpus) for change in step.changes)
        released = [(self.pool(change.pool), change.after) for change in step.changes if change.releases]
        draining = [
            (max(one.replicas, one.relayed or 0, one.present) - n, one) for one, n in released if one is not None
        ]
        return min(acquired, sum(count * (one.gpus_per_replica or 0) for count, one in draining))

    def _version_of(self, key: PoolKey) -> int:
        """Return when the replicas of *key* were written last."""
        return self.written[key][2] if key in self.written else 0

    def _as_the_step_says(self, step: Step) -> bool:
        pools = [(self.pool(change.pool), change) for change in step.changes]
        return all(
            pool is not None and (pool.authority, pool.replicas) == (change.authority, change.before)
            for pool, change in pools
        )

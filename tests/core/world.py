"""A tiny world that planners act on: objects with fences, one ledger, writes under way, and news that arrives late.

Rules of this file: nothing of `control` is used. What can go wrong goes wrong here, by the names of the methods; what
a port promises (`gpcore.ports`) is kept.
"""

from collections import defaultdict
from typing import assert_never

import attrs

from gpcore.events import (
    Apply,
    Event,
    Gone,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnread,
    LedgerUnsaved,
    Listed,
    Load,
    Mark,
    Marked,
    Save,
    Seen,
    StepApplied,
    StepRefused,
    StepUnknown,
)
from gpcore.ledger import Ledger, ObjectKey, object_of
from gpcore.plans import Change, Step
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role

NAMES = ("a", "b", "c")
ROLES = (Role.PREFILL, Role.DECODE)
GPUS = {"a": (1, 2), "b": (1, 1), "c": (4, 1)}
BY_ADAPTER = "b"
"""The deployment whose pools have scaling adapters, so that each is an object of its own."""

WALL = 1_000_000_000.0
"""How far the wall clock is ahead of the monotonic one."""

Order = Apply | Mark | Save | Load


@attrs.define(eq=False)
class Sent:
    """What a planner asked for and has no answer to; *answer* is there when it has arrived where it was sent."""

    planner: str
    order: Order
    answer: Event | None = None
    shown: dict[ParticipantId, int] = attrs.field(factory=dict)


@attrs.define(eq=False)
class World:
    """Hold deployments and the ledger as they are, what of it each planner has yet to hear, and what is under way."""

    deployments: dict[ParticipantId, Deployment] = attrs.field(factory=dict)
    ledger: Ledger | None = None
    saves: int = 0
    news: dict[str, dict[ParticipantId, list[tuple[int, Deployment | None]]]] = attrs.field(factory=dict)
    sent: list[Sent] = attrs.field(factory=list)
    lost: list[Sent] = attrs.field(factory=list)
    landed: set[tuple[str, tuple[Change, ...]]] = attrs.field(factory=set)
    values: set[tuple[PoolKey, Authority, int]] = attrs.field(factory=set)
    marks: set[tuple[str, str]] = attrs.field(factory=set)
    version: int = 0
    now: float = 0.0
    ceiling: int | None = None
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

    @property
    def at_rest(self) -> bool:
        """Say whether nothing is under way and everybody has heard everything."""
        return not (self.sent or self.lost or any(queue for one in self.news.values() for queue in one.values()))

    def pools(self) -> list[Pool]:
        """Return every pool as it is."""
        return [pool for deployment in self.deployments.values() for pool in deployment.pools]

    def pool(self, key: PoolKey) -> Pool | None:
        """Return the pool *key* as it is."""
        deployment = self.deployments.get(key.participant)
        return None if deployment is None else deployment.pool(key.role)

    def object(self, key: ObjectKey) -> list[Pool]:
        """Return the pools of the object *key*."""
        return [pool for pool in self.pools() if object_of(pool) == key]

    # what others do --------------------------------------------------------------------------------------------------

    def create(self, name: str, counts: tuple[int, int]) -> None:
        """Create the deployment *name*, with uids of its own and no fence."""
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
        for news in self.news.values():
            news[participant].append((self.version, None))

    def restore(self, participant: ParticipantId) -> None:
        """Delete a deployment and create it anew, with all that it had, as from a file: just its uids are others."""
        deployment = self.deployments[participant]
        self.delete(participant)
        uid = f"uid-{self.version}"
        pools = [attrs.evolve(pool, authority=pool.authority._replace(uid=uid)) for pool in deployment.pools]
        self._foreign(attrs.evolve(deployment, pools=tuple(pools)))

    def overwrite(self, pool: Pool, replicas: int) -> None:
        """Write replicas behind the planners' backs, and leave the fence as it is."""
        changed = attrs.evolve(pool, replicas=replicas, present=max(pool.present, replicas))
        self._foreign(self.deployments[pool.key.participant].with_pool(changed))

    def wash(self, key: ObjectKey, fence: str) -> None:
        """Replace the fence of an object as somebody would who writes the whole of it anew."""
        self._mark(key, fence)

    def settle(self, participant: ParticipantId) -> None:
        """Let the operator finish: relay, start what is missing, end what is too much."""
        deployment = self.deployments[participant]
        for pool in deployment.pools:
            relayed = None if pool.relayed is None else pool.replicas
            done = attrs.evolve(pool, relayed=relayed, present=pool.replicas, ready=pool.replicas)
            deployment = deployment.with_pool(done)
        self._put(deployment)

    # what planners do ------------------------------------------------------------------------------------------------

    def join(self, planner: str) -> None:
        """Let a planner follow from now on, or from now on anew; nobody waits for what it has sent."""
        self.news[planner] = defaultdict(list)
        self.lost += [sent for sent in self.sent if sent.planner == planner and sent.answer is None]
        self.sent = [sent for sent in self.sent if sent.planner != planner]

    def send(self, planner: str, order: Order) -> None:
        """Let something set off."""
        if isinstance(order, Load) and any(one.planner == planner and one.order == order for one in self.sent):
            return  # one is enough, as the daemon has it
        self.sent.append(Sent(planner, order))

    def arrive(self, sent: Sent) -> None:
        """Let what is under way arrive where it was sent."""
        match sent.order:
            case Apply(operation, step):
                sent.answer = self._written(operation, step)
                sent.shown = {step.participant: self.version}
            case Mark():
                sent.answer = self._marked(sent.order)
                sent.shown = {sent.order.key.participant: self.version}
            case Save(ledger, expected):
                sent.answer = self._saved(ledger, expected)
            case Load():
                version = None if self.ledger is None else str(self.saves)
                sent.answer = LedgerLoaded(self.ledger, version, self.now, WALL + self.now)
            case _:
                assert_never(sent.order)

    def late(self, sent: Sent) -> None:
        """Let something arrive that nobody waits for any more."""
        self.lost.remove(sent)
        self.arrive(sent)

    def told(self, sent: Sent) -> list[Event]:
        """Return what the planner hears when the answer to *sent* arrives: first what it made."""
        self.sent.remove(sent)
        news = [event for one, upto in sent.shown.items() for event in self.hear(sent.planner, one, upto)]
        answer = sent.answer
        if isinstance(answer, LedgerLoaded):
            answer = attrs.evolve(answer, now=self.now, wall=WALL + self.now)
        return [*news, *([] if answer is None else [answer])]

    def lose(self, sent: Sent) -> Event:
        """Lose the answer to *sent*, or what was sent itself, which may arrive later all the same."""
        self.sent.remove(sent)
        if sent.answer is None:
            self.lost.append(sent)
        match sent.order:
            case Apply(operation, step):
                return StepUnknown(operation, step, "no answer")
            case Mark():
                return Marked(sent.order, lost=True)
            case Save():
                return LedgerUnsaved("no answer", lost=True)
            case Load():
                return LedgerUnread("no answer")
            case _:
                assert_never(sent.order)

    def refuse(self, sent: Sent) -> Event | None:
        """Refuse what was sent, for no reason that anybody can see; what was written to the cluster may land later."""
        if isinstance(sent.order, Apply) and sent.answer is None:
            self.sent.remove(sent)
            self.lost.append(sent)
            return StepRefused(sent.order.operation, sent.order.step, "a webhook says no")
        if isinstance(sent.order, Save) and sent.answer is None:
            self.sent.remove(sent)
            return LedgerUnsaved("it is too large")
        return None

    def hear(self, planner: str, participant: ParticipantId, upto: int | None = None) -> list[Event]:
        """Return the news of one deployment, in order, up to a version (None: just the next)."""
        queue = self.news[planner][participant]
        events: list[Event] = []
        while queue and (queue[0][0] <= upto if upto is not None else not events):
            _, deployment = queue.pop(0)
            events.append(Gone(participant) if deployment is None else Seen(deployment))
        return events

    def list(self, planner: str) -> Event:
        """Return everything as it is; older news is none any more."""
        self.news[planner].clear()
        return Listed(tuple(self.deployments.values()))

    def forgive(self, charged: int = 0) -> None:
        """Count what stands above the ceiling now, or is *charged* to it, as the only thing that others forced."""
        self.overlap = 0
        most = max(self.asked_gpus, self.held_gpus, charged)
        self.forced = 0 if self.ceiling is None else max(0, most - self.ceiling)

    # inside ----------------------------------------------------------------------------------------------------------

    def _foreign(self, deployment: Deployment) -> None:
        before = self.held_gpus + self.asked_gpus
        self._put(deployment)
        self.forced += max(0, self.held_gpus + self.asked_gpus - before)

    def _written(self, operation: str, step: Step) -> Event:
        if not self._as_the_step_says(step):
            return StepRefused(operation, step, "not as the step says")
        assert step.fence is not None
        self.overlap += self._overlap(step)
        deployment = self.deployments[step.participant]
        for change in step.changes:
            pool = deployment.pool(change.pool.role)
            assert pool is not None
            present = max(pool.present, change.after)
            deployment = deployment.with_pool(attrs.evolve(pool, replicas=change.after, present=present))
        self._put(deployment)
        self._mark(ObjectKey(step.participant, step.authority.name), step.fence.new)
        self.landed.add((operation, step.changes))
        return StepApplied(operation, step)

    def _marked(self, mark: Mark) -> Event:
        found = self.object(mark.key)
        if not found:
            return Marked(mark, absent=True)
        if found[0].fence == mark.old and mark.authority.uid in ("", found[0].authority.uid):
            self._mark(mark.key, mark.new)
        return Marked(mark)

    def _mark(self, key: ObjectKey, fence: str) -> None:
        """Put *fence* on an object; none is ever put on the same one twice."""
        deployment, mark = self.deployments[key.participant], (fence, self.object(key)[0].authority.uid)
        assert mark not in self.marks
        self.marks.add(mark)
        for pool in self.object(key):
            deployment = deployment.with_pool(attrs.evolve(pool, fence=fence))
        self._put(deployment)

    def _saved(self, ledger: Ledger, expected: str | None) -> Event:
        if expected != (None if self.ledger is None else str(self.saves)):
            return LedgerMoved()
        self.saves, self.ledger = self.saves + 1, ledger
        return LedgerSaved(str(self.saves))

    def _put(self, deployment: Deployment) -> None:
        self.version += 1
        self.deployments[deployment.id] = deployment
        for news in self.news.values():
            news[deployment.id].append((self.version, deployment))
        self.values |= {(pool.key, pool.authority, pool.replicas) for pool in deployment.pools}

    def _overlap(self, step: Step) -> int:
        """Return the GPUs that *step* gives to one pool while another that it takes from still holds them."""
        acquired = sum(max(0, change.gpus) for change in step.changes)
        released = [(self.pool(change.pool), change.after) for change in step.changes if change.releases]
        draining = [
            (max(one.replicas, one.relayed or 0, one.present) - n, one) for one, n in released if one is not None
        ]
        return min(acquired, sum(count * (one.gpus_per_replica or 0) for count, one in draining))

    def _as_the_step_says(self, step: Step) -> bool:
        pools = [(self.pool(change.pool), change) for change in step.changes]
        return all(
            pool is not None
            and step.fence is not None
            and (pool.authority, pool.replicas, pool.fence) == (change.authority, change.before, step.fence.old)
            for pool, change in pools
        )

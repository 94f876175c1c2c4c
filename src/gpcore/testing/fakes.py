"""A cluster in memory, with an operator that takes its time.

Rules of this file: it keeps every promise of `ports` (`checks` says so), needs no test framework, and knows no clock
but the *later* that it is given. What can go wrong is injected by name, and happens once.
"""

import asyncio
import enum
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

import attrs

from gpcore.events import Gone, Listed, Mark, Seen, Stale
from gpcore.plans import Change, Step
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey
from gpcore.ports import Absent, Applied, Applying, Observation, Refused, Unknown

Later = Callable[[float, Callable[[], None]], object]
"""Call something after so many seconds."""


class Fault(enum.Enum):
    """What may happen to one `apply` or `mark`."""

    REFUSED = "refused, and nothing landed"
    LOST_BEFORE = "the answer was lost, and nothing landed"
    LOST_AFTER = "the answer was lost, and all of it landed"


class MemoryCluster:
    """Hold deployments, show them to any number of observers, and apply steps to them.

    Its operator makes the status follow what is asked for: replicas that are acquired are present at once and ready
    after *acquire_lag_s*; those that are released stop serving at once and are gone after *release_lag_s*. A lag of
    0 is part of the write, an infinite one never ends. *later* defaults to the running event loop's.
    """

    def __init__(
        self,
        deployments: Iterable[Deployment] = (),
        *,
        acquire_lag_s: float = 0.0,
        release_lag_s: float = 0.0,
        later: Later | None = None,
    ) -> None:
        self._acquire_lag_s = acquire_lag_s
        self._release_lag_s = release_lag_s
        self._later = later or _on_the_running_loop
        self._deployments: dict[ParticipantId, Deployment] = {}
        self._feeds: list[asyncio.Queue[Observation]] = []
        self._faults: deque[Fault] = deque()
        self._minted = 0
        for deployment in deployments:
            self._deployments[deployment.id] = self._with_uids(deployment)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Return every deployment as it is now, in order of creation."""
        return tuple(self._deployments.values())

    def pool(self, key: PoolKey) -> Pool | None:
        """Return the pool *key* as it is now."""
        deployment = self._deployments.get(key.participant)
        return None if deployment is None else deployment.pool(key.role)

    async def observe(self) -> AsyncIterator[Observation]:
        """Yield everything as it is, then each change, until the reader stops."""
        feed: asyncio.Queue[Observation] = asyncio.Queue()
        self._feeds.append(feed)
        try:
            yield Listed(self.deployments)
            while True:
                yield await feed.get()
        finally:
            self._feeds.remove(feed)

    async def refresh(self) -> None:
        """Return when every reader that waits has seen all that was shown."""
        await asyncio.sleep(0)

    async def apply(self, step: Step) -> Applying:
        """Write *step* if every pool is as it says; every reader that waits has seen the result before the answer."""
        return await self._answered(lambda: self._write(step))

    async def mark(self, mark: Mark) -> Applying:
        """Replace the fence of an object, if it is as *mark* says; shown like a step."""
        return await self._answered(lambda: self._marked(mark))

    async def _answered(self, write: Callable[[], Applying]) -> Applying:
        """Do *write*, unless something goes wrong with it."""
        fault = self._faults.popleft() if self._faults else None
        if fault is Fault.REFUSED:
            return Refused(fault.value)
        if fault is Fault.LOST_BEFORE:
            return Unknown(fault.value)
        answer = write()
        await asyncio.sleep(0)  # the loop is fair: every reader that waits takes what it was shown before this returns
        return Unknown(fault.value) if fault is not None and isinstance(answer, Applied) else answer

    def put(self, deployment: Deployment) -> None:
        """Create *deployment*, or change it to be as given; pools that name no uid keep or get one."""
        self._set(self._with_uids(deployment))

    def delete(self, participant: ParticipantId) -> None:
        """Delete *participant*, which must exist."""
        del self._deployments[participant]
        self._show(Gone(participant))

    def recreate(self, participant: ParticipantId) -> None:
        """Delete *participant* and create it anew: the same in all but its uids and fences."""
        deployment = self._deployments[participant]
        self.delete(participant)
        self.put(attrs.evolve(deployment, pools=tuple(_new(pool) for pool in deployment.pools)))

    def go_stale(self) -> None:
        """Tell every observer that changes may be missed."""
        self._show(Stale())

    def relist(self) -> None:
        """Show every observer the whole again."""
        self._show(Listed(self.deployments))

    def fail_next(self, *faults: Fault) -> None:
        """Let the next applications fail so, one each."""
        self._faults.extend(faults)

    def _write(self, step: Step) -> Applying:
        """Write all of *step*, or show how things are and say what is not as it says."""
        if step.fence is None:
            raise ValueError(f"a step without a fence may not be written: {step}")
        problems = [problem for change in step.changes if (problem := self._mismatch(change, step.fence.old))]
        deployment = self._deployments.get(step.participant)
        if deployment is None:
            self._show(Gone(step.participant))
            return Absent("; ".join(problems))
        if problems:
            self._show(Seen(deployment))
            return Refused("; ".join(problems))
        self._set(_scaled(deployment, step, step.fence.new))
        return Applied()

    def _marked(self, mark: Mark) -> Applying:
        deployment = self._deployments.get(mark.key.participant)
        named = [pool for pool in (deployment.pools if deployment else ()) if pool.authority.name == mark.key.name]
        if deployment is None or not named:
            return Absent(f"{mark.key} does not exist")
        if mark.authority.uid not in ("", named[0].authority.uid) or named[0].fence != mark.old:
            self._show(Seen(deployment))
            return Refused(f"{mark.key} is not as it was")
        pools = tuple(attrs.evolve(pool, fence=mark.new) if pool in named else pool for pool in deployment.pools)
        self._set(attrs.evolve(deployment, pools=pools))
        return Applied()

    def _mismatch(self, change: Change, fence: str) -> str | None:
        pool = self.pool(change.pool)
        if pool is None:
            return f"{change.pool} does not exist"
        if pool.authority != change.authority:
            return f"{change.pool} is another object now"
        if pool.fence != fence:
            return f"{change.pool} was written to meanwhile"
        if pool.replicas != change.before:
            return f"{change.pool} has {pool.replicas} replicas, not {change.before}"
        return None

    def _with_uids(self, deployment: Deployment) -> Deployment:
        """Return *deployment* with a uid for each object: its own, else the one it has now, else a new one."""
        uids: dict[str, str] = {}
        before = self._deployments.get(deployment.id)
        for pool in (*(before.pools if before else ()), *deployment.pools):
            if pool.authority.uid:
                uids[pool.authority.name] = pool.authority.uid
        return attrs.evolve(deployment, pools=tuple([self._with_uid(pool, uids) for pool in deployment.pools]))

    def _with_uid(self, pool: Pool, uids: dict[str, str]) -> Pool:
        """Return *pool* with the uid of its object, which all pools of that object share."""
        if pool.authority.uid:
            return pool
        name = pool.authority.name
        if name not in uids:
            self._minted += 1
            uids[name] = f"uid-{self._minted}"
        return attrs.evolve(pool, authority=Authority(name, uids[name]))

    def _set(self, deployment: Deployment) -> None:
        """Store *deployment* with what its operator does at once, show it, and let the operator do the rest later."""
        begun = attrs.evolve(deployment, pools=tuple(_begun(pool) for pool in deployment.pools))
        for lag_s in (self._acquire_lag_s, self._release_lag_s):
            begun = self._followed(begun, lag_s) if lag_s == 0 else begun
        self._deployments[deployment.id] = begun
        self._show(Seen(begun))
        for lag_s in {self._acquire_lag_s, self._release_lag_s} - {0, math.inf}:
            if self._followed(begun, lag_s) != begun:
                self._later(lag_s, lambda lag_s=lag_s: self._follow(begun, lag_s))  # type: ignore[misc]

    def _follow(self, begun: Deployment, lag_s: float) -> None:
        """Let the status arrive where *begun* asked it to be, unless something else is asked for since."""
        now = self._deployments.get(begun.id)
        if now is not None and _asked(now) == _asked(begun):
            self._deployments[begun.id] = self._followed(now, lag_s)
            self._show(Seen(self._deployments[begun.id]))

    def _followed(self, deployment: Deployment, lag_s: float) -> Deployment:
        """Return *deployment* with what takes *lag_s* done."""
        pools = deployment.pools
        if lag_s == self._acquire_lag_s:
            pools = tuple(attrs.evolve(pool, ready=max(pool.ready, pool.replicas)) for pool in pools)
        if lag_s == self._release_lag_s:
            pools = tuple(attrs.evolve(pool, present=min(pool.present, pool.replicas)) for pool in pools)
        return attrs.evolve(deployment, pools=pools)

    def _show(self, observation: Observation) -> None:
        for feed in self._feeds:
            feed.put_nowait(observation)


def _on_the_running_loop(delay_s: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, call)


def _new(pool: Pool) -> Pool:
    return attrs.evolve(pool, authority=Authority(pool.authority.name), fence="")


def _scaled(deployment: Deployment, step: Step, fence: str) -> Deployment:
    """Return *deployment* with what *step* asks of its pools, and its object marked with *fence*."""
    afters = {change.pool: change.after for change in step.changes}
    pools = [attrs.evolve(pool, replicas=afters.get(pool.key, pool.replicas)) for pool in deployment.pools]
    marked = [attrs.evolve(pool, fence=fence) if pool.authority == step.authority else pool for pool in pools]
    return attrs.evolve(deployment, pools=tuple(marked))


def _begun(pool: Pool) -> Pool:
    """Return *pool* with what the operator does at once: relay, create what is missing, stop what is too many."""
    return attrs.evolve(
        pool,
        relayed=None if pool.relayed is None else pool.replicas,
        present=max(pool.present, pool.replicas),
        ready=min(pool.ready, pool.replicas),
    )


def _asked(deployment: Deployment) -> tuple[tuple[PoolKey, int, Authority], ...]:
    return tuple((pool.key, pool.replicas, pool.authority) for pool in deployment.pools)

"""The cluster in memory keeps every promise of the ports, and each check catches a cluster that does not."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from itertools import count

import attrs
import pytest

from gpcore.events import Gone, Listed, Mark, Seen
from gpcore.fences import Fence
from gpcore.plans import Step
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role
from gpcore.ports import Absent, Applied, Applying, Observation, Observer, Refused
from gpcore.testing import checks
from gpcore.testing.checks import CHECKS, Check, Maker
from gpcore.testing.fakes import MemoryCluster


@attrs.frozen
class Memory:
    """A world in memory; *uids* are given to what is created."""

    observer: Observer
    executor: MemoryCluster
    uids: Iterator[int]
    namespace: str = "ns"

    async def create(self, participant: ParticipantId, replicas: Mapping[Role, int]) -> None:
        authority = Authority(participant.name, f"uid-{next(self.uids)}")
        pools = (Pool(PoolKey(participant, role), count, 1, authority=authority) for role, count in replicas.items())
        self.executor.put(Deployment(participant, tuple(pools)))

    async def scale(self, pool: PoolKey, replicas: int) -> None:
        written = [attrs.evolve(one, replicas=replicas) if one.key == pool else one for one in self._pools(pool)]
        self.executor.put(Deployment(pool.participant, tuple(written)))

    async def delete(self, participant: ParticipantId) -> None:
        self.executor.delete(participant)

    def _pools(self, key: PoolKey) -> tuple[Pool, ...]:
        (deployment,) = (one for one in self.executor.deployments if one.id == key.participant)
        return deployment.pools


def maker(kind: type[MemoryCluster] = MemoryCluster, *, step: int = 1) -> Maker:
    """Return what opens worlds of this *kind* of cluster, with uids that go up by *step*."""

    @asynccontextmanager
    async def made() -> AsyncIterator[Memory]:
        cluster = kind()
        yield Memory(cluster, cluster, count(step=step))

    return made


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_cluster_in_memory_keeps_its_promises(check: Check) -> None:
    await check(maker())


class ShowsTooLittle(MemoryCluster):
    async def observe(self) -> AsyncIterator[Observation]:
        async with aclosing(super().observe()) as shown:  # type: ignore[type-var]
            async for one in shown:
                yield Listed(one.deployments[:1]) if isinstance(one, Listed) else one


class ForgetsDeletions(MemoryCluster):
    async def observe(self) -> AsyncIterator[Observation]:
        async with aclosing(super().observe()) as shown:  # type: ignore[type-var]
            async for one in shown:
                if not isinstance(one, Gone):
                    yield one


class LooksBack(MemoryCluster):
    async def observe(self) -> AsyncIterator[Observation]:
        before: list[Observation] = []
        async with aclosing(super().observe()) as shown:  # type: ignore[type-var]
            async for one in shown:
                yield one
                if isinstance(one, Seen) and before:
                    yield before[-1]
                    yield one
                before.append(one)


class OnlySaysSo(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        del step
        return Applied()


class DoesAHalf(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        return await super().apply(Step(step.changes[:1], step.fence))


class DoesWhatFits(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        answers = []
        for change in step.changes:
            pool = self.pool(change.pool)
            fence = None if pool is None or step.fence is None else step.fence._replace(old=pool.fence or "")
            answers.append(await super().apply(Step((change,), fence)))
        return next((answer for answer in answers if answer != Applied()), Applied())


class MindsNoReplicas(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        pools = [(self.pool(change.pool), change) for change in step.changes]
        forced = (attrs.evolve(change, before=pool.replicas) for pool, change in pools if pool is not None)
        return await super().apply(Step(tuple(forced), step.fence))


class MindsNoUid(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        pools = [(self.pool(change.pool), change) for change in step.changes]
        forced = (attrs.evolve(change, authority=pool.authority) for pool, change in pools if pool is not None)
        return await super().apply(Step(tuple(forced), step.fence))


class AppliesToNothing(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        answer = await super().apply(step)
        return answer if self.pool(step.changes[0].pool) else Applied()


class AddsTheDifference(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        pools = [(self.pool(change.pool), change) for change in step.changes]
        added = (
            attrs.evolve(change, before=pool.replicas, after=pool.replicas + change.after - change.before)
            for pool, change in pools
            if pool is not None
        )
        return await super().apply(Step(tuple(added), as_it_is(self, step)))


def as_it_is(cluster: MemoryCluster, step: Step) -> Fence | None:
    """Return the fence of *step*, as if its object had shown the old one."""
    pool = cluster.pool(step.changes[0].pool)
    return step.fence if pool is None or step.fence is None else step.fence._replace(old=pool.fence or "")


class LeavesNoFence(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        fence = step.fence
        return await super().apply(attrs.evolve(step, fence=fence and fence._replace(new=fence.old)))


class MindsNoFence(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        return await super().apply(attrs.evolve(step, fence=as_it_is(self, step)))


class OnlySaysThatItMarks(MemoryCluster):
    async def mark(self, mark: Mark) -> Applying:
        del mark
        return Applied()


class MarksWithoutShowing(MemoryCluster):
    async def mark(self, mark: Mark) -> Applying:
        await super().mark(attrs.evolve(mark, new=f"not {mark.new}"))
        return Applied()


class RefusesWhatIsNotThere(MemoryCluster):
    async def mark(self, mark: Mark) -> Applying:
        answer = await super().mark(mark)
        return Refused(answer.detail) if isinstance(answer, Absent) else answer


class NeverRefuses(MemoryCluster):
    async def apply(self, step: Step) -> Applying:
        answer = await super().apply(step)
        return Applied() if isinstance(answer, Refused) else answer


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (checks.a_complete_list_comes_first, maker(ShowsTooLittle)),
        (checks.each_change_is_shown, maker(ForgetsDeletions)),
        (checks.nothing_goes_backwards, maker(LooksBack)),
        (checks.one_of_the_same_name_is_another_object, maker(step=0)),
        (checks.what_is_applied_was_shown, maker(OnlySaysSo)),
        (checks.several_changes_are_one_write, maker(DoesAHalf)),
        (checks.all_or_none, maker(DoesWhatFits)),
        (checks.a_write_meets_the_replicas_that_it_was_decided_on, maker(MindsNoReplicas)),
        (checks.a_write_meets_the_object_that_it_was_decided_on, maker(MindsNoUid)),
        (checks.a_write_to_nothing_is_refused, maker(AppliesToNothing)),
        (checks.a_repeated_write_has_one_effect, maker(AddsTheDifference)),
        (checks.of_two_writes_one_wins, maker(NeverRefuses)),
        (checks.a_write_leaves_its_fence, maker(LeavesNoFence)),
        (checks.a_write_needs_its_fence, maker(MindsNoFence)),
        (checks.a_mark_ends_what_was_promised, maker(OnlySaysThatItMarks)),
        (checks.a_mark_ends_what_was_promised, maker(MarksWithoutShowing)),
        (checks.a_mark_lands_once, maker(NeverRefuses)),
        (checks.a_mark_lands_once, maker(OnlySaysThatItMarks)),
        (checks.a_mark_on_nothing_says_so, maker(RefusesWhatIsNotThere)),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_a_broken_promise_is_caught(check: Check, broken: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PATIENCE_S", 0.05)
    with pytest.raises(AssertionError):
        await check(broken)


@attrs.define
class ShowsNothing:
    """An observer that is no generator, and ends at once."""

    def observe(self) -> "ShowsNothing":
        return self

    def __aiter__(self) -> "ShowsNothing":
        return self

    async def __anext__(self) -> Observation:
        raise StopAsyncIteration

    async def refresh(self) -> None:
        """Return at once: there is nothing to look at."""


async def test_an_observer_need_not_be_a_generator() -> None:
    cluster = MemoryCluster()

    @asynccontextmanager
    async def made() -> AsyncIterator[Memory]:
        yield Memory(ShowsNothing(), cluster, count())

    with pytest.raises(StopAsyncIteration):
        await checks.a_complete_list_comes_first(made)


async def test_what_should_be_shown_and_is_not_is_named() -> None:
    async with maker()() as world:
        watch = checks._Watch(world)  # noqa: SLF001 - what it says when nothing is shown at all
        with pytest.raises(AssertionError, match="ns/a/prefill is not shown"):
            watch.pool(PoolKey(ParticipantId("ns", "a"), Role.PREFILL))


async def test_going_stale_changes_nothing_of_what_was_shown() -> None:
    async with checks._watched(maker()) as watch:  # noqa: SLF001 - the observation that no check provokes
        key = await watch.create("a", 1)
        assert isinstance(watch.world, Memory)
        watch.world.executor.go_stale()
        await watch.world.scale(key, 2)
        await watch.comes_to(key, 2)

import asyncio
import math
from collections.abc import AsyncIterator, Callable

import attrs
import pytest

from gpcore.events import Gone, Listed, Mark, Seen, Stale
from gpcore.fences import Mint
from gpcore.ledger import ObjectKey, object_of
from gpcore.plans import Change, Step
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role
from gpcore.ports import Absent, Applied, Observation, Refused, Unknown
from gpcore.testing.fakes import Fault, MemoryCluster

A = ParticipantId("ns", "a")
PREFILL, DECODE = PoolKey(A, Role.PREFILL), PoolKey(A, Role.DECODE)


class Timers:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + delay_s, call))

    def pass_to(self, now: float) -> None:
        self.now = now
        ripe = [call for at, call in self.due if at <= now]
        self.due = [(at, call) for at, call in self.due if at > now]
        for call in ripe:
            call()


def deployment(prefill: int = 4, decode: int = 2, *, authority: str = "") -> Deployment:
    return Deployment(
        A,
        (
            Pool(PREFILL, prefill, 1, present=prefill, ready=prefill, authority=Authority(authority)),
            Pool(DECODE, decode, 2, present=decode, ready=decode, relayed=decode),
        ),
    )


def to(cluster: MemoryCluster, key: PoolKey, after: int) -> Step:
    return fenced(cluster, Change.of(pool(cluster, key), after))


def fenced(cluster: MemoryCluster, *changes: Change) -> Step:
    """Return the step of these *changes*, with a fence that fits what is there now."""
    old = pool(cluster, changes[0].pool).fence
    return Step(changes, Mint(f"{old} {changes}").fence(old or "")[0])


def mark(cluster: MemoryCluster, key: PoolKey, new: str) -> Mark:
    one = pool(cluster, key)
    return Mark(object_of(one), one.authority, one.fence or "", new)


def pool(cluster: MemoryCluster, key: PoolKey) -> Pool:
    found = cluster.pool(key)
    assert found is not None
    return found


async def read(observations: AsyncIterator[Observation], into: list[Observation]) -> None:
    async for observation in observations:
        into.append(observation)  # noqa: PERF401 - each at once, not all at the end


async def reading(cluster: MemoryCluster, into: list[Observation]) -> asyncio.Task[None]:
    task = asyncio.create_task(read(cluster.observe(), into))
    await asyncio.sleep(0)
    return task


async def test_an_observer_sees_everything_first_and_then_each_change() -> None:
    cluster = MemoryCluster([deployment()])
    observations = cluster.observe()
    assert await anext(observations) == Listed(cluster.deployments)
    cluster.put(deployment(prefill=7))
    assert await anext(observations) == Seen(cluster.deployments[0])
    cluster.go_stale()
    cluster.relist()
    cluster.delete(A)
    assert await anext(observations) == Stale()
    assert isinstance(await anext(observations), Listed)
    assert await anext(observations) == Gone(A)


async def test_after_a_refresh_every_reader_has_seen_what_was_before_it() -> None:
    cluster = MemoryCluster([deployment()])
    seen: list[Observation] = []
    task = await reading(cluster, seen)
    cluster.put(deployment(prefill=7))
    await cluster.refresh()
    assert seen[-1] == Seen(cluster.deployments[0])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_step_lands_whole_and_every_reader_has_seen_it_before_the_answer() -> None:
    cluster = MemoryCluster([deployment()])
    seen: tuple[list[Observation], list[Observation]] = ([], [])
    tasks = [await reading(cluster, into) for into in seen]
    assert await cluster.apply(to(cluster, PREFILL, 6)) == Applied()
    for one in seen:
        assert one[-1] == Seen(cluster.deployments[0])
    assert (pool(cluster, PREFILL).replicas, pool(cluster, PREFILL).ready) == (6, 6)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await cluster.apply(to(cluster, PREFILL, 5)) == Applied()
    assert len(seen[0]) == 2, "one that has stopped reading is shown nothing"


async def test_a_step_for_replicas_that_are_not_there_any_more_is_refused_and_shows_those_that_are() -> None:
    cluster = MemoryCluster([deployment()])
    seen: list[Observation] = []
    task = await reading(cluster, seen)
    old = fenced(cluster, Change.of(pool(cluster, DECODE), 9), Change.of(pool(cluster, PREFILL), 9))
    cluster.put(deployment(prefill=5))
    before = cluster.deployments
    assert await cluster.apply(old) == Refused("ns/a/prefill has 5 replicas, not 4")
    assert cluster.deployments == before
    assert seen[-1] == Seen(before[0])
    task.cancel()


async def test_a_step_for_an_object_that_was_created_anew_is_refused() -> None:
    cluster = MemoryCluster([deployment()])
    old = to(cluster, PREFILL, 6)
    cluster.recreate(A)
    assert await cluster.apply(old) == Refused("ns/a/prefill is another object now")
    cluster.delete(A)
    seen: list[Observation] = []
    task = await reading(cluster, seen)
    assert await cluster.apply(old) == Absent("ns/a/prefill does not exist")
    assert seen[-1] == Gone(A)
    task.cancel()


async def test_a_step_leaves_its_fence_on_its_own_object_and_never_lands_again() -> None:
    cluster = MemoryCluster([deployment(authority="adapter")])
    one = to(cluster, PREFILL, 6)
    assert await cluster.apply(one) == Applied()
    assert one.fence is not None
    assert (pool(cluster, PREFILL).fence, pool(cluster, DECODE).fence) == (one.fence.new, "")
    await cluster.apply(to(cluster, PREFILL, 4))
    assert await cluster.apply(one) == Refused("ns/a/prefill was written to meanwhile")


async def test_a_step_without_a_fence_is_never_written() -> None:
    cluster = MemoryCluster([deployment()])
    with pytest.raises(ValueError, match="without a fence"):
        await cluster.apply(attrs.evolve(to(cluster, PREFILL, 6), fence=None))
    assert pool(cluster, PREFILL).replicas == 4


async def test_a_mark_changes_nothing_but_the_fence_and_only_on_the_object_that_it_names() -> None:
    cluster = MemoryCluster([deployment(authority="adapter")])
    late, before = to(cluster, PREFILL, 6), pool(cluster, PREFILL)
    first = mark(cluster, PREFILL, "first")
    assert await cluster.mark(first) == Applied()
    assert pool(cluster, PREFILL) == attrs.evolve(before, fence="first")
    assert pool(cluster, DECODE).fence == ""
    assert await cluster.apply(late) == Refused("ns/a/prefill was written to meanwhile")
    assert await cluster.mark(first) == Refused("ns/a/adapter is not as it was")


async def test_a_mark_of_another_object_is_refused_and_one_of_none_says_so() -> None:
    cluster = MemoryCluster([deployment()])
    old = mark(cluster, PREFILL, "new")
    cluster.recreate(A)
    assert isinstance(await cluster.mark(old), Refused)
    assert await cluster.mark(attrs.evolve(old, authority=Authority())) == Applied(), "without a uid the fence decides"
    unknown = attrs.evolve(old, key=ObjectKey(A, "another"))
    assert await cluster.mark(unknown) == Absent("ns/a/another does not exist")
    cluster.delete(A)
    assert await cluster.mark(old) == Absent("ns/a/ does not exist")


def test_a_pool_keeps_its_uid_while_its_object_lives() -> None:
    cluster = MemoryCluster([deployment(authority="adapter")])
    uid = pool(cluster, PREFILL).authority.uid
    assert uid != pool(cluster, DECODE).authority.uid
    cluster.put(deployment(prefill=9, authority="adapter"))
    assert pool(cluster, PREFILL).authority.uid == uid
    cluster.put(deployment(prefill=9, authority="another"))
    assert pool(cluster, PREFILL).authority.uid != uid
    given = attrs.evolve(pool(cluster, PREFILL), authority=Authority("x", "given"))
    cluster.put(Deployment(A, (given,)))
    assert pool(cluster, PREFILL).authority.uid == "given"


async def test_what_is_acquired_serves_after_its_lag_and_what_is_released_is_gone_after_its_own() -> None:
    timers = Timers()
    cluster = MemoryCluster([deployment()], acquire_lag_s=10, release_lag_s=5, later=timers.later)
    await cluster.apply(to(cluster, PREFILL, 6))
    await cluster.apply(to(cluster, DECODE, 1))
    assert (pool(cluster, PREFILL).present, pool(cluster, PREFILL).ready) == (6, 4)
    assert (pool(cluster, DECODE).relayed, pool(cluster, DECODE).present, pool(cluster, DECODE).ready) == (1, 2, 1)
    timers.pass_to(5)
    assert (pool(cluster, PREFILL).ready, pool(cluster, DECODE).present) == (4, 1)
    timers.pass_to(10)
    assert pool(cluster, PREFILL).ready == 6


async def test_the_operator_forgets_what_is_no_longer_asked_for() -> None:
    timers = Timers()
    cluster = MemoryCluster([deployment()], acquire_lag_s=10, later=timers.later)
    await cluster.apply(to(cluster, PREFILL, 6))
    timers.pass_to(9)
    await cluster.apply(to(cluster, PREFILL, 8))
    timers.pass_to(10)
    assert pool(cluster, PREFILL).ready == 4
    timers.pass_to(19)
    assert pool(cluster, PREFILL).ready == 8
    await cluster.apply(to(cluster, PREFILL, 9))
    cluster.delete(A)
    timers.pass_to(30)
    assert cluster.deployments == ()


async def test_an_infinite_lag_never_ends_and_the_lags_of_the_event_loop_do() -> None:
    cluster = MemoryCluster([deployment()], acquire_lag_s=0.001, release_lag_s=math.inf)
    await cluster.apply(to(cluster, DECODE, 1))
    await cluster.apply(to(cluster, PREFILL, 6))
    await asyncio.sleep(0.02)
    assert pool(cluster, PREFILL).ready == 6
    assert pool(cluster, DECODE).present == 2


@pytest.mark.parametrize(
    ("fault", "answer", "replicas"),
    [(Fault.REFUSED, Refused, 4), (Fault.LOST_BEFORE, Unknown, 4), (Fault.LOST_AFTER, Unknown, 6)],
)
async def test_an_injected_fault_happens_once(fault: Fault, answer: type[Refused | Unknown], replicas: int) -> None:
    cluster = MemoryCluster([deployment()])
    cluster.fail_next(fault)
    assert await cluster.apply(to(cluster, PREFILL, 6)) == answer(fault.value)
    assert pool(cluster, PREFILL).replicas == replicas
    assert await cluster.apply(to(cluster, PREFILL, 7)) == Applied()

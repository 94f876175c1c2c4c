"""What every observer and executor promises beyond its types, as checks to run against a real one.

A check takes a *maker*, which opens a `World` of its own, and fails with a sentence. In a test of yours:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_it_keeps_its_promises(check):
        await check(my_maker)

Rules of this file: a check uses the ports and the four operations of `World`, and waits for nothing but what it is
shown.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol, assert_never

import attrs

from gpcore.events import Gone, Listed, Mark, Seen, Stale
from gpcore.fences import Mint
from gpcore.ledger import object_of
from gpcore.plans import Change, Step
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Role
from gpcore.ports import Absent, Applied, Applying, Executor, Observation, Observer, Refused

PATIENCE_S = 10.0
"""How long a check waits for what must be shown."""


class World(Protocol):
    """A cluster that a check may do to as it likes, and the ports to it that are checked."""

    @property
    def observer(self) -> Observer:
        """Return the observer that is checked."""
        ...

    @property
    def executor(self) -> Executor:
        """Return the executor that is checked; it works while the observer is read."""
        ...

    @property
    def namespace(self) -> str:
        """Return the Kubernetes namespace in which deployments may be created."""
        ...

    async def create(self, participant: ParticipantId, replicas: Mapping[Role, int]) -> None:
        """Create a deployment with a pool of one GPU per replica for each role, all of one authority object."""
        ...

    async def scale(self, pool: PoolKey, replicas: int) -> None:
        """Write replicas at the pool's authority as somebody else would, not through the executor."""
        ...

    async def delete(self, participant: ParticipantId) -> None:
        """Delete a deployment, so that one of the same name can be created."""
        ...


Maker = Callable[[], AbstractAsyncContextManager[World]]
Check = Callable[[Maker], Awaitable[None]]


async def a_complete_list_comes_first(maker: Maker) -> None:
    """Check that what was there before is shown at once, all of it."""
    async with maker() as world:
        for name, count in (("a", 1), ("b", 2)):
            await world.create(ParticipantId(world.namespace, name), {Role.PREFILL: count})
        async with aclosing(_observations(world)) as observations:
            first = await asyncio.wait_for(anext(observations), PATIENCE_S)
        deployments = first.deployments if isinstance(first, Listed) else ()
        shown = {one.id.name: [pool.replicas for pool in one.pools] for one in deployments}
        _claim(shown == {"a": [1], "b": [2]}, f"the first thing shown is not all there is: {first}")


async def each_change_is_shown(maker: Maker) -> None:
    """Check that creation, changes and deletion follow without being asked for."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 1)
        await watch.world.scale(key, 4)
        await watch.comes_to(key, 4)
        await watch.world.delete(key.participant)
        await watch.until(lambda: key.participant not in watch.shown, "the deletion")


async def nothing_goes_backwards(maker: Maker) -> None:
    """Check that of several quick changes none is shown after a later one."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 1)
        for count in range(2, 9):
            await watch.world.scale(key, count)
        await watch.comes_to(key, 8)
        counts = [pool.replicas for pool in watch.history if pool.key == key]
        _claim(counts == sorted(counts), f"replicas that only grew were shown as {counts}")


async def one_of_the_same_name_is_another_object(maker: Maker) -> None:
    """Check that a deployment which is deleted and created anew has another uid."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 1)
        before = watch.pool(key).authority
        await watch.recreate(key, 1)
        await watch.until(lambda: watch.replicas(key) == 1 and watch.pool(key).authority != before, "another uid")


async def what_is_applied_was_shown(maker: Maker) -> None:
    """Check that a step does what it says, and that the result was shown before the answer."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        await watch.applies(Change.of(watch.pool(key), 5))
        watch.stands_at(key, 5, "a step that was applied")


async def several_changes_are_one_write(maker: Maker) -> None:
    """Check that a step of several pools does all of it."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2, 3)
        other = _beside(key)
        await watch.applies(Change.of(watch.pool(key), 1), Change.of(watch.pool(other), 4))
        watch.stands_at(key, 1, "a step of two changes")
        watch.stands_at(other, 4, "a step of two changes")


async def all_or_none(maker: Maker) -> None:
    """Check that a step of which one change does not fit does nothing, then and later."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2, 3)
        other = _beside(key)
        changes = Change.of(watch.pool(key), 1), Change.of(watch.pool(other), 4)
        await watch.world.scale(other, 6)
        await watch.refuses("of which one change does not fit", *changes)
        watch.stands_at(key, 2, "a refusal")
        watch.stands_at(other, 6, "a refusal")
        await watch.world.scale(other, 3)
        await watch.comes_to(other, 3)
        watch.stands_at(key, 2, "a refusal, when the step would have fitted again")


async def a_write_meets_the_replicas_that_it_was_decided_on(maker: Maker) -> None:
    """Check that a step which was decided on other replicas is refused, and what is was shown before."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        change = Change.of(watch.pool(key), 3)
        await watch.world.scale(key, 7)
        await watch.refuses("that was decided on other replicas", change)
        watch.stands_at(key, 7, "a refusal")


async def a_write_meets_the_object_that_it_was_decided_on(maker: Maker) -> None:
    """Check that a step for a deployment never reaches a later one of its name."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        change = Change.of(watch.pool(key), 3)
        await watch.recreate(key, 2)
        await watch.refuses("for a deployment that was deleted and created anew", change)
        watch.stands_at(key, 2, "a refusal")
        _claim(watch.pool(key).authority != change.authority, "a refusal came before the new object was shown")


async def a_write_to_nothing_is_refused(maker: Maker) -> None:
    """Check that a step for a deployment that is gone is refused, and that it was shown as gone before."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        change = Change.of(watch.pool(key), 3)
        await watch.world.delete(key.participant)
        await watch.refuses("for a deployment that is gone", change)
        _claim(key.participant not in watch.shown, "a refusal came before the deployment was shown as gone")


async def a_write_leaves_its_fence(maker: Maker) -> None:
    """Check that an object shows the new fence of the last step that was applied to it."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        step = watch.step(Change.of(watch.pool(key), 3))
        await watch.does(step)
        _claim(step.fence is not None and watch.pool(key).fence == step.fence.new, "a step left another fence")


async def a_write_needs_its_fence(maker: Maker) -> None:
    """Check that a step does not land when its object has had another write, though all else is as it says."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        late = watch.step(Change.of(watch.pool(key), 5))
        await watch.applies(Change.of(watch.pool(key), 3))
        await watch.applies(Change.of(watch.pool(key), 2))
        answer = await watch.ask(late)
        _claim(isinstance(answer, Refused), f"a step whose fence is gone was answered {answer}")
        watch.stands_at(key, 2, "a step whose fence is gone")


async def a_mark_ends_what_was_promised(maker: Maker) -> None:
    """Check that a step never lands once its old fence was replaced, and that replacing it changes no replicas."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        step = watch.step(Change.of(watch.pool(key), 5))
        mark = watch.mark(key)
        answer = await asyncio.wait_for(watch.world.executor.mark(mark), PATIENCE_S)
        _claim(answer == Applied(), f"a mark on an object that is as it says was answered {answer}")
        _claim(watch.pool(key).fence == mark.new, "a mark was answered before it was shown")
        watch.stands_at(key, 2, "a mark")
        late = await watch.ask(step)
        _claim(isinstance(late, Refused), f"a step that was made impossible was answered {late}")
        watch.stands_at(key, 2, "a step that was made impossible")


async def a_mark_lands_once(maker: Maker) -> None:
    """Check that of a mark and a step which need the same fence just one lands."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        step, mark = watch.step(Change.of(watch.pool(key), 5)), watch.mark(key)
        answers = await asyncio.gather(watch.ask(step), watch.world.executor.mark(mark))
        _claim(answers.count(Applied()) == 1, f"a step and a mark with one fence were answered {answers}")
        watch.stands_at(key, 5 if answers[0] == Applied() else 2, "a step and a mark with one fence")


async def a_mark_on_nothing_says_so(maker: Maker) -> None:
    """Check that it is told when there is no object to mark."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        mark = watch.mark(key)
        await watch.world.delete(key.participant)
        answer = await asyncio.wait_for(watch.world.executor.mark(mark), PATIENCE_S)
        _claim(isinstance(answer, Absent), f"a mark on an object that is gone was answered {answer}")


async def a_repeated_write_has_one_effect(maker: Maker) -> None:
    """Check that a step which is applied again changes nothing any more, whatever it is answered."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        step = watch.step(Change.of(watch.pool(key), 3))
        await watch.does(step)
        again = await watch.ask(step)
        _claim(isinstance(again, Applied | Refused), f"a step that was applied before was answered {again}")
        watch.stands_at(key, 3, "the same step twice")


async def of_two_writes_one_wins(maker: Maker) -> None:
    """Check that of two steps which were decided on the same replicas just one is applied."""
    async with _watched(maker) as watch:
        key = await watch.create("a", 2)
        pool = watch.pool(key)
        answers = await asyncio.gather(*(watch.apply(Change.of(pool, count)) for count in (3, 4)))
        applied = [count for count, answer in zip((3, 4), answers, strict=True) if answer == Applied()]
        _claim(len(applied) == 1, f"two steps that were decided on the same replicas were answered {answers}")
        watch.stands_at(key, applied[0], "the one step of two that was applied")


CHECKS: tuple[Check, ...] = (
    a_complete_list_comes_first,
    each_change_is_shown,
    nothing_goes_backwards,
    one_of_the_same_name_is_another_object,
    what_is_applied_was_shown,
    several_changes_are_one_write,
    all_or_none,
    a_write_meets_the_replicas_that_it_was_decided_on,
    a_write_meets_the_object_that_it_was_decided_on,
    a_write_to_nothing_is_refused,
    a_repeated_write_has_one_effect,
    of_two_writes_one_wins,
    a_write_leaves_its_fence,
    a_write_needs_its_fence,
    a_mark_ends_what_was_promised,
    a_mark_lands_once,
    a_mark_on_nothing_says_so,
)
"""Every check of an observer and the executor that goes with it."""


@attrs.define
class _Watch:
    """What an observer has shown of *world* so far: as it is now, and every pool that ever was."""

    world: World
    shown: dict[ParticipantId, Deployment] = attrs.field(factory=dict)
    history: list[Pool] = attrs.field(factory=list)
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    _mint: Mint = attrs.field(factory=lambda: Mint("checks"))

    async def follow(self) -> None:
        """Take in what is shown, for ever."""
        async with aclosing(_observations(self.world)) as observations:
            async for observation in observations:
                self._take(observation)
                self._changed.set()

    def pool(self, key: PoolKey) -> Pool:
        """Return a pool as it is shown; it must be."""
        deployment = self.shown.get(key.participant)
        found = None if deployment is None else deployment.pool(key.role)
        if found is None:
            raise AssertionError(f"{key} is not shown")
        return found

    def replicas(self, key: PoolKey) -> int | None:
        """Return the replicas that are shown of a pool, or None where its deployment is not shown."""
        return self.pool(key).replicas if key.participant in self.shown else None

    def stands_at(self, key: PoolKey, replicas: int, when: str) -> None:
        """Claim that a pool is shown with just these *replicas* after what happened."""
        _claim(self.replicas(key) == replicas, f"after {when} {self.replicas(key)} replicas are shown, not {replicas}")

    async def comes_to(self, key: PoolKey, replicas: int) -> None:
        """Wait until a pool is shown with just these *replicas*."""
        await self.until(lambda: self.replicas(key) == replicas, f"{key} with {replicas} replicas")

    async def create(self, name: str, prefill: int, decode: int | None = None) -> PoolKey:
        """Create a deployment, wait until it is shown, and return its pool for prefill."""
        key = PoolKey(ParticipantId(self.world.namespace, name), Role.PREFILL)
        counts = {Role.PREFILL: prefill, Role.DECODE: decode}
        await self.world.create(key.participant, {role: n for role, n in counts.items() if n is not None})
        await self.comes_to(key, prefill)
        return key

    async def recreate(self, key: PoolKey, prefill: int) -> None:
        """Delete a deployment and create one of the same name, without waiting for either to be shown."""
        await self.world.delete(key.participant)
        await self.world.create(key.participant, {Role.PREFILL: prefill})

    def step(self, *changes: Change) -> Step:
        """Return the step of these *changes*, behind a new fence for the object as it is shown."""
        shown = self.shown.get(changes[0].pool.participant)
        pool = None if shown is None else shown.pool(changes[0].pool.role)
        fence, self._mint = self._mint.fence("" if pool is None else pool.fence or "")
        return Step(changes, fence)

    def mark(self, key: PoolKey) -> Mark:
        """Return the order to put a new fence on the object of a pool as it is shown."""
        pool = self.pool(key)
        fence, self._mint = self._mint.fence(pool.fence or "")
        return Mark(object_of(pool), pool.authority, fence.old, fence.new)

    async def ask(self, step: Step) -> Applying:
        """Return what *step* is answered."""
        return await asyncio.wait_for(self.world.executor.apply(step), PATIENCE_S)

    async def apply(self, *changes: Change) -> Applying:
        """Apply the step of these *changes*."""
        return await self.ask(self.step(*changes))

    async def does(self, step: Step) -> None:
        """Claim that *step* is applied."""
        answer = await self.ask(step)
        _claim(answer == Applied(), f"a step that fits was answered {answer}")

    async def applies(self, *changes: Change) -> None:
        """Claim that the step of these *changes* is applied."""
        await self.does(self.step(*changes))

    async def refuses(self, which: str, *changes: Change) -> None:
        """Claim that the step of these *changes* is refused."""
        answer = await self.apply(*changes)
        _claim(isinstance(answer, Refused | Absent), f"a step {which} was answered {answer}")

    async def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until something has been shown."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not happened():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            message = f"{what} was not shown within {PATIENCE_S:g} s"
            raise AssertionError(message) from None

    def _take(self, observation: Observation) -> None:
        match observation:
            case Listed(deployments):
                self.shown = {one.id: one for one in deployments}
                self.history += [pool for one in deployments for pool in one.pools]
            case Seen(deployment):
                self.shown[deployment.id] = deployment
                self.history += deployment.pools
            case Gone(participant):
                self.shown.pop(participant, None)
            case Stale():
                pass
            case _:
                assert_never(observation)


@asynccontextmanager
async def _watched(maker: Maker) -> AsyncIterator[_Watch]:
    """Open a world and follow it until the check is over."""
    async with maker() as world:
        watch = _Watch(world)
        following = asyncio.create_task(watch.follow())
        try:
            yield watch
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _observations(world: World) -> AsyncGenerator[Observation, None]:
    """Yield what is shown, and end the observation together with this generator."""
    observing = world.observer.observe()
    try:
        async for observation in observing:
            yield observation
    finally:
        if isinstance(observing, AsyncGenerator):
            await observing.aclose()


def _beside(key: PoolKey) -> PoolKey:
    return PoolKey(key.participant, Role.DECODE)


def _claim(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - a claim is what it is about
    if not holds:
        raise AssertionError(otherwise)

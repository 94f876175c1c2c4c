import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gpadapters import daemon
from gpadapters.daemon import Clock, Planner
from gpcore.budgets import Budget
from gpcore.control import Rules, Transition
from gpcore.decisions import Approved, Busy, NotReady, Rejected, ViewStale
from gpcore.events import Event, Failed, Listed, Stale, StepApplied, Submitted, Succeeded
from gpcore.intents import Intents
from gpcore.operations import MAX_WAITERS
from gpcore.plans import Step
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.ports import Applying, Observation, Planning, Readiness, Submission, TurnedAway
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.testing.fakes import Fault, MemoryCluster

A, B = ParticipantId("ns", "a"), ParticipantId("ns", "b")


def deployment(participant: ParticipantId, replicas: int) -> Deployment:
    key = PoolKey(participant, Role.PREFILL)
    return Deployment(participant, (Pool(key, replicas, 1, present=replicas, ready=replicas),))


def to(replicas: int, participant: ParticipantId = A, *, blocking: bool = False) -> ScaleRequest:
    return ScaleRequest(Claimed("me"), participant, (Target(Role.PREFILL, replicas),), blocking=blocking)


def cluster(**lags: Any) -> MemoryCluster:  # noqa: ANN401 - as the cluster takes them
    return MemoryCluster([deployment(A, 4), deployment(B, 4)], **lags)


def planner(on: Any, *, executor: Any = None, rules: Rules | None = None, **more: Any) -> Planner:  # noqa: ANN401
    counter = itertools.count(1)
    bounds = rules or Rules(budget=Budget(0, 10))
    return Planner(bounds, on, executor or on, ids=lambda: f"d-{next(counter)}", **more)


def submitted(taken: Submission | TurnedAway) -> Submission:
    assert isinstance(taken, Submission)
    return taken


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - what is waited for is not an event of asyncio's
            await asyncio.sleep(0.001)


class Held:
    """An executor that writes when it is let."""

    def __init__(self, on: MemoryCluster) -> None:
        self.on = on
        self.may = asyncio.Event()

    async def apply(self, step: Step) -> Applying:
        await self.may.wait()
        return await self.on.apply(step)


async def test_a_request_is_decided_written_and_answered() -> None:
    on = cluster()
    brain: Planning = planner(on)
    assert isinstance(brain, Planner)
    async with brain.running():
        await until(lambda: brain.state.ready)
        taken = submitted(brain.submit(to(6)))
        record, operation = brain.decision(taken.id), brain.operation(taken.id)
        assert record is not None
        assert operation is not None
        assert (record.operation, operation.status) == (taken.id, "scaling")
        assert isinstance(await taken.outcome, Succeeded)
        ended = brain.operation(taken.id)
        assert ended is not None
        assert (ended.status, ended.began_at <= (ended.ended_at or 0)) == ("success", True)
        assert on.deployments[0].pools[0].replicas == 6


async def test_nothing_is_decided_before_the_cluster_was_read() -> None:
    brain = planner(cluster())
    assert await submitted(brain.submit(to(6))).outcome == Rejected(NotReady())
    assert brain.preview(to(6)) == Rejected(NotReady())


async def test_a_preview_changes_nothing_and_leaves_no_record() -> None:
    brain = planner(cluster())
    async with brain.running():
        await until(lambda: brain.state.ready)
        before = brain.state
        assert isinstance(brain.preview(to(6)), Approved)
        assert brain.state is before
        assert brain.decisions() == ()


async def test_an_operation_survives_the_caller() -> None:
    on = cluster()
    executor = Held(on)
    brain = planner(on, executor=executor)
    async with brain.running():
        await until(lambda: brain.state.ready)
        taken = submitted(brain.submit(to(6)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.ensure_future(taken.outcome), 0.01)
        executor.may.set()
        await until(lambda: not brain.state.operations)
        found = brain.operation(taken.id)
        assert found is not None
        assert found.status == "success"


async def test_another_wish_for_a_pool_that_is_being_changed_is_refused_and_the_same_one_shares_the_operation() -> None:
    on = cluster()
    executor = Held(on)
    brain = planner(on, executor=executor)
    async with brain.running():
        await until(lambda: brain.state.ready)
        first, same, other = (submitted(brain.submit(to(n))) for n in (6, 6, 5))
        refused = await other.outcome
        assert isinstance(refused, Rejected)
        assert refused.reason == Busy(PoolKey(A, Role.PREFILL), first.id)
        executor.may.set()
        assert await first.outcome == await same.outcome
        joined = brain.decision(same.id)
        assert joined is not None
        assert joined.operation == first.id
        assert [record.id for record in brain.decisions()] == [other.id, same.id, first.id]


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
async def test_a_step_of_unknown_outcome_is_asked_for_again(fault: Fault) -> None:
    on = cluster()
    ticks = asyncio.Event()

    async def sleep(_: float) -> None:
        await ticks.wait()
        await asyncio.sleep(0.001)

    brain = planner(on, clock=Clock(sleep=sleep))
    async with brain.running():
        await until(lambda: brain.state.ready)
        on.fail_next(fault)
        taken = submitted(brain.submit(to(6)))
        ticks.set()
        assert isinstance(await taken.outcome, Succeeded)
        assert on.deployments[0].pools[0].replicas == 6


async def test_a_step_that_the_cluster_refuses_ends_the_operation() -> None:
    on = cluster()
    brain = planner(on)
    async with brain.running():
        await until(lambda: brain.state.ready)
        on.fail_next(Fault.REFUSED)
        assert isinstance(await submitted(brain.submit(to(6))).outcome, Failed)
        assert brain.state.snapshot is not None
        assert brain.state.snapshot.totals.charged == 8


async def test_an_executor_that_raises_may_have_written_anything(caplog: pytest.LogCaptureFixture) -> None:
    class Raising:
        async def apply(self, step: Step) -> Applying:
            raise OSError(step.gpus)

    brain = planner(cluster(), executor=Raising())
    async with brain.running():
        await until(lambda: brain.state.ready)
        brain.submit(to(6))
        await until(lambda: any(operation.unsure for operation in brain.state.operations.values()))
    assert "a step failed" in caplog.text


async def test_observing_begins_anew_after_a_failure_and_nothing_grows_in_between() -> None:
    on = cluster()
    pauses: list[float] = []

    class Flaky:
        def __init__(self) -> None:
            self.begun = 0
            self.broken = asyncio.Event()

        async def observe(self) -> AsyncIterator[Observation]:
            self.begun += 1
            if self.begun == 3:
                return
            async for observation in on.observe():
                yield observation
                if self.begun < 3:
                    await self.broken.wait()
                    raise OSError

    gate = asyncio.Event()

    async def sleep(pause_s: float) -> None:
        if pause_s != daemon.TICK_S:
            pauses.append(pause_s)
            await gate.wait()
        await asyncio.sleep(0.001)

    flaky = Flaky()
    brain = planner(flaky, executor=on, clock=Clock(sleep=sleep))
    async with brain.running():
        await until(lambda: brain.state.ready)
        flaky.broken.set()
        await until(lambda: brain.state.stale)
        assert await submitted(brain.submit(to(6))).outcome == Rejected(ViewStale())
        gate.set()
        await until(lambda: flaky.begun == 4 and brain.state.ready)
    assert pauses == [0.25, 0.25, 0.5]


async def test_the_replicas_of_a_change_are_waited_for() -> None:
    timers: list[Callable[[], None]] = []
    on = cluster(acquire_lag_s=1, later=lambda _, call: timers.append(call))
    brain = planner(on)
    async with brain.running():
        await until(lambda: brain.state.ready)
        outcome = await submitted(brain.submit(to(6))).outcome
        assert isinstance(outcome, Succeeded)
        waiting = asyncio.create_task(brain.readiness(to(6)))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        timers.pop()()
        assert await waiting is Readiness.SERVING
        assert await brain.readiness(to(6)) is Readiness.SERVING
        await submitted(brain.submit(to(5))).outcome
        assert await brain.readiness(to(6)) is Readiness.OVERTAKEN
        on.delete(A)
        await until(lambda: (brain.state.snapshot or Snapshot()).deployment(A) is None)
        assert await brain.readiness(to(6)) is Readiness.OVERTAKEN


async def test_one_more_request_than_may_wait_is_turned_away() -> None:
    on = cluster()
    brain = planner(on, executor=Held(on))
    async with brain.running(grace_s=0.01):
        await until(lambda: brain.state.ready)
        taken = [brain.submit(to(6, A) if n % 2 else to(3, B)) for n in range(daemon.MAX_PENDING + 1)]
        assert taken[-1] == TurnedAway("overloaded")
        assert all(isinstance(one, Submission) for one in taken[:-1])
        for one in taken[:-1]:
            asyncio.ensure_future(submitted(one).outcome).cancel()
        await asyncio.sleep(0)
        assert isinstance(brain.submit(to(6)), Submission), "who has given up waits no more"


async def test_whoever_asks_again_and_again_for_what_is_slow_is_busy_in_the_end_and_alone_in_that() -> None:
    on = cluster()
    brain = planner(on, executor=Held(on))
    async with brain.running(grace_s=0.01):
        await until(lambda: brain.state.ready)
        for _ in range(MAX_WAITERS):
            asyncio.ensure_future(submitted(brain.submit(to(6))).outcome).cancel()
        await asyncio.sleep(0)
        refused = await submitted(brain.submit(to(6))).outcome
        assert isinstance(refused, Rejected)
        assert isinstance(refused.reason, Busy)
        other = submitted(brain.submit(to(3, B)))
        assert other.id in brain.state.operations


async def test_of_many_decisions_and_operations_the_newest_are_remembered() -> None:
    brain = planner(cluster())
    async with brain.running():
        await until(lambda: brain.state.ready)
        for n in range(daemon.REMEMBERED + 5):
            await submitted(brain.submit(to(5 + n % 2))).outcome
        decisions = brain.decisions()
        assert len(decisions) == daemon.REMEMBERED
        assert (decisions[0].id, decisions[-1].id) == ("d-1005", "d-6")
        assert brain.operation("d-5") is None
        assert brain.operation("d-6") is not None


async def test_a_stop_lets_what_is_sent_land_and_takes_nothing_new() -> None:
    on = cluster()
    executor = Held(on)
    brain = planner(on, executor=executor)
    async with brain.running():
        await until(lambda: brain.state.ready)
        taken = submitted(brain.submit(to(6)))
        asyncio.get_running_loop().call_later(0.01, executor.may.set)
    assert isinstance(await taken.outcome, Succeeded)
    assert brain.submit(to(7)) == TurnedAway("stopping")


async def test_a_stop_leaves_what_does_not_end_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    on = cluster(release_lag_s=float("inf"), acquire_lag_s=float("inf"))
    brain = planner(on, executor=Held(on))
    async with brain.running(grace_s=0.01):
        await until(lambda: brain.state.ready)
        taken = submitted(brain.submit(to(6)))
        on.put(Deployment(B, (Pool(PoolKey(B, Role.PREFILL), 4, 1, present=9, ready=1),)))
        await until(lambda: (brain.state.snapshot or Snapshot()).totals.charged > 10)
        waiting = asyncio.create_task(brain.readiness(to(4, B)))
        await asyncio.sleep(0)
    record = brain.operation(taken.id)
    assert record is not None
    assert await taken.outcome == Failed("the planner stopped before the end", unsure=record.plan.steps)
    assert record.status == "error"
    assert await waiting is Readiness.UNKNOWN
    assert await brain.readiness(to(4, B)) is Readiness.UNKNOWN
    assert "perhaps applied: ns/a/prefill 4 to 6; not begun: nothing" in caplog.text


async def test_a_stop_in_the_middle_of_a_transfer_says_what_was_applied(caplog: pytest.LogCaptureFixture) -> None:
    on = cluster(release_lag_s=float("inf"))
    brain = planner(on, rules=Rules(budget=Budget(8, 8)))
    async with brain.running(grace_s=0.01):
        await until(lambda: brain.state.ready)
        await submitted(brain.submit(to(2, B))).outcome
        taken = submitted(brain.submit(to(6)))
        await until(lambda: on.deployments[1].pools[0].replicas == 2)
        await asyncio.sleep(0.01)
    outcome = await taken.outcome
    assert isinstance(outcome, Failed)
    assert ([change.pool.participant for step in outcome.done for change in step.changes], outcome.unsure) == ([B], ())
    assert "applied before: ns/b/prefill 4 to 2; not begun: ns/a/prefill 4 to 6" in caplog.text
    assert [record.levelname for record in caplog.records if "stopped before" in record.message] == ["WARNING"]


async def test_listeners_hear_everything_in_order_and_their_failures_hurt_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[type[Event]] = []

    def deaf(_: Event, transition: Transition) -> None:
        raise OSError(len(transition.effects))

    brain = planner(cluster(), listeners=[deaf, lambda event, _: heard.append(type(event))])
    async with brain.running():
        await until(lambda: brain.state.ready)
        await submitted(brain.submit(to(6))).outcome
    assert heard[0] is Listed
    assert heard.index(Submitted) < heard.index(StepApplied)
    assert "a listener failed" in caplog.text


async def test_a_policy_that_raises_is_answered_with_an_error_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Approved:
        raise ZeroDivisionError(request, snapshot, intents, budget)

    caplog.set_level(logging.ERROR)
    brain = planner(cluster(), rules=Rules(policy=broken))
    async with brain.running():
        await until(lambda: brain.state.ready)
        before = brain.state
        assert await submitted(brain.submit(to(6))).outcome == Failed("an internal error; see the log")
        assert brain.state is before
    assert "an event was dropped" in caplog.text


async def test_an_event_that_causes_another_is_heard_of_first() -> None:
    on = cluster()
    order: list[str] = []

    def relisting(event: Event, _: Transition) -> None:
        if isinstance(event, Stale):
            brain.dispatch(Listed(on.deployments))
        order.append(type(event).__name__)

    brain = planner(on, listeners=[relisting])
    brain.dispatch(Stale())
    assert not order, "whoever listens hears of it when it is under way"
    await until(lambda: len(order) == 2)
    assert order == ["Stale", "Listed"]


def test_ids_are_short_and_new_each_time() -> None:
    ids = {daemon.mint() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(one) for one in ids} == {14}

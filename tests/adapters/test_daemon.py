import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gpadapters import daemon
from gpadapters.daemon import Clock, Planner, World
from gpcore.budgets import Budget
from gpcore.control import Rules, Transition
from gpcore.decisions import Approved, Busy, LedgerDown, NotLeading, NotReady, Rejected, ViewStale
from gpcore.errors import PortError
from gpcore.events import (
    Event,
    Failed,
    HandedOver,
    LeaseChanged,
    Listed,
    Mark,
    Stale,
    StepApplied,
    Submitted,
    Succeeded,
)
from gpcore.intents import Intents
from gpcore.ledger import Ended, Ledger
from gpcore.plans import Step
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.ports import Applying, Auditor, Observation, Planning, Readiness, Saving, Submission, TurnedAway, Versioned
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.states import MAX_WAITERS
from gpcore.testing.fakes import Fault, MemoryCluster
from gpcore.testing.stores import MemoryLedger

A, B = ParticipantId("ns", "a"), ParticipantId("ns", "b")


def deployment(participant: ParticipantId, replicas: int) -> Deployment:
    key = PoolKey(participant, Role.PREFILL)
    return Deployment(participant, (Pool(key, replicas, 1, present=replicas, ready=replicas),))


def to(replicas: int, participant: ParticipantId = A, *, blocking: bool = False) -> ScaleRequest:
    return ScaleRequest(Claimed("me"), participant, (Target(Role.PREFILL, replicas),), blocking=blocking)


def cluster(**lags: Any) -> MemoryCluster:  # noqa: ANN401 - as the cluster takes them
    return MemoryCluster([deployment(A, 4), deployment(B, 4)], **lags)


def planner(
    on: Any,  # noqa: ANN401 - any observer, and an executor where none is given
    *,
    executor: Any = None,  # noqa: ANN401
    ledger: Any = None,  # noqa: ANN401
    auditors: tuple[Auditor, ...] = (),
    rules: Rules | None = None,
    name: str = "d",
    **more: Any,  # noqa: ANN401
) -> Planner:
    counter = itertools.count(1)
    bounds = rules or Rules(budget=Budget(0, 10))
    world = World(on, executor or on, ledger or MemoryLedger(), auditors)
    return Planner(bounds, world, ids=lambda: f"{name}-{next(counter)}", **more)


def submitted(taken: Submission | TurnedAway) -> Submission:
    assert isinstance(taken, Submission)
    return taken


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - what is waited for is not an event of asyncio's
            await asyncio.sleep(0.001)


class Held:
    """An executor that writes when it is let, and marks at once."""

    def __init__(self, on: MemoryCluster) -> None:
        self.on = on
        self.may = asyncio.Event()

    async def apply(self, step: Step) -> Applying:
        await self.may.wait()
        return await self.on.apply(step)

    async def mark(self, mark: Mark) -> Applying:
        return await self.on.mark(mark)


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
    class Raising(MemoryCluster):
        async def apply(self, step: Step) -> Applying:
            raise OSError(step.gpus)

    on = Raising([deployment(A, 4), deployment(B, 4)])
    brain = planner(on)
    async with brain.running():
        await until(lambda: brain.state.ready)
        brain.submit(to(6))
        await until(lambda: any(drive.unsure for drive in brain.state.drives.values()))
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
                if self.begun < 3 and self.broken.is_set():
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
        on.relist()
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


async def test_a_stop_leaves_what_does_not_end_to_the_next_planner_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
    assert await taken.outcome == HandedOver(taken.id)
    assert record.status == "scaling"
    assert await waiting is Readiness.UNKNOWN
    assert await brain.readiness(to(4, B)) is Readiness.UNKNOWN
    assert f"operation {taken.id} is left to the next planner; not begun: nothing" in caplog.text


async def test_a_transfer_that_a_stop_leaves_in_the_middle_is_finished_by_the_next_planner(
    caplog: pytest.LogCaptureFixture,
) -> None:
    timers: list[Callable[[], None]] = []
    on, ledger = cluster(release_lag_s=1, later=lambda _, call: timers.append(call)), MemoryLedger()
    first = planner(on, ledger=ledger, rules=Rules(budget=Budget(8, 8)))
    async with first.running(grace_s=0.01):
        await until(lambda: first.state.ready)
        await submitted(first.submit(to(2, B))).outcome
        taken = submitted(first.submit(to(6)))
        await until(lambda: on.deployments[1].pools[0].replicas == 2)
        await asyncio.sleep(0.01)
    assert await taken.outcome == HandedOver(taken.id)
    assert "not begun: ns/a/prefill 4 to 6" in caplog.text
    assert [record.levelname for record in caplog.records if "next planner" in record.message] == ["WARNING"]
    second = planner(on, ledger=ledger, rules=Rules(budget=Budget(8, 8)))
    async with second.running():
        await until(lambda: second.state.ready)
        assert taken.id in second.state.operations
        for fire in timers:
            fire()
        await until(lambda: not second.state.operations)
        assert [one.pools[0].replicas for one in on.deployments] == [6, 2]


async def test_what_is_written_is_in_the_ledger_before() -> None:
    on, ledger = cluster(), MemoryLedger()
    found: list[set[str]] = []

    class Looking(Held):
        async def apply(self, step: Step) -> Applying:
            stored = await ledger.load()
            found.append(set() if stored is None else set(stored.ledger.operations))
            return await super().apply(step)

    executor = Looking(on)
    executor.may.set()
    brain = planner(on, executor=executor, ledger=ledger)
    async with brain.running():
        await until(lambda: brain.state.ready)
        taken = submitted(brain.submit(to(6)))
        assert isinstance(await taken.outcome, Succeeded)
    assert found == [{taken.id}]


async def test_many_requests_share_a_save() -> None:
    on, saves = cluster(), 0

    class Counting(MemoryLedger):
        async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
            nonlocal saves
            saves += 1
            await asyncio.sleep(0.01)
            return await super().save(ledger, expected=expected)

    everybody = [deployment(ParticipantId("ns", f"d{n}"), 1) for n in range(20)]
    on = MemoryCluster(everybody)
    brain = planner(on, ledger=Counting(), rules=Rules(budget=Budget(0, 100)))
    async with brain.running():
        await until(lambda: brain.state.ready)
        before = saves
        taken = [submitted(brain.submit(to(2, one.id))) for one in everybody]
        await asyncio.gather(*(one.outcome for one in taken))
        assert saves - before <= 3


async def test_a_ledger_that_refuses_lets_nothing_be_promised(caplog: pytest.LogCaptureFixture) -> None:
    on, ledger = cluster(), MemoryLedger()
    brain = planner(on, ledger=ledger)
    async with brain.running():
        await until(lambda: brain.state.ready)
        ledger.fail_next(Fault.REFUSED)
        refused = await submitted(brain.submit(to(6))).outcome
        assert isinstance(refused, Rejected)
        assert isinstance(refused.reason, LedgerDown)
        assert on.deployments[0].pools[0].replicas == 4
        await until(lambda: not brain.state.fault)
        assert isinstance(await submitted(brain.submit(to(6))).outcome, Succeeded)
    assert "the ledger was refused" in caplog.text


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
async def test_a_save_whose_answer_is_lost_is_found_out_about(fault: Fault) -> None:
    on, ledger = cluster(), MemoryLedger()
    brain = planner(on, ledger=ledger)
    async with brain.running():
        await until(lambda: brain.state.ready)
        ledger.fail_next(fault)
        assert isinstance(await submitted(brain.submit(to(6))).outcome, Succeeded)
        assert on.deployments[0].pools[0].replicas == 6


@pytest.mark.parametrize("failure", [PortError("no right to read it"), OSError("it is broken")])
async def test_a_ledger_that_cannot_be_read_is_asked_for_again(failure: Exception) -> None:
    class Unreadable(MemoryLedger):
        broken = True

        async def load(self) -> Versioned | None:
            if self.broken:
                raise failure
            return await super().load()

    ledger = Unreadable()

    async def sleep(_: float) -> None:
        await asyncio.sleep(0.001)

    brain = planner(cluster(), ledger=ledger, clock=Clock(sleep=sleep))
    async with brain.running():
        await until(lambda: str(failure) in brain.state.fault and brain.state.snapshot is not None)
        refused = await submitted(brain.submit(to(6))).outcome
        assert isinstance(refused, Rejected)
        assert isinstance(refused.reason, LedgerDown)
        ledger.broken = False
        await until(lambda: brain.state.ready)
        assert isinstance(await submitted(brain.submit(to(6))).outcome, Succeeded)


async def test_a_store_that_raises_may_have_stored_anything(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(MemoryLedger):
        broken = False

        async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
            answer = await super().save(ledger, expected=expected)
            if self.broken:
                self.broken = False
                raise OSError(expected)
            return answer

    ledger = Raising()
    brain = planner(cluster(), ledger=ledger)
    async with brain.running():
        await until(lambda: brain.state.ready)
        ledger.broken = True
        assert isinstance(await submitted(brain.submit(to(6))).outcome, Succeeded)
    assert "the ledger was not saved" in caplog.text


async def test_a_mark_that_raises_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(MemoryCluster):
        broken = True

        async def mark(self, mark: Mark) -> Applying:
            if self.broken:
                self.broken = False
                raise OSError(str(mark.key))
            return await super().mark(mark)

    async def sleep(_: float) -> None:
        await asyncio.sleep(0.001)

    brain = planner(Raising([deployment(A, 4)]), clock=Clock(sleep=sleep))
    async with brain.running():
        await until(lambda: brain.state.ready)
    assert "a mark failed" in caplog.text


async def test_a_planner_that_is_elected_follows_until_it_is_told_to_lead() -> None:
    on, ledger = cluster(), MemoryLedger()
    leader = planner(on, ledger=ledger)
    follower = planner(on, ledger=ledger, elected=True)
    async with leader.running(), follower.running():
        await until(lambda: leader.state.ready)
        follower.dispatch(LeaseChanged(leading=False, leader="http://leader"))
        refused = await submitted(follower.submit(to(6))).outcome
        assert refused in (Rejected(NotLeading("http://leader")), Rejected(NotReady()))
        leader.dispatch(LeaseChanged(leading=False, leader="http://follower"))
        follower.dispatch(LeaseChanged(leading=True))
        await until(lambda: follower.state.ready and follower.state.ledger.epoch == 2)
        assert isinstance(await submitted(follower.submit(to(6))).outcome, Succeeded)


async def test_two_planners_that_both_think_that_they_lead_never_stand_above_the_ceiling() -> None:
    on, ledger = cluster(), MemoryLedger()
    both = [planner(on, ledger=ledger, elected=True, name=name) for name in "de"]
    async with both[0].running(), both[1].running():
        for one in both:
            one.dispatch(LeaseChanged(leading=True, exclusive=False))
        await until(lambda: all(one.state.ready for one in both))
        taken = [submitted(one.submit(to(6, who))) for one, who in zip(both, (A, B), strict=True)]
        outcomes = [await one.outcome for one in taken]
        assert sorted(type(one).__name__ for one in outcomes) == ["Rejected", "Succeeded"]
        assert sum(one.pools[0].replicas for one in on.deployments) == 10


async def test_how_an_operation_ended_is_handed_on_and_again_where_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = MemoryLedger()
    heard: list[str] = []

    class Listening:
        broken = True

        async def tell(self, ended: Ended) -> None:
            heard.append(ended.id)
            if self.broken:
                self.broken = False
                raise PortError("full")

    async def sleep(_: float) -> None:
        await asyncio.sleep(0.001)

    brain = planner(cluster(), ledger=ledger, auditors=(Listening(),), clock=Clock(sleep=sleep))
    async with brain.running():
        await until(lambda: brain.state.ready)
        for count in (5, 6):
            await submitted(brain.submit(to(count))).outcome
        await until(lambda: sorted(heard) == ["d-1", "d-1", "d-2"])
    assert "the end of an operation was not handed on" in caplog.text
    stored = await ledger.load()
    assert stored is not None
    assert [one.id for one in stored.ledger.ended] == ["d-1", "d-2"]


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
    assert heard[0] is LeaseChanged
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

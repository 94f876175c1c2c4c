from itertools import accumulate

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpcore.fences import Fence
from gpcore.plans import Change, Plan, Step
from gpcore.pools import Authority, Pool, Snapshot
from gpcore.testing.strategies import snapshots
from tests.core.words import key, pool


@st.composite
def changes(draw: st.DrawFn, snapshot: Snapshot) -> tuple[Change, ...]:
    every = sorted(snapshot.pools(), key=lambda one: one.key.order)
    return tuple(Change.of(one, draw(st.integers(0, 9))) for one in every)


@given(data=st.data())
def test_no_prefix_of_a_plan_stands_above_both_its_ends(data: st.DataObject) -> None:
    plan = Plan.of(data.draw(changes(data.draw(snapshots()))))
    charged = (sum(change.charged for change in step.changes) for step in plan.steps)
    totals = list(accumulate(charged, initial=0))
    assert max(totals) <= max(totals[0], totals[-1])


@given(data=st.data())
def test_a_plan_does_every_change_once_and_one_object_at_a_time(data: st.DataObject) -> None:
    asked = data.draw(changes(data.draw(snapshots())))
    plan = Plan.of(asked)
    assert sorted(plan.changes, key=lambda one: one.pool.order) == sorted(asked, key=lambda one: one.pool.order)
    assert plan.afters == {one.pool: one.after for one in asked}
    objects = [(step.changes[0].pool.participant, step.authority) for step in plan.steps]
    assert len(set(objects)) == len(objects)
    for step in plan.steps:
        assert {(one.pool.participant, one.authority) for one in step.changes} == {
            (step.changes[0].pool.participant, step.authority)
        }


@given(data=st.data())
def test_releases_come_before_acquisitions(data: st.DataObject) -> None:
    plan = Plan.of(data.draw(changes(data.draw(snapshots()))))
    acquires = [step.acquires for step in plan.steps]
    assert acquires == sorted(acquires)


def test_a_change_begins_at_the_pool_that_it_was_made_of_and_at_no_other() -> None:
    one = pool("a/prefill 4x2")
    change = Change.of(one, 2)
    assert change.begins_at(one)
    assert change.releases
    assert change.gpus == -4
    others: list[Pool] = [
        one.reserving(3),
        attrs.evolve(one, replicas=3),
        attrs.evolve(one, gpus_per_replica=1),
        attrs.evolve(one, authority=Authority("a", "another")),
    ]
    assert not any(change.begins_at(other) for other in others)


def test_what_needs_no_gpus_waits_for_releases_unless_it_is_one() -> None:
    up, down = Change(key("a/prefill"), 1, 2, 0), Change(key("a/prefill"), 2, 1, None)
    assert Step((up,)).acquires
    assert not Step((down,)).acquires
    assert down.gpus == 0


def test_a_step_needs_no_fence_until_it_is_written_and_names_its_deployment() -> None:
    (step,) = Plan.of([Change.of(pool("a/prefill 4x2"), 2)]).steps
    assert step.fence is None
    assert step.participant == key("a/prefill").participant
    assert attrs.evolve(step, fence=Fence("o", "n", "k")) != step


def test_nothing_to_do_is_a_plan() -> None:
    assert Plan.of(()) == Plan()
    assert Plan().changes == ()


def test_a_step_that_takes_and_gives_has_two_parts_and_any_other_is_its_own() -> None:
    down, up = Change(key("a/prefill"), 4, 2, 1), Change(key("a/decode"), 2, 4, 1)
    assert Step((up, down)).parts == (Step((down,)), Step((up,)))
    for changes in ((down,), (up,)):
        assert Step(changes).parts == (Step(changes),)

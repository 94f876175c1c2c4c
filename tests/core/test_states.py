import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.control import Rules, State
from gpcore.events import Gone
from gpcore.ledger import Entry, Ledger, held, object_of
from gpcore.pools import Authority, Deployment, ParticipantId, Snapshot
from gpcore.states import Book, Drive, as_recorded, carried, objects_of, recarried
from gpcore.testing.settled import FENCE, fenced, settled_state
from gpcore.testing.strategies import snapshots
from tests.core.driving import Planner
from tests.core.words import fleet, key, pool

A = ParticipantId("ns", "a")


@given(snapshot=snapshots(settled=True))
def test_what_is_just_as_the_ledger_has_it_is_promised_to_nobody(snapshot: Snapshot) -> None:
    state = settled_state(Rules(), snapshot)
    for deployment in state.view.deployments():
        assert carried(state, deployment) is deployment
    assert recarried(state, [one.id for one in snapshot.deployments()]) is state


@given(snapshot=snapshots(settled=True), more=st.integers(1, 3))
def test_what_is_not_as_the_ledger_has_it_counts_for_the_more_of_both(snapshot: Snapshot, more: int) -> None:
    state = settled_state(Rules(), snapshot)
    for deployment in state.view.deployments():
        raised = [attrs.evolve(one, replicas=one.replicas + more) for one in deployment.pools]
        shown = carried(state, attrs.evolve(deployment, pools=tuple(raised)))
        for one in shown.pools:
            assert one.reserved == one.replicas - more
            assert one.most >= one.replicas > one.replicas - more >= one.least


def test_what_the_ledger_does_not_have_is_promised_as_it_is() -> None:
    state = settled_state(Rules(), fleet("a/prefill 4x1"))
    (strange,) = fleet("b/prefill 3x1").deployments()
    assert carried(state, strange).pools[0].reserved == 3
    (foreign,) = fleet("a/prefill 4x1").deployments()
    claimed = attrs.evolve(foreign, pools=(attrs.evolve(foreign.pools[0], fence=None),))
    assert carried(state, claimed).pools[0].reserved == 4
    assert objects_of(claimed) == {}


def test_a_planner_without_a_ledger_promises_nothing_to_anybody() -> None:
    (shown,) = fleet("a/prefill 4x1").deployments()
    assert carried(State(), shown) is shown
    assert (State().ledger, State().operations, State().view) == (Ledger(), {}, Snapshot())
    assert State().drafting(Ledger(epoch=4)) == State()


def test_pools_of_one_object_go_together() -> None:
    one, other = pool("a/prefill 4x1"), pool("a/decode 2x1")
    apart = attrs.evolve(other, authority=Authority("adapter", "uid"))
    together = Deployment(A, (one, other))
    assert objects_of(together) == {object_of(one): [one, other]}
    assert objects_of(Deployment(A, (one, apart))) == {object_of(one): [one], object_of(apart): [apart]}


def test_a_pool_is_as_recorded_in_every_respect_or_not_at_all() -> None:
    one = attrs.evolve(pool("a/prefill 4x2"), fence=FENCE)
    entry = Entry(object_of(one), FENCE, held([one]))
    assert as_recorded(entry, one)
    assert not as_recorded(None, one)
    others = (
        attrs.evolve(one, replicas=3),
        attrs.evolve(one, gpus_per_replica=1),
        attrs.evolve(one, fence="another"),
        attrs.evolve(one, fence=None),
    )
    assert not any(as_recorded(entry, other) for other in others)


def test_a_pool_that_an_operation_has_is_promised_what_it_will_make_of_it() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 3", name="0")
    planner.ask("a/prefill 5")
    assert {one.key: one.reserved for one in planner.snapshot.pools()} == {key("a/prefill"): 5, key("b/prefill"): 3}
    assert planner.snapshot.totals == Snapshot.of(planner.snapshot.deployments()).totals


def test_what_is_gone_needs_no_carrying() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(Gone(A))
    assert recarried(planner.state, [A]) is planner.state


def test_what_is_under_way_of_a_step_is_known_until_it_is_answered() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    _, step = planner.order()
    for drive in (Drive(0.0, sent=(step,)), Drive(0.0, unsure=(step,)), Drive(0.0, killing=(step,))):
        assert drive.begun == (step,)
        assert drive.without(step) == Drive(0.0)


def test_a_draft_is_urgent_until_it_is_stored() -> None:
    state = settled_state(Rules(), fleet("a/prefill 4x1"))
    assert state.drafting(state.ledger, urgent=True) is state
    drafted = state.drafting(attrs.evolve(state.ledger, epoch=7), urgent=True)
    again = drafted.drafting(attrs.evolve(state.ledger, epoch=8))
    assert again.book is not None
    assert (again.book.urgent, again.ledger.epoch, again.book.stored) == (True, 8, state.ledger)


def test_a_follower_is_ready_with_a_view_and_a_leader_when_the_ledger_is_complete_and_its_own() -> None:
    state = settled_state(Rules(budget=Budget(0, 9)), fleet("a/prefill 4x1"))
    assert state.ready
    assert not state.but(stale=True).ready
    assert not state.but(snapshot=None).ready
    assert not state.but(epoch=-1).ready
    assert state.but(leading=False, epoch=-1).ready
    incomplete = attrs.evolve(state.ledger, complete=False)
    assert not state.but(book=Book(incomplete, "1", incomplete)).ready


def test_what_tests_begin_with_is_marked_and_promised_to_nobody() -> None:
    (before,) = fleet("a/prefill 4x1").deployments()
    marked = fenced(before.with_pool(before.pools[0].reserving(9)))
    assert [(one.fence, one.reserved) for one in marked.pools] == [(FENCE, None)]

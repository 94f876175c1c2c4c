"""What holds a planner back: one sentence each, told while it is so and not longer."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.conditions import Condition, conditions
from gpcore.control import Rules, State
from gpcore.events import LeaseChanged, LedgerLoaded, LedgerUnread, Stale
from gpcore.ledger import believed, held
from gpcore.pools import Deployment, ParticipantId, Snapshot
from gpcore.states import FULL_BYTES, Book
from gpcore.testing.settled import settled_state
from gpcore.testing.strategies import snapshots
from tests.core.driving import Planner, object_key
from tests.core.words import key, pool

KINDS = (
    "not_read",
    "view_stale",
    "ledger_down",
    "bootstrapping",
    "ledger_full",
    "over_committed",
    "shape_unknown",
    "unsettled",
    "frozen",
)


def kinds(state: State) -> list[str]:
    return [one.kind for one in conditions(state)]


def booked(state: State) -> Book:
    assert state.book is not None
    return state.book


# laws -----------------------------------------------------------------------------------------------------------------


@given(
    snapshot=snapshots(),
    ceiling=st.none() | st.integers(0, 40),
    read=st.booleans(),
    stale=st.booleans(),
    fault=st.sampled_from(("", "no answer")),
    leading=st.booleans(),
    complete=st.booleans(),
    size=st.sampled_from((0, FULL_BYTES)),
)
def test_each_condition_is_told_once_the_gravest_first_and_just_while_it_is_so(
    snapshot: Snapshot,
    ceiling: int | None,
    *,
    read: bool,
    stale: bool,
    fault: str,
    leading: bool,
    complete: bool,
    size: int,
) -> None:
    state = settled_state(Rules(budget=Budget(0, ceiling)), snapshot).but(stale=stale, fault=fault, leading=leading)
    draft = attrs.evolve(state.ledger, complete=complete)
    state = state.but(book=attrs.evolve(booked(state), draft=draft, size=size))
    state = state if read else state.but(snapshot=None)
    unknown = any(not one.shape_known for one in snapshot.deployments())
    is_so = {
        "not_read": not read,
        "view_stale": read and stale,
        "ledger_down": leading and bool(fault),
        "bootstrapping": leading and not fault and not complete,
        "ledger_full": size == FULL_BYTES,
        "over_committed": ceiling is not None and draft.totals.charged > ceiling,
        "shape_unknown": read and unknown and ceiling is not None,
    }
    assert kinds(state) == [kind for kind in KINDS if is_so.get(kind)]
    assert all(one.detail and one.detail.isprintable() for one in conditions(state))


# examples -------------------------------------------------------------------------------------------------------------


def test_nothing_holds_back_a_planner_that_may_do_all_that_fits() -> None:
    assert conditions(Planner("a/prefill 4x1", ceiling=4).state) == ()


def test_a_planner_that_has_just_begun_says_what_it_has_not_read() -> None:
    assert kinds(State()) == ["not_read"]
    assert conditions(State(leading=True)) == (
        Condition("not_read", "the cluster was not read yet, so every request is refused"),
        Condition("ledger_down", "nothing can be promised without the ledger: it has not been read yet"),
    )


def test_a_view_that_is_stale_is_told_until_all_is_listed() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(Stale())
    assert conditions(planner.state) == (
        Condition("view_stale", "the cluster is not being followed, so nothing may grow"),
    )
    planner.relist()
    assert conditions(planner.state) == ()


def test_a_ledger_that_cannot_be_read_holds_back_just_the_one_that_leads() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(LedgerUnread("it is of a newer version"))
    down = Condition("ledger_down", "nothing can be promised without the ledger: it is of a newer version")
    assert conditions(planner.state) == (down,)
    planner.happen(LeaseChanged(leading=False, leader="http://other"))
    assert conditions(planner.state) == ()


def test_what_is_put_on_record_for_the_first_time_is_told() -> None:
    planner = Planner("a/prefill 4x1")
    planner.state = State(planner.state.rules, planner.snapshot, leading=True)
    planner.happen(LedgerLoaded(None, None, 0.0, 1e9))
    assert conditions(planner.state) == (
        Condition("bootstrapping", "what is deployed is being put on record, so every request is refused"),
    )
    planner.marked()
    assert conditions(planner.state) == ()


def test_a_ledger_without_room_says_its_size() -> None:
    state = Planner("a/prefill 4x1").state
    full = state.but(book=attrs.evolve(booked(state), size=FULL_BYTES))
    assert conditions(full) == (
        Condition("ledger_full", f"the ledger has {FULL_BYTES} bytes and takes in no new pool: use another domain"),
    )


def test_what_others_have_taken_is_told_in_gpus() -> None:
    planner = Planner("a/prefill 4x2", ceiling=8)
    entry = planner.entry("a")
    assert entry is not None
    over = believed(planner.ledger, [attrs.evolve(entry, held=held([pool("a/prefill 6x2")]))])
    assert conditions(planner.state.drafting(over)) == (
        Condition("over_committed", "others have taken the pools 4 GPUs above the ceiling, so nothing may grow"),
    )


def test_of_many_unknown_shapes_three_are_named() -> None:
    nobody = [Deployment(ParticipantId("ns", name), fixed_gpus=None) for name in "dbca"]
    state = settled_state(Rules(budget=Budget(0, 9)), Snapshot.of(nobody))
    assert conditions(state) == (
        Condition("shape_unknown", "the GPUs per replica of ns/a, ns/b, ns/c are not known, so nothing may grow"),
    )


def test_a_mark_that_the_ledger_does_not_know_names_its_objects() -> None:
    planner = Planner("a/prefill 4x1")
    planner.see("a/prefill 4x1", fence="of somebody else")
    assert conditions(planner.state) == (
        Condition("unsettled", f"{object_key('a')} shows a mark that the ledger does not know, so nothing may grow"),
    )


def test_each_freeze_says_what_it_holds() -> None:
    planner = Planner("a/prefill 4x1", "b/decode 4x1")
    planner.freeze("up", "a/prefill", "b/decode", name="f")
    planner.freeze("all", name="g")
    assert conditions(planner.state) == (
        Condition("frozen", f"{key('a/prefill')}, {key('b/decode')} may not go up: the racks are being moved"),
        Condition("frozen", "every pool may not go up or down: the racks are being moved"),
    )

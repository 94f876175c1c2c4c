import attrs

from gpcore.budgets import Budget
from gpcore.control import Rules, State, preview, step
from gpcore.decisions import (
    Approved,
    Busy,
    CeilingBreach,
    FloorBreach,
    LedgerDown,
    NotLeading,
    NotReady,
    Rejected,
    Unsettled,
    ViewStale,
)
from gpcore.events import (
    Decided,
    Event,
    Gone,
    HandedOver,
    LeaseChanged,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnread,
    Listed,
    Stale,
    Submitted,
)
from gpcore.ledger import Entry, Freeze, Held, believed
from gpcore.pools import ParticipantId, Role
from gpcore.states import MAX_OPERATIONS, MAX_WAITERS, Book
from tests.core.driving import Planner, object_key, told
from tests.core.words import fleet, key, request


def refusal(planner: Planner, text: str = "a/prefill 5") -> object:
    """Return why the next request is refused."""
    planner.ask(text, name="refused")
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason


# who may decide at all ------------------------------------------------------------------------------------------------


def test_a_follower_names_whoever_leads_and_says_what_it_would_decide() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(LeaseChanged(leading=False, leader="http://leader"))
    assert refusal(planner) == NotLeading("http://leader")
    assert isinstance(preview(planner.state, request("a/prefill 5"), now=0), Approved)


def test_nothing_is_promised_before_the_ledger_was_read_or_when_it_cannot_be() -> None:
    unread = step(State(), Listed(tuple(fleet("a/prefill 4x1").deployments()))).state
    leading = step(unread, LeaseChanged(leading=True)).state
    (decided, _) = step(leading, Submitted("1", request("a/prefill 5"), 0.0)).effects
    assert isinstance(decided, Decided)
    assert decided.decision == Rejected(LedgerDown("it has not been read yet"))
    planner = Planner("a/prefill 4x1")
    planner.happen(LedgerUnread("no right to read it"))
    assert refusal(planner) == LedgerDown("no right to read it")


def test_nothing_is_promised_before_the_ledger_was_taken_over_or_while_it_is_incomplete() -> None:
    planner = Planner("a/prefill 4x1")
    planner.state = planner.state.but(epoch=-1)
    assert refusal(planner) == LedgerDown("it is being taken over")
    planner = Planner("a/prefill 4x1")
    incomplete = attrs.evolve(planner.ledger, complete=False)
    planner.state = planner.state.but(book=Book(incomplete, "1", incomplete))
    assert refusal(planner) == NotReady()


def test_a_ledger_with_as_many_operations_as_it_holds_takes_no_more() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1")
    planner.ask("b/prefill 5", name="one")
    one = planner.state.operations["one"]
    many = {f"o{number}": one for number in range(MAX_OPERATIONS)}
    planner.state = planner.state.drafting(attrs.evolve(planner.ledger, operations=many))
    assert refusal(planner) == LedgerDown(f"{MAX_OPERATIONS} operations are under way, and it holds no more")


# what is not as it should be ------------------------------------------------------------------------------------------


def test_a_pool_that_is_being_put_on_record_has_to_wait_and_so_does_whoever_would_grow_beside_it() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1")
    planner.see("a/prefill 3x1")
    assert refusal(planner) == Unsettled((key("a/prefill"),))
    planner.see("b/prefill 4x1", fence="a stranger's")
    planner.marked()
    assert refusal(planner) == Unsettled((key("b/prefill"),))
    assert told(planner.ask("a/prefill 2", name="2")) == ["Decided", "apply a 2"]


def test_what_the_ledger_still_counts_is_not_given_away() -> None:
    planner = Planner("a/prefill 4x1", ceiling=5)
    strangers = Entry(object_key("z"), "settled", (Held(Role.PREFILL, 1, 1),))
    planner.state = planner.state.drafting(believed(planner.ledger, [strangers]))
    assert refusal(planner) == Unsettled(())
    assert planner.state.operations == {}


def test_on_a_stale_view_nothing_grows_and_what_only_releases_does() -> None:
    planner = Planner("a/prefill 4x1", "a/decode 4x1")
    planner.happen(Stale())
    assert refusal(planner) == ViewStale()
    assert told(planner.ask("a/prefill 3", "a/decode 2", name="2")) == ["Decided", "apply a 3, a 2"]


# who shares, and who waits --------------------------------------------------------------------------------------------


def test_an_operation_is_shared_by_only_so_many() -> None:
    planner = Planner("a/prefill 4x1")
    for count in range(MAX_WAITERS):
        planner.ask("a/prefill 6", name=str(count))
    assert planner.replies == []
    assert refusal(planner, "a/prefill 6") == Busy(key("a/prefill"), "0")


def test_a_request_that_was_decided_anew_is_answered_once_to_everybody() -> None:
    planner = Planner("a/prefill 4x1", ceiling=9)
    planner.ask("a/prefill 6")
    planner.ask("a/prefill 6", name="2")
    planner.see("a/prefill 5x1")
    planner.refused()
    assert told(planner.marked()) == ["Decided", "apply a 6"]
    assert told(planner.lands(1)) == ["reply 1 Succeeded", "reply 2 Succeeded"]


def test_a_request_that_was_being_put_on_record_when_leading_ended_is_handed_over_if_it_is_and_else_refused() -> None:
    answers: tuple[Event, ...] = (LedgerSaved("2"), LedgerMoved())
    outcomes = (HandedOver("1"), Rejected(NotLeading("http://leader")))
    for answer, outcome in zip(answers, outcomes, strict=True):
        planner = Planner("a/prefill 4x1")
        before = planner.ledger
        planner.waits(Submitted("1", request("a/prefill 6"), 0.0))
        planner.waits(LeaseChanged(leading=False, leader="http://leader"))
        planner.waits(answer)
        planner.waits(LedgerLoaded(attrs.evolve(before, epoch=2), "9", 0.0, 0.0))
        assert planner.replies == [("1", outcome)]


# freezes --------------------------------------------------------------------------------------------------------------


def test_a_pool_that_is_frozen_helps_nobody() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 3", name="0")
    planner.ask("c/prefill 3", name="nobody")
    held = Freeze("f", "down", 100.0, "a release", "somebody", (key("b/prefill"),))
    planner.state = planner.state.drafting(attrs.evolve(planner.ledger, freezes=(held,)))
    assert isinstance(refusal(planner), CeilingBreach)
    planner.state = planner.state.but(wall_offset=101.0)
    assert told(planner.ask("a/prefill 5", name="2")) == ["Decided", "apply b 3"]


def test_wishes_of_what_is_gone_are_kept_while_something_is_frozen() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", rules=Rules(budget=Budget(8, 8)))
    planner.ask("b/prefill 3", name="0")
    planner.happen(Gone(ParticipantId("ns", "b")))
    held = Freeze("f", "up", 100.0, "a release", "somebody")
    planner.state = planner.state.drafting(attrs.evolve(planner.ledger, freezes=(held,)))
    assert isinstance(refusal(planner, "a/prefill 3"), FloorBreach)
    assert len(planner.state.intents) == 2


# one object -----------------------------------------------------------------------------------------------------------


def test_what_one_object_takes_from_a_pool_for_another_is_one_write_where_there_is_room_for_both() -> None:
    planner = Planner("a/prefill 2x1", "a/decode 4x1", ceiling=8)
    assert told(planner.ask("a/prefill 4", "a/decode 2")) == ["Decided", "apply a 4, a 2"]


def test_what_one_object_takes_from_a_pool_for_another_comes_first_where_there_is_none() -> None:
    planner = Planner("a/prefill 2x1", "a/decode 4x1", ceiling=6)
    assert told(planner.ask("a/prefill 4", "a/decode 2")) == ["Decided", "apply a 2"]
    (operation,) = planner.state.operations.values()
    assert [len(leg.step.changes) for leg in operation.legs] == [1, 1]

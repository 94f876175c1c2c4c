"""Requests that are sent again: laws of what is remembered, then an example for each branch, then whole planners."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpcore.decisions import AnotherBody, Busy, OldSequence, Rejected, ViewStale
from gpcore.events import (
    Apply,
    Decided,
    LeaseChanged,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnsaved,
    Repeated,
    Reply,
    Save,
    Stale,
    Submitted,
    Succeeded,
    Ticked,
)
from gpcore.ledger import ALL_REPEATS, CALLERS, REPEATS, Ended, Ledger, Repeat
from gpcore.pools import ParticipantId, Role
from gpcore.repeating import answered, digest, earlier, refusal, remembered
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.states import MAX_WAITERS
from tests.core.driving import Planner, told
from tests.core.words import key, request

A = ParticipantId("ns", "a")
IDS = st.none() | st.sampled_from(("r-1", "r-2", "r-3"))
CALLS = st.sampled_from(("ns-a", "ns-b"))
TARGETS = st.lists(
    st.builds(Target, st.sampled_from((Role.PREFILL, Role.DECODE)), st.integers(0, 2), st.sampled_from((None, "p"))),
    min_size=1,
    max_size=2,
    unique_by=lambda one: one.role,
).map(tuple)
REQUESTS = st.builds(
    ScaleRequest,
    CALLS.map(Claimed),
    st.sampled_from((A, ParticipantId("ns", "b"))),
    TARGETS,
    blocking=st.booleans(),
    request_id=IDS,
    sequence=st.none() | st.integers(0, 5),
)


def named(*texts: str, name: str | None = "r-1", sequence: int | None = None, caller: str = "ns-a") -> ScaleRequest:
    return attrs.evolve(request(*texts), caller=Claimed(caller), request_id=name, sequence=sequence)


# laws -----------------------------------------------------------------------------------------------------------------


@given(one=REQUESTS, other=REQUESTS)
def test_two_requests_have_one_digest_when_they_ask_for_the_same(one: ScaleRequest, other: ScaleRequest) -> None:
    same = (one.participant, one.targets) == (other.participant, other.targets)
    assert (digest(one) == digest(other)) == same


@given(requests=st.lists(REQUESTS, max_size=12))
def test_of_each_caller_and_id_the_last_answer_is_known_and_another_body_is_refused(
    requests: list[ScaleRequest],
) -> None:
    ledger = Ledger()
    answers: dict[tuple[str, str | None], str] = {}
    counted: dict[str, int] = {}
    for at, one in enumerate(requests):
        who = (str(one.caller), one.request_id)
        before, last = answers.get(who), counted.get(who[0])
        expected: object = None
        if before is not None and before != digest(one):
            expected = Rejected(AnotherBody(one.request_id or ""))
        elif before is None and one.sequence is not None and last is not None and one.sequence <= last:
            expected = Rejected(OldSequence(one.sequence, last))
        assert refusal(ledger, one) == expected
        if expected is not None:
            continue
        ledger = remembered(ledger, one, "success", f"{at}", None)
        if one.request_id is not None:
            answers[who] = digest(one)
            assert earlier(ledger, one) == Repeat(who[0], one.request_id, digest(one), "success", f"{at}")
        if one.sequence is not None:
            counted[who[0]] = one.sequence
    assert {(one.caller, one.request_id): one.digest for one in ledger.repeats} == answers
    assert ledger.sequences == counted


@given(callers=st.lists(st.sampled_from(("a", "b", "c")), max_size=60))
def test_of_a_caller_no_more_is_remembered_than_may_be_and_the_newest_is(callers: list[str]) -> None:
    ledger = Ledger()
    for at, caller in enumerate(callers):
        ledger = remembered(ledger, named("a/prefill 4", name=f"r-{at}", caller=caller), "success", "", None)
    for caller in set(callers):
        sent = [f"r-{at}" for at, one in enumerate(callers) if one == caller]
        assert [one.request_id for one in ledger.repeats if one.caller == caller] == sent[-REPEATS:]


# examples -------------------------------------------------------------------------------------------------------------


def test_a_request_without_an_id_is_never_one_that_was_sent_before() -> None:
    one = named("a/prefill 5", name=None)
    ledger = Ledger()
    assert remembered(ledger, one, "success", "", None) is ledger
    assert earlier(ledger, one) is None
    assert refusal(ledger, one) is None


def test_another_caller_may_use_the_same_id() -> None:
    ledger = remembered(Ledger(), named("a/prefill 5"), "success", "", None)
    assert refusal(ledger, named("a/prefill 6")) == Rejected(AnotherBody("r-1"))
    assert refusal(ledger, named("a/prefill 6", caller="ns-b")) is None


def test_a_number_that_a_caller_has_counted_beyond_comes_too_late() -> None:
    ledger = remembered(Ledger(), named("a/prefill 5", name=None, sequence=5), "success", "", None)
    for late in (4, 5):
        one = named("a/prefill 6", name=None, sequence=late)
        assert refusal(ledger, one) == Rejected(OldSequence(late, 5))
    assert refusal(ledger, named("a/prefill 6", name=None, sequence=6)) is None
    assert refusal(ledger, named("a/prefill 6", name=None, sequence=0, caller="ns-b")) is None
    assert refusal(ledger, named("a/prefill 6", name=None)) is None


def test_the_same_request_with_its_old_number_is_the_same_request() -> None:
    one = named("a/prefill 5", sequence=5)
    ledger = remembered(Ledger(), one, "success", "", None)
    ledger = remembered(ledger, named("a/prefill 6", name="r-2", sequence=6), "success", "", None)
    assert refusal(ledger, one) is None
    assert earlier(ledger, one) is not None


def test_of_too_many_callers_the_one_that_has_counted_the_longest_ago_is_forgotten() -> None:
    many = {f"c{at}": at for at in range(CALLERS)}
    ledger = attrs.evolve(Ledger(), sequences=many)
    again = remembered(ledger, named("a/prefill 5", sequence=7, caller="c0"), "success", "", None)
    assert (len(again.sequences), again.sequences["c0"]) == (CALLERS, 7)
    ledger = remembered(again, named("a/prefill 5", sequence=1, caller="new"), "success", "", None)
    assert len(ledger.sequences) == CALLERS
    assert "c1" not in ledger.sequences
    assert (ledger.sequences["c0"], ledger.sequences["new"]) == (7, 1)


def test_of_too_many_requests_of_all_callers_the_oldest_is_forgotten() -> None:
    ledger = Ledger()
    for at in range(ALL_REPEATS + 1):
        ledger = remembered(ledger, named("a/prefill 4", caller=f"c{at}"), "success", "", None)
    assert len(ledger.repeats) == ALL_REPEATS
    assert (ledger.repeats[0].caller, ledger.repeats[-1].caller) == ("c1", f"c{ALL_REPEATS}")


def test_of_too_many_requests_of_one_caller_its_own_oldest_is_forgotten() -> None:
    ledger = remembered(Ledger(), named("a/prefill 4", caller="ns-b"), "success", "", None)
    for at in range(REPEATS + 1):
        ledger = remembered(ledger, named("a/prefill 4", name=f"r-{at}"), "success", "", None)
    assert [one.request_id for one in ledger.repeats] == ["r-1", *[f"r-{at}" for at in range(1, REPEATS + 1)]]
    assert [one.caller for one in ledger.repeats][:2] == ["ns-b", "ns-a"]


def test_what_an_operation_carried_out_is_answered_for_all_who_asked_for_it() -> None:
    ledger = remembered(Ledger(), named("a/prefill 5"), "scaling", "", "1")
    ledger = remembered(ledger, named("a/prefill 5", name="r-2"), "scaling", "", "1")
    ledger = remembered(ledger, named("b/prefill 5", name="r-3"), "scaling", "", "2")
    done = answered(ledger, "1", "failed", "no")
    assert [(one.status, one.message) for one in done.repeats] == [("failed", "no"), ("failed", "no"), ("scaling", "")]
    assert answered(done, "3", "success", "") is done


# what a planner makes of it -------------------------------------------------------------------------------------------


def asks(planner: Planner, one: ScaleRequest, *, name: str, now: float = 0.0) -> tuple[object, ...]:
    return planner.happen(Submitted(name, one, now))


def test_a_request_that_is_sent_again_shares_its_operation_and_then_has_its_answer() -> None:
    planner = Planner("a/prefill 4x1")
    assert told(asks(planner, named("a/prefill 6", sequence=3), name="1")) == ["Decided", "apply a 6"]
    assert told(asks(planner, named("a/prefill 6", sequence=3), name="2")) == ["Decided"]
    assert told(planner.lands()) == ["reply 1 Succeeded", "reply 2 Succeeded"]
    decided, reply = asks(planner, named("a/prefill 6", sequence=3), name="3")
    assert reply == Reply("3", Repeated("success", "", "1"))
    assert isinstance(decided, Decided)
    assert decided.operation == "1"
    assert len([one for one in planner.said if isinstance(one, Apply)]) == 1


def test_a_request_that_is_sent_again_after_others_have_changed_the_pool_changes_nothing() -> None:
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 6"), name="1")
    planner.lands()
    planner.ask("a/prefill 2", name="2")
    planner.lands(1)
    assert told(asks(planner, named("a/prefill 6"), name="3")) == ["Decided", "reply 3 Repeated"]
    assert [one.replicas for one in planner.snapshot.pools()] == [2]


def test_another_body_and_an_old_number_are_refused_and_have_no_effect() -> None:
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 6", sequence=3), name="1")
    planner.lands()
    before = planner.state
    asks(planner, named("a/prefill 7", sequence=4), name="2")
    asks(planner, named("a/prefill 7", name="r-2", sequence=3), name="3")
    assert planner.replies[1:] == [
        ("2", Rejected(AnotherBody("r-1"))),
        ("3", Rejected(OldSequence(3, 3))),
    ]
    assert planner.state == before


def test_a_refusal_for_want_of_room_is_an_answer_and_one_of_the_moment_is_not() -> None:
    planner = Planner("a/prefill 4x1", ceiling=5)
    assert told(asks(planner, named("a/prefill 6"), name="1")) == ["Decided", "reply 1 Rejected"]
    _, reply = asks(planner, named("a/prefill 6"), name="2")
    assert reply == Reply(
        "2",
        Repeated("above_ceiling", "total 6 exceeds ceiling (5); the largest count that fits is 5"),
    )
    planner.happen(Stale())
    assert told(asks(planner, named("a/prefill 5", name="r-2", sequence=1), name="3")) == [
        "Decided",
        "reply 3 Rejected",
    ]
    assert planner.replies[-1] == ("3", Rejected(ViewStale()))
    planner.relist()
    assert told(asks(planner, named("a/prefill 5", name="r-2", sequence=1), name="4")) == ["Decided", "apply a 5"]


def test_what_is_already_so_is_an_answer() -> None:
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 4"), name="1")
    assert asks(planner, named("a/prefill 4"), name="2")[-1] == Reply("2", Repeated("success"))


def test_who_shares_an_operation_by_the_same_wish_is_remembered_with_it() -> None:
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 6"), name="1")
    asks(planner, named("a/prefill 6", name="r-2"), name="2")
    planner.lands()
    assert asks(planner, named("a/prefill 6", name="r-2"), name="3")[-1] == Reply("3", Repeated("success", "", "1"))


def test_an_operation_that_failed_is_answered_as_it_ended() -> None:
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 6"), name="1")
    planner.refused(why="a webhook says no")
    planner.marked()
    assert asks(planner, named("a/prefill 6"), name="2")[-1] == Reply("2", Repeated("failed", "a webhook says no", "1"))


def test_what_was_decided_anew_and_refused_is_answered_so_to_all_who_asked() -> None:
    """Before, a request that was sent again was told for ever that it is being carried out."""
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 6"), name="1")
    asks(planner, named("a/prefill 6", name="r-2"), name="2")
    planner.see("a/prefill 5x1")
    planner.happen(Stale())
    planner.refused()
    planner.marked()
    assert planner.replies == [("1", Rejected(ViewStale())), ("2", Rejected(ViewStale()))]
    for name in ("r-1", "r-2"):
        asks(planner, named("a/prefill 6", name=name), name="again")
        (_, outcome) = planner.replies[-1]
        assert isinstance(outcome, Repeated)
        assert (outcome.status, outcome.operation) == ("view_stale", "1")


def test_what_was_decided_anew_and_is_so_by_now_has_succeeded_for_all_who_asked() -> None:
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 6"), name="1")
    asks(planner, named("a/prefill 6", name="r-2"), name="2")
    planner.see("a/prefill 6x1")
    planner.refused()
    planner.marked()
    assert [type(outcome) for _, outcome in planner.replies] == [Succeeded, Succeeded]
    assert {one.status for one in planner.ledger.repeats} == {"success"}


def test_to_one_more_than_may_wait_its_operation_is_busy() -> None:
    planner = Planner("a/prefill 4x1")
    asks(planner, named("a/prefill 6"), name="1")
    full = attrs.evolve(planner.state.drives["1"], waiters=tuple(map(str, range(MAX_WAITERS))))
    planner.state = planner.state.driving("1", full)
    asks(planner, named("a/prefill 6"), name="2")
    assert planner.replies == [("2", Rejected(Busy(key("a/prefill"), "1")))]


def test_a_request_has_one_effect_across_a_takeover_while_it_is_carried_out_and_after() -> None:
    first, second = Planner("a/prefill 4x1"), Planner("a/prefill 4x1")
    asks(first, named("a/prefill 6", sequence=3), name="1")
    second.happen(LeaseChanged(leading=False, leader="http://first"))
    second.happen(LedgerLoaded(first.ledger, "2", 5.0, 1e9))
    second.happen(LeaseChanged(leading=True))
    second.happen(LedgerLoaded(first.ledger, "2", 6.0, 1e9 + 1.0))
    assert told(asks(second, named("a/prefill 6", sequence=3), name="2")) == ["Decided"]
    assert told(second.happen(Ticked(7.0))) == ["apply a 6"], "the write of the first, through its fence"
    assert second.order() == first.order()
    assert told(second.lands()) == ["reply 2 Succeeded"]
    assert asks(second, named("a/prefill 6", sequence=3), name="3")[-1] == Reply("3", Repeated("success", "", "1"))


def test_what_was_not_stored_when_another_planner_stored_first_has_one_effect_all_the_same() -> None:
    planner = Planner("a/prefill 4x1")
    stored = planner.ledger
    planner.waits(Submitted("1", named("a/prefill 6", sequence=3), 0.0))
    planner.waits(LedgerMoved())
    assert told(planner.happen(LedgerLoaded(stored, "9", 0.0, 1e9))) == ["Decided", "apply a 6"]
    assert told(asks(planner, named("a/prefill 6", sequence=3), name="2")) == ["Decided"]
    assert told(planner.lands()) == ["reply 1 Succeeded", "reply 2 Succeeded"]


def test_what_could_not_be_stored_was_not_heard_and_may_be_sent_again_with_its_number() -> None:
    planner = Planner("a/prefill 4x1")
    planner.waits(Submitted("1", named("a/prefill 6", sequence=3), 0.0))
    assert told(planner.waits(LedgerUnsaved("it is too large"))) == ["reply 1 Rejected"]
    assert planner.ledger.repeats == ()
    assert planner.ledger.sequences == {}
    planner.happen(LedgerLoaded(planner.ledger, "1", 1.0, 1e9))
    (decided, save) = planner.waits(Submitted("2", named("a/prefill 6", sequence=3), 2.0))
    assert isinstance(decided, Decided)
    assert isinstance(save, Save)
    assert told(planner.happen(LedgerSaved("2"))) == ["apply a 6"]


# what another planner has stored meanwhile ----------------------------------------------------------------------------


def overtaken(planner: Planner, newer: Ledger) -> tuple[object, ...]:
    """Let what *planner* is saving meet the *newer* ledger of another, and return what follows."""
    planner.happen(LedgerMoved())
    return planner.happen(LedgerLoaded(newer, "99", 0.0, 0.0))


def test_an_id_that_another_planner_has_used_for_another_body_meanwhile_has_no_second_effect() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1")
    before = planner.ledger
    planner.waits(Submitted("1", named("a/prefill 6"), 0.0))
    effects = overtaken(planner, remembered(before, named("b/prefill 5"), "success", "", "other"))
    assert told(effects) == ["Decided", "reply 1 Rejected"]
    assert planner.replies == [("1", Rejected(AnotherBody("r-1")))]


def test_a_number_that_was_counted_beyond_at_another_planner_meanwhile_comes_too_late() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1")
    before = planner.ledger
    planner.waits(Submitted("1", named("a/prefill 6", sequence=3), 0.0))
    overtaken(planner, remembered(before, named("b/prefill 5", name="r-2", sequence=4), "success", "", "other"))
    assert planner.replies == [("1", Rejected(OldSequence(3, 4)))]


def test_a_request_that_another_planner_has_answered_meanwhile_has_its_answer() -> None:
    planner = Planner("a/prefill 4x1")
    before = planner.ledger
    planner.waits(Submitted("1", named("a/prefill 6"), 0.0))
    planner.waits(Submitted("2", named("a/prefill 6"), 0.0))
    effects = overtaken(planner, remembered(before, named("a/prefill 6"), "failed", "no", "other"))
    answer = Repeated("failed", "no", "other")
    assert planner.replies == [("1", answer), ("2", answer)]
    assert not [one for one in effects if isinstance(one, Apply)]


def test_what_was_stored_after_all_and_ended_by_another_planner_is_not_done_again() -> None:
    planner = Planner("a/prefill 4x1")
    before = planner.ledger
    planner.waits(Submitted("1", named("a/prefill 6", name=None), 0.0))
    effects = overtaken(planner, attrs.evolve(before, ended=(Ended("1", 0.0, 1.0, "success", ""),)))
    assert told(effects) == ["reply 1 Succeeded"]

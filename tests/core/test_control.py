"""What each event makes of the planner, as examples; whatever the order, see `test_control_machine`."""

from typing import get_args

import attrs
import pytest

from gpcore.budgets import Budget
from gpcore.control import TRANSITIONS, Rules, State, Transition, preview, step
from gpcore.deciding import RETRIES
from gpcore.decisions import (
    Approved,
    Busy,
    CallerRefused,
    CeilingBreach,
    Decision,
    NotReady,
    PolicyBroken,
    Rejected,
    UnknownPool,
    ViewStale,
)
from gpcore.events import (
    Decided,
    Event,
    Failed,
    Gone,
    LeaseChanged,
    LedgerLoaded,
    LedgerSaved,
    LedgerUnread,
    Listed,
    Load,
    Reply,
    Save,
    Seen,
    Stale,
    StepApplied,
    StepRefused,
    StepUnknown,
    Submitted,
    Succeeded,
    Ticked,
)
from gpcore.intents import Intent, Intents
from gpcore.ledger import Freeze
from gpcore.management import Management
from gpcore.plans import Plan
from gpcore.policy import Policy
from gpcore.pools import Deployment, ParticipantId, Snapshot
from gpcore.requests import ScaleRequest
from tests.core.driving import Planner, stored, told
from tests.core.words import fleet, key, request


def test_every_event_has_its_line() -> None:
    assert set(TRANSITIONS) == set(get_args(Event))


# before and besides the cluster ---------------------------------------------------------------------------------------


def test_nothing_is_decided_before_the_cluster_was_read() -> None:
    state = State()
    assert not state.ready
    assert preview(state, request("a/prefill 5"), now=0) == Rejected(NotReady())
    assert told(step(state, Submitted("1", request("a/prefill 5"), 0)).effects) == ["Decided", "reply 1 Rejected"]
    for event in (Seen(Deployment(ParticipantId("ns", "a"))), Gone(ParticipantId("ns", "a"))):
        assert step(state, event) == Transition(state)


def test_a_planner_is_ready_when_it_leads_and_has_read_the_cluster_and_the_ledger() -> None:
    leading = step(State(), LeaseChanged(leading=True))
    assert leading.effects == (Load(),)
    read = stored(step(leading.state, LedgerLoaded(None, None, 0.0, 1e9)))
    assert not read.state.ready
    listed = stored(step(read.state, Listed(())))
    assert listed.state.ready
    assert stored(step(listed.state, Submitted("1", request("a/prefill 5"), 0.0))).effects[-1] != Reply(
        "1", Rejected(NotReady())
    )


def test_what_is_not_managed_is_not_seen() -> None:
    rules = Rules(Management(frozenset({"ns-a"})))
    planner = Planner("a/prefill 4x1", rules=rules)
    planner.happen(Listed(tuple(fleet("a/prefill 4x1", "b/prefill 4x1").deployments())))
    assert [one.id.name for one in planner.snapshot.deployments()] == ["a"]
    before = planner.state
    assert planner.see("b/prefill 5x1") == planner.happen(Gone(ParticipantId("ns", "b"))) == ()
    assert planner.state == before
    assert preview(planner.state, request("b/prefill 5"), now=0) == Rejected(CallerRefused("ns-b"))


def test_a_stale_view_lets_nothing_grow() -> None:
    planner = Planner("a/prefill 4x1", ceiling=9)
    planner.happen(Stale())
    assert not planner.state.ready
    assert preview(planner.state, request("a/prefill 5"), now=0) == Rejected(ViewStale())
    assert told(planner.ask("a/prefill 3")) == ["Decided", "apply a 3"]


def test_a_wish_that_makes_no_sense_is_not_remembered() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/decode 5")
    assert planner.said[-1] == Reply("1", Rejected(UnknownPool(key("a/decode"))))
    assert len(planner.state.intents) == 0


# one request ----------------------------------------------------------------------------------------------------------


def test_a_request_that_fits_is_put_on_record_then_written_then_answered() -> None:
    planner = Planner("a/prefill 4x1", ceiling=9)
    (decided, save) = planner.waits(Submitted("1", request("a/prefill 6"), 0.0))
    assert isinstance(decided, Decided)
    assert isinstance(save, Save)
    assert (save.expected, save.ledger.totals.charged, planner.snapshot.totals.charged) == ("1", 6, 6)
    assert told(planner.happen(LedgerSaved("2"))) == ["apply a 6"]
    assert told(planner.lands()) == ["reply 1 Succeeded"]
    assert planner.state.operations == {}
    assert len(planner.state.intents) == 0


def test_what_is_written_has_the_fence_that_is_on_record() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    entry = planner.entry("a")
    assert entry is not None
    assert entry.reservation is not None
    assert planner.order()[1].fence == entry.reservation.fence
    planner.lands()
    after = planner.entry("a")
    assert after is not None
    assert (after.fence, after.reservation) == (entry.reservation.fence.new, None)


def test_a_request_for_what_is_succeeds_without_a_write() -> None:
    planner = Planner("a/prefill 4x1")
    assert told(planner.ask("a/prefill 4")) == ["Decided", "reply 1 Succeeded"]
    assert planner.replies == [("1", Succeeded(Plan()))]


def test_a_request_that_is_refused_is_remembered_as_a_wish() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    assert told(planner.ask("b/prefill 3")) == ["Decided", "reply 1 Rejected"]
    assert told(planner.ask("a/prefill 5", name="2")) == ["Decided", "apply b 3"]


def test_a_wish_that_is_met_in_part_keeps_its_age() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 1", name="0", now=3.0)
    planner.ask("a/prefill 5", now=5.0)
    planner.lands()
    planner.lands(1)
    assert [*planner.state.intents] == [Intent(key("b/prefill"), 1, 3.0)]
    assert told(planner.ask("a/prefill 6", name="2", now=6.0)) == ["Decided", "apply b 2"]


def test_an_old_wish_is_forgotten() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 3")
    planner.happen(Ticked(360.0))
    assert len(planner.state.intents) == 1
    planner.happen(Ticked(360.1))
    assert len(planner.state.intents) == 0


def test_a_dry_run_changes_nothing() -> None:
    planner = Planner("a/prefill 4x1", ceiling=5)
    before = planner.state
    assert isinstance(preview(before, request("a/prefill 5"), now=0), Approved)
    assert isinstance(preview(before, request("a/prefill 6"), now=0), Rejected)
    assert planner.state == before


# two requests ---------------------------------------------------------------------------------------------------------


def test_two_requests_between_two_observations_cannot_both_use_the_same_room() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", ceiling=9)
    planner.ask("a/prefill 5")
    planner.ask("b/prefill 5", name="2")
    (_, rejected) = planner.replies[0]
    assert isinstance(rejected, Rejected)
    assert isinstance(rejected.reason, CeilingBreach)


def test_the_same_wish_shares_the_operation_and_another_one_has_to_wait() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert told(planner.ask("a/prefill 6", name="2")) == ["Decided"]
    assert told(planner.ask("a/prefill 7", name="3")) == ["Decided", "reply 3 Rejected"]
    busy = Rejected(Busy(key("a/prefill"), "1"))
    assert planner.replies == [("3", busy)]
    assert preview(planner.state, request("a/prefill 7"), now=0) == busy
    assert isinstance(preview(planner.state, request("a/prefill 6"), now=0), Approved)
    assert told(planner.lands()) == ["reply 1 Succeeded", "reply 2 Succeeded"]


# several steps --------------------------------------------------------------------------------------------------------


def paired() -> Planner:
    """Return a planner that has sent a release of b, for which an acquisition of a waits."""
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 3", name="0")
    assert told(planner.ask("a/prefill 5")) == ["Decided", "apply b 3"]
    return planner


def test_an_acquisition_waits_while_the_gpus_of_something_are_not_known() -> None:
    planner = paired()
    stranger = Deployment(ParticipantId("ns", "c"), fixed_gpus=None)
    planner.happen(Seen(stranger))
    assert told(planner.lands()) == []
    assert told(planner.happen(Seen(attrs.evolve(stranger, fixed_gpus=0)))) == []
    assert told(planner.happen(Ticked(1.0))) == ["apply a 5"]


def test_who_shares_an_operation_hears_the_total_that_it_ends_with() -> None:
    planner = paired()
    planner.ask("a/prefill 5", name="2")
    expected = preview(planner.state, request("a/prefill 5"), now=0)
    decisions = [effect.decision for effect in planner.said if isinstance(effect, Decided)]
    assert [one.totals.charged for one in (*decisions, expected) if isinstance(one, Approved)] == [8, 8, 8]


def test_an_acquisition_waits_until_what_was_released_is_seen_free() -> None:
    planner = paired()
    assert told(planner.lands(draining=1)) == []
    assert told(planner.shows()) == ["apply a 5"]
    assert told(planner.lands(1)) == ["reply 1 Succeeded"]


def test_an_acknowledgement_alone_is_not_enough() -> None:
    planner = paired()
    assert told(planner.applied()) == []
    assert told(planner.shows()) == ["apply a 5"]


def test_room_that_others_leave_will_do_as_well() -> None:
    planner = paired()
    planner.lands(draining=1)
    planner.happen(Seen(Deployment(ParticipantId("ns", "c"))))
    assert told(planner.happen(Gone(ParticipantId("ns", "b")))) == ["mark b"]
    planner.absent()
    assert told(planner.happen(Ticked(1.0))) == ["apply a 5"]


def test_nothing_grows_on_a_stale_view_and_a_list_lets_it_go_on() -> None:
    planner = paired()
    planner.happen(Stale())
    assert told(planner.lands()) == []
    assert told(planner.relist()) == ["apply a 5"]


def test_what_does_not_come_free_is_given_up_and_given_back_after_the_deadline() -> None:
    planner = paired()
    planner.lands(draining=1)
    planner.happen(Ticked(100.0))
    assert told(planner.happen(Ticked(100.1))) == ["apply b 4"]
    assert planner.replies[1:] == []
    assert told(planner.lands(1)) == ["reply 1 Failed"]
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    assert outcome.problem == "the GPUs did not come free within 100 s; still held by ns/b/prefill"
    assert ([one.changes[0].pool for one in outcome.returned], outcome.done) == ([key("b/prefill")], ())


def test_room_that_others_took_is_given_up_after_the_deadline_and_what_cannot_be_given_back_after_another() -> None:
    planner = paired()
    planner.see("c/prefill 1x1", fence="")
    planner.marked()
    assert told(planner.lands()) == []
    assert told(planner.happen(Ticked(101.0))) == []
    assert told(planner.happen(Ticked(200.0))) == []
    assert told(planner.happen(Ticked(201.0))) == ["reply 1 Failed"]
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    assert outcome.problem == (
        "the GPUs did not come free within 100 s; still held by others; and ns/b/prefill could not be given back"
    )
    assert planner.ledger.totals.charged == 8, "nothing is held back any more"


def test_what_others_leave_again_is_given_back() -> None:
    planner = paired()
    planner.see("c/prefill 1x1", fence="")
    planner.marked()
    planner.lands()
    planner.happen(Ticked(101.0))
    assert "apply b 4" in told(planner.happen(Gone(ParticipantId("ns", "c"))))


# what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_step_of_unknown_outcome_is_sent_again_with_the_clock() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert planner.lost() == ()
    assert told(planner.happen(Ticked(1.0))) == ["apply a 6"]
    assert planner.order(0) == planner.order(1), "the same fence, so that it lands once"
    assert told(planner.shows()) == ["reply 1 Succeeded"]
    assert planner.refused() == ()


def test_a_step_of_unknown_outcome_that_is_seen_is_done() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.lost()
    assert told(planner.shows()) == ["reply 1 Succeeded"]


@pytest.mark.parametrize("answer", ["applied", "refused", "lost"])
def test_a_step_that_is_seen_and_undone_before_its_answer_is_done(answer: str) -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    _, order = planner.order()
    assert order.fence is not None
    assert "reply 1 Succeeded" in told(planner.see("a/prefill 4x1", fence=order.fence.new))
    assert getattr(planner, answer)() == ()
    assert len(planner.replies) == 1


def test_a_step_that_has_landed_and_was_undone_unseen_is_done_when_all_is_listed() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    _, order = planner.order()
    assert order.fence is not None
    (listed,) = fleet("a/prefill 4x1").deployments()
    shown = attrs.evolve(listed, pools=(attrs.evolve(listed.pools[0], fence=order.fence.new),))
    assert "reply 1 Succeeded" in told(planner.happen(Listed((shown,))))


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    order = planner.order()
    planner.lands()
    before = planner.state
    for event in (StepApplied(*order), StepRefused(*order, "late"), StepUnknown(*order, "late")):
        assert planner.happen(event) == ()
        assert planner.state == before


def test_what_was_refused_is_made_impossible_before_anything_else_is_done_about_it() -> None:
    planner = Planner("a/prefill 4x1", ceiling=6)
    planner.ask("a/prefill 6")
    assert told(planner.refused(why="a webhook says no")) == ["mark a"]
    assert planner.ledger.totals.charged == 6, "it may still land"
    assert planner.refused() == ()
    assert told(planner.marked()) == ["reply 1 Failed"]
    assert planner.replies == [("1", Failed("a webhook says no"))]
    assert planner.ledger.totals.charged == 4


def test_what_was_refused_and_has_landed_all_the_same_is_done() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.refused()
    assert told(planner.lands()) == ["reply 1 Failed"]
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    assert [one.changes[0].after for one in outcome.done] == [6], "it says what stands"


def test_a_refusal_because_the_cluster_changed_is_decided_anew() -> None:
    planner = Planner("a/prefill 4x1", ceiling=8)
    planner.ask("a/prefill 6")
    planner.see("a/prefill 5x1")
    assert told(planner.refused(why="5 replicas, not 4")) == ["mark a"]
    assert told(planner.marked()) == ["Decided", "apply a 6"]
    assert told(planner.lands(1)) == ["reply 1 Succeeded"]


def test_a_wish_that_came_meanwhile_is_kept_when_the_older_one_is_decided_anew() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", ceiling=20)
    planner.ask("a/prefill 6")
    planner.ask("a/prefill 2", name="2", now=5.0)
    planner.see("a/prefill 5x1")
    planner.refused()
    planner.marked()
    assert [one.replicas for one in planner.state.intents] == [2]
    assert planner.state.intents.shelves(planner.snapshot, -1) == Intents.of((), planner.snapshot).shelves(
        planner.snapshot, -1
    )


@pytest.mark.parametrize(("seen", "outcome"), [("a/prefill 6x1", "Succeeded"), ("a/prefill 9x1", "Rejected")])
def test_a_request_that_is_decided_anew_may_be_refused_or_met_for_all_who_wait(seen: str, outcome: str) -> None:
    planner = Planner("a/prefill 4x1", "c/prefill 1x1", floor=9, ceiling=10)
    planner.ask("a/prefill 6")
    planner.ask("a/prefill 6", name="2")
    planner.see(seen)
    planner.happen(Seen(Deployment(ParticipantId("ns", "c"))))
    planner.refused()
    planner.marked()
    assert [(who, type(how).__name__) for who, how in planner.replies] == [("1", outcome), ("2", outcome)]


def test_a_deployment_that_is_gone_when_its_request_is_decided_anew_is_refused() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert planner.happen(Gone(ParticipantId("ns", "a"))) == (), "it may be there all the same"
    assert told(planner.refused()) == ["mark a"]
    assert told(planner.absent()) == ["Decided", "reply 1 Rejected"]
    assert len(planner.state.busy) == 0


def test_a_deployment_that_is_gone_is_looked_for_by_name_and_then_forgotten() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", ceiling=8)
    assert told(planner.happen(Gone(ParticipantId("ns", "a")))) == ["mark a"]
    assert planner.ledger.totals.charged == 8
    planner.absent()
    assert planner.entry("a") is None
    assert planner.ledger.totals.charged == 4
    assert told(planner.ask("b/prefill 8")) == ["Decided", "apply b 8"]


def test_a_cluster_that_keeps_changing_is_not_chased_for_ever() -> None:
    planner = Planner("a/prefill 1x1")
    planner.ask("a/prefill 99")
    for at in range(RETRIES):
        planner.see(f"a/prefill {at + 2}x1", fence=planner.fence("a"))
        planner.refused(at)
        assert told(planner.marked()) == ["Decided", "apply a 99"]
    planner.see("a/prefill 50x1", fence=planner.fence("a"))
    planner.refused(RETRIES, "changed")
    assert told(planner.marked()) == ["reply 1 Failed"]
    assert planner.replies == [("1", Failed("changed"))]


def test_of_several_releases_one_that_fails_does_not_end_the_other_before_its_time() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", "c/prefill 4x1", floor=12, ceiling=12)
    planner.ask("b/prefill 3", name="b")
    planner.ask("c/prefill 3", name="c")
    assert sorted(told(planner.ask("a/prefill 6"))) == ["Decided", "apply b 3", "apply c 3"]
    assert [word[:4] for word in told(planner.refused(0))] == ["mark"]
    assert told(planner.marked()) == []
    first = planner.order(1)[1].changes[0].pool.participant.name
    assert told(planner.lands(1)) == [f"apply {first} 4"], "what it gave is given back"
    assert told(planner.lands(2)) == ["reply 1 Failed"]
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    assert [one.changes[0].pool.participant.name for one in outcome.returned] == [first]


def test_an_operation_ends_with_its_deployment_and_holds_no_promise_on_a_later_one() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.happen(Gone(ParticipantId("ns", "a")))
    planner.refused()
    planner.absent()
    assert planner.entry("a") is None
    assert told(planner.see("a/prefill 4x1", uid="another", fence="")) == ["mark a"]
    assert told(planner.ask("a/prefill 6", name="2")) == ["Decided", "reply 2 Rejected"]
    planner.marked()
    assert told(planner.ask("a/prefill 6", name="3")) == ["Decided", "apply a 6"]


def test_seeing_what_is_known_changes_nothing() -> None:
    planner = Planner("a/prefill 4x1")
    before = planner.state
    planner.see("a/prefill 4x1")
    planner.happen(Gone(ParticipantId("ns", "b")))
    assert planner.state == before


# the ledger -----------------------------------------------------------------------------------------------------------


def test_one_save_is_under_way_at_a_time_and_what_comes_meanwhile_goes_with_the_next() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", "c/prefill 4x1")
    (_, first) = planner.waits(Submitted("1", request("a/prefill 5"), 0.0))
    for name in ("b", "c"):
        (decided,) = planner.waits(Submitted(name, request(f"{name}/prefill 5"), 0.0))
        assert isinstance(decided, Decided)
    assert isinstance(first, Save)
    assert set(first.ledger.operations) == {"1"}
    (order, second) = planner.waits(LedgerSaved("2"))
    assert told((order,)) == ["apply a 5"]
    assert isinstance(second, Save)
    assert (second.expected, set(second.ledger.operations)) == ("2", {"1", "b", "c"})
    assert sorted(told(planner.happen(LedgerSaved("3")))) == ["apply b 5", "apply c 5"]


def test_the_ledger_is_read_again_with_the_clock_while_it_cannot_be_but_not_while_it_is_being_stored() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(LedgerUnread("it is away"))
    assert planner.happen(Ticked(1.0)) == (Load(),)
    planner = Planner("a/prefill 4x1")
    planner.waits(Submitted("1", request("a/prefill 5"), 0.0))
    planner.waits(LedgerUnread("it is away"))
    assert planner.waits(Ticked(1.0)) == ()


def test_what_nobody_waits_for_is_stored_with_the_clock() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert not [one for one in planner.waits(StepApplied(*planner.order())) if isinstance(one, Save)]
    (save,) = [one for one in planner.waits(Ticked(1.0)) if isinstance(one, Save)]
    assert save.ledger.operations == {}
    assert save.ledger.ended[-1].id == "1"


def test_a_freeze_that_is_over_is_forgotten_with_the_clock() -> None:
    planner = Planner("a/prefill 4x1")
    held = Freeze("f", "all", 1_000.0, "a release", "somebody")
    planner.state = planner.state.drafting(attrs.evolve(planner.ledger, freezes=(held,)))
    planner.happen(Ticked(1.0, 999.0))
    assert len(planner.ledger.freezes) == 1
    planner.happen(Ticked(2.0, 1_000.0))
    assert len(planner.ledger.freezes) == 0


def test_a_follower_looks_for_nothing() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(LeaseChanged(leading=False))
    assert planner.happen(Gone(ParticipantId("ns", "a"))) == ()
    assert planner.snapshot.deployment(ParticipantId("ns", "a")) is None
    assert planner.entry("a") is not None


# a policy of somebody's own -------------------------------------------------------------------------------------------


def always(decision: Decision) -> Policy:
    def policy(request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Decision:
        del request, snapshot, intents, budget
        return decision

    return policy


def test_a_policy_that_breaks_the_rules_is_not_obeyed() -> None:
    planner = Planner("a/prefill 4x1", rules=Rules(policy=always(Approved(Plan(), fleet().totals))))
    planner.ask("a/prefill 5")
    (_, rejected) = planner.replies[0]
    assert rejected == Rejected(PolicyBroken("it does not do what was asked of ns/a/prefill"))
    assert isinstance(planner.said[0], Decided)


def test_a_time_is_not_zero() -> None:
    with pytest.raises(ValueError, match="intent_ttl_s"):
        Rules(intent_ttl_s=0.0)
    with pytest.raises(ValueError, match="deadline_s"):
        Rules(deadline_s=0.0)


def test_who_leads_beside_others_reads_what_they_have_stored_with_each_tick() -> None:
    planner = Planner("a/prefill 4x1")
    planner.state = planner.state.but(exclusive=False)
    assert planner.happen(Ticked(1.0)) == (Load(),)
    planner.state = planner.state.but(exclusive=True)
    assert planner.happen(Ticked(2.0)) == ()

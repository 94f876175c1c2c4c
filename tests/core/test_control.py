"""What each event makes of the planner, as examples; whatever the order, see `test_control_machine`."""

from collections.abc import Callable
from typing import get_args

import attrs
import pytest

from gpcore.budgets import Budget
from gpcore.control import RETRIES, TRANSITIONS, Rules, State, Transition, preview, step
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
    Apply,
    Decided,
    Event,
    Failed,
    Gone,
    Listed,
    Reply,
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
from gpcore.management import Management
from gpcore.plans import Plan, Step
from gpcore.policy import Policy
from gpcore.pools import Authority, Deployment, ParticipantId, Snapshot
from gpcore.requests import ScaleRequest
from tests.core.words import fleet, key, pool, request


class Planner:
    """A planner that has listed *pools*, and what it has said so far."""

    def __init__(self, *pools: str, ceiling: int | None = None, floor: int = 0, rules: Rules | None = None) -> None:
        self.state = State(rules or Rules(budget=Budget(floor, ceiling), deadline_s=100.0))
        self.said: list[object] = []
        self.happen(Listed(tuple(fleet(*pools).deployments())))

    def happen(self, event: Event) -> tuple[object, ...]:
        transition = step(self.state, event)
        self.state = transition.state
        self.said += transition.effects
        return transition.effects

    def ask(self, *texts: str, name: str = "1", now: float = 0.0) -> tuple[object, ...]:
        return self.happen(Submitted(name, request(*texts), now))

    def see(self, text: str, *, present: int | None = None, uid: str = "uid") -> tuple[object, ...]:
        """Show one pool as it is, alone in its deployment."""
        seen = pool(text)
        shown = attrs.evolve(
            seen,
            present=seen.replicas if present is None else present,
            authority=Authority(seen.authority.name, uid),
        )
        return self.happen(Seen(Deployment(seen.key.participant, (shown,))))

    def applied(self, at: int = 0) -> tuple[object, ...]:
        return self.happen(StepApplied(*self.order(at)))

    def order(self, at: int = 0) -> tuple[str, Step]:
        """Return the operation and the step of one of the orders so far."""
        order = [one for one in self.said if isinstance(one, Apply)][at]
        return order.operation, order.step

    @property
    def replies(self) -> list[tuple[str, object]]:
        return [(one.id, one.outcome) for one in self.said if isinstance(one, Reply)]

    @property
    def snapshot(self) -> Snapshot:
        assert self.state.snapshot is not None
        return self.state.snapshot


def told(effects: tuple[object, ...]) -> list[str]:
    """Return each effect in a word or two."""
    return [
        f"apply {', '.join(f'{one.pool.participant.name} {one.after}' for one in effect.step.changes)}"
        if isinstance(effect, Apply)
        else f"reply {effect.id} {type(effect.outcome).__name__}"
        if isinstance(effect, Reply)
        else type(effect).__name__
        for effect in effects
    ]


def test_every_event_has_its_line() -> None:
    assert set(TRANSITIONS) == set(get_args(Event))


# before and besides the cluster ---------------------------------------------------------------------------------------


def test_nothing_is_decided_before_the_cluster_was_read() -> None:
    state = State()
    assert not state.ready
    assert preview(state, request("a/prefill 5"), now=0) == Rejected(NotReady())
    assert told(step(state, Submitted("1", request("a/prefill 5"), 0)).effects) == ["Decided", "reply 1 Rejected"]
    for event in (Seen(Deployment(ParticipantId("ns", "a"))), Gone(ParticipantId("ns", "a")), Ticked(1.0)):
        assert step(state, event) == Transition(state)
    assert step(state, Listed(())).state.ready


def test_what_is_not_managed_is_not_seen() -> None:
    rules = Rules(Management(frozenset({"ns-a"})))
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", rules=rules)
    assert [one.id.name for one in planner.snapshot.deployments()] == ["a"]
    before = planner.state
    planner.see("b/prefill 5x1")
    planner.happen(Gone(ParticipantId("ns", "b")))
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


def test_a_request_that_fits_is_written_seen_and_answered() -> None:
    planner = Planner("a/prefill 4x1", ceiling=9)
    assert told(planner.ask("a/prefill 6")) == ["Decided", "apply a 6"]
    assert planner.snapshot.totals.charged == 6
    assert told(planner.see("a/prefill 6x1")) == []
    assert told(planner.applied()) == ["reply 1 Succeeded"]
    assert planner.state.operations == {}
    assert len(planner.state.intents) == 0


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
    planner.see("b/prefill 3x1")
    planner.applied()
    planner.see("a/prefill 5x1")
    planner.applied(1)
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
    planner.see("a/prefill 6x1")
    assert told(planner.applied()) == ["reply 1 Succeeded", "reply 2 Succeeded"]


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
    planner.applied()
    assert told(planner.see("b/prefill 3x1")) == []
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
    planner.see("b/prefill 3x1", present=4)
    assert told(planner.applied()) == []
    assert told(planner.see("b/prefill 3x1", present=3)) == ["apply a 5"]
    planner.see("a/prefill 5x1")
    assert told(planner.applied(1)) == ["reply 1 Succeeded"]


def test_an_acknowledgement_alone_is_not_enough() -> None:
    planner = paired()
    assert told(planner.applied()) == []
    assert told(planner.see("b/prefill 3x1")) == ["apply a 5"]


def test_room_that_others_leave_will_do_as_well() -> None:
    planner = paired()
    planner.see("b/prefill 3x1", present=4)
    planner.applied()
    planner.happen(Seen(Deployment(ParticipantId("ns", "c"))))
    assert told(planner.happen(Gone(ParticipantId("ns", "b")))) == ["apply a 5"]


def test_nothing_grows_on_a_stale_view_and_a_list_lets_it_go_on() -> None:
    planner = paired()
    planner.happen(Stale())
    planner.see("b/prefill 3x1")
    assert told(planner.applied()) == []
    assert told(planner.happen(Listed(tuple(planner.snapshot.deployments())))) == ["apply a 5"]


def test_what_does_not_come_free_is_given_up_after_the_deadline() -> None:
    planner = paired()
    planner.see("b/prefill 3x1", present=4)
    planner.applied()
    planner.happen(Ticked(100.0))
    assert told(planner.happen(Ticked(100.1))) == ["reply 1 Failed"]
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    assert outcome.problem == "the GPUs did not come free within 100 s; still held by ns/b/prefill"
    assert [one.changes[0].pool for one in outcome.done] == [key("b/prefill")]


def test_room_that_others_took_is_given_up_after_the_deadline_too() -> None:
    planner = paired()
    planner.see("c/prefill 1x1")
    planner.see("b/prefill 3x1")
    assert told(planner.applied()) == []
    assert told(planner.happen(Ticked(101.0))) == ["reply 1 Failed"]
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    assert outcome.problem.endswith("still held by others")


# what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_step_of_unknown_outcome_is_sent_again_with_the_clock() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert planner.happen(StepUnknown(*planner.order(), "lost")) == ()
    assert told(planner.happen(Ticked(1.0))) == ["apply a 6"]
    planner.see("a/prefill 6x1")
    assert told(planner.happen(StepRefused(*planner.order(), "not as the step says"))) == ["reply 1 Succeeded"]


def test_a_step_of_unknown_outcome_that_is_seen_is_done() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.happen(StepUnknown(*planner.order(), "lost"))
    assert told(planner.see("a/prefill 6x1")) == ["reply 1 Succeeded"]


@pytest.mark.parametrize(
    "answer",
    [
        StepApplied,
        lambda operation, one: StepRefused(operation, one, "not as the step says"),
        lambda operation, one: StepUnknown(operation, one, "lost"),
    ],
)
def test_a_step_that_is_seen_and_undone_before_its_answer_is_done(answer: Callable[[str, Step], Event]) -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.see("a/prefill 6x1")
    planner.see("a/prefill 4x1")
    assert told(planner.happen(answer(*planner.order()))) == ["reply 1 Succeeded"]
    assert planner.snapshot.pool(key("a/prefill")) == pool("a/prefill 4x1")


def test_a_step_that_has_landed_and_was_undone_unseen_is_done_when_all_is_listed() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert told(planner.applied()) == []
    assert told(planner.happen(Listed(tuple(fleet("a/prefill 4x1").deployments())))) == ["reply 1 Succeeded"]


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    order = planner.order()
    planner.see("a/prefill 6x1")
    planner.applied()
    before = planner.state
    for event in (StepApplied(*order), StepRefused(*order, "late"), StepUnknown(*order, "late")):
        assert planner.happen(event) == ()
        assert planner.state == before


def test_a_refusal_because_the_cluster_changed_is_decided_anew() -> None:
    planner = Planner("a/prefill 4x1", ceiling=8)
    planner.ask("a/prefill 6")
    planner.see("a/prefill 5x1")
    again = planner.happen(StepRefused(*planner.order(), "5 replicas, not 4"))
    assert told(again) == ["Decided", "apply a 6"]
    planner.see("a/prefill 6x1")
    assert told(planner.applied(1)) == ["reply 1 Succeeded"]


def test_a_wish_that_came_meanwhile_is_kept_when_the_older_one_is_decided_anew() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", ceiling=20)
    planner.ask("a/prefill 6")
    planner.ask("a/prefill 2", name="2", now=5.0)
    planner.see("a/prefill 5x1")
    planner.happen(StepRefused(*planner.order(), "5 replicas, not 4"))
    assert [one.replicas for one in planner.state.intents] == [2]
    assert planner.state.intents.shelves(planner.snapshot, -1) == Intents.of((), planner.snapshot).shelves(
        planner.snapshot, -1
    )


def test_a_request_that_is_decided_anew_may_be_refused_or_met_for_all_who_wait() -> None:
    for seen, outcome in (("a/prefill 6x1", "Succeeded"), ("a/prefill 9x1", "Rejected")):
        planner = Planner("a/prefill 4x1", "c/prefill 1x1", floor=9, ceiling=10)
        planner.ask("a/prefill 6")
        planner.ask("a/prefill 6", name="2")
        planner.see(seen)
        planner.happen(Seen(Deployment(ParticipantId("ns", "c"))))
        planner.happen(StepRefused(*planner.order(), "changed"))
        assert [(who, type(how).__name__) for who, how in planner.replies] == [("1", outcome), ("2", outcome)]


def test_a_deployment_that_is_gone_when_its_request_is_decided_anew_is_refused() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.happen(Gone(ParticipantId("ns", "a")))
    assert told(planner.happen(StepRefused(*planner.order(), "gone"))) == ["Decided", "reply 1 Rejected"]
    assert len(planner.state.busy) == 0


def test_a_cluster_that_keeps_changing_is_not_chased_for_ever() -> None:
    planner = Planner("a/prefill 1x1")
    planner.ask("a/prefill 99")
    for at in range(RETRIES):
        planner.see(f"a/prefill {at + 2}x1")
        assert told(planner.happen(StepRefused(*planner.order(at), "changed"))) == ["Decided", "apply a 99"]
    planner.see("a/prefill 50x1")
    assert told(planner.happen(StepRefused(*planner.order(RETRIES), "changed"))) == ["reply 1 Failed"]
    assert planner.replies == [("1", Failed("changed"))]


def test_a_refusal_for_no_visible_reason_ends_the_operation() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert told(planner.happen(StepRefused(*planner.order(), "a webhook says no"))) == ["reply 1 Failed"]


def test_of_several_releases_one_that_fails_does_not_end_the_other_before_its_time() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", "c/prefill 4x1", floor=12, ceiling=12)
    planner.ask("b/prefill 3", name="b")
    planner.ask("c/prefill 3", name="c")
    assert sorted(told(planner.ask("a/prefill 6"))) == ["Decided", "apply b 3", "apply c 3"]
    assert told(planner.happen(StepRefused(*planner.order(0), "no"))) == []
    first = planner.order(1)[1].changes[0].pool.participant.name
    planner.see(f"{first}/prefill 3x1")
    assert told(planner.applied(1)) == ["reply 1 Failed"]
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    assert [one.changes[0].pool.participant.name for one in outcome.done] == [first]


def test_an_operation_holds_its_promise_while_its_deployment_is_away() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.happen(Gone(ParticipantId("ns", "a")))
    planner.see("a/prefill 4x1", uid="another")
    shown = planner.snapshot.pool(key("a/prefill"))
    assert shown is not None
    assert shown.reserved == 6


def test_seeing_what_is_known_changes_nothing() -> None:
    planner = Planner("a/prefill 4x1")
    before = planner.state
    planner.see("a/prefill 4x1")
    planner.happen(Gone(ParticipantId("ns", "b")))
    assert planner.state == before


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

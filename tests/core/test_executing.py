import pytest

from gpcore.events import Failed, Gone, LeaseChanged, Marked, Seen, StepApplied, StepRefused, StepUnknown, Ticked
from gpcore.operations import Operation, Stage
from gpcore.plans import Step
from gpcore.pools import Deployment, ParticipantId
from tests.core.driving import Planner, told
from tests.core.words import key


def transfer() -> Planner:
    """Return a planner that has sent a release of b, for which an acquisition of a waits."""
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 3", name="0")
    assert told(planner.ask("a/prefill 5")) == ["Decided", "apply b 3"]
    return planner


def operation(planner: Planner) -> Operation:
    return planner.state.operations["1"]


def failure(planner: Planner) -> Failed:
    """Return how the last request ended, which failed."""
    (_, outcome) = planner.replies[-1]
    assert isinstance(outcome, Failed)
    return outcome


def pools(steps: tuple[Step, ...]) -> list[str]:
    return [f"{one.pool.participant.name} {one.after}" for step in steps for one in step.changes]


# forth ----------------------------------------------------------------------------------------------------------------


def test_an_operation_that_ends_leaves_its_record_and_frees_its_pools() -> None:
    planner = transfer()
    planner.lands()
    planner.lands(1)
    (ended,) = planner.ledger.ended
    assert (ended.id, ended.status, ended.before, ended.after) == ("1", "success", 8, 8)
    assert "ns/b/prefill 4 to 3: done" in ended.changes
    assert (planner.state.operations, planner.state.drives, len(planner.state.busy)) == ({}, {}, 0)
    assert all(pool.reserved is None for pool in planner.snapshot.pools())


def test_an_answer_alone_settles_the_ledger_and_what_is_seen_free_lets_it_go_on() -> None:
    planner = transfer()
    planner.applied()
    entry, (_, order) = planner.entry("b"), planner.order()
    assert entry is not None
    assert order.fence is not None
    assert (entry.fence, entry.held[0].replicas, planner.ledger.escrow) == (order.fence.new, 3, 1)
    assert operation(planner).at(Stage.WAITING)


def test_a_planner_that_does_not_lead_carries_nothing_on() -> None:
    planner = transfer()
    planner.happen(LeaseChanged(leading=False))
    assert planner.lands() == ()
    assert operation(planner).at(Stage.WAITING)
    assert planner.happen(Ticked(1000.0)) != ()
    assert operation(planner).at(Stage.WAITING)


# back -----------------------------------------------------------------------------------------------------------------


def test_a_transfer_whose_receiver_refuses_gives_back_what_it_took() -> None:
    planner = transfer()
    planner.lands()
    assert told(planner.refused(1, "a webhook says no")) == ["mark a"]
    assert told(planner.marked()) == ["apply b 4"]
    assert operation(planner).returning
    assert planner.ledger.totals.charged == 8, "nobody else can have what goes back"
    assert told(planner.lands(2)) == ["reply 1 Failed"]
    assert failure(planner) == Failed("a webhook says no", returned=failure(planner).returned)
    assert pools(failure(planner).returned) == ["b 4"]
    assert [pool.replicas for pool in planner.snapshot.pools()] == [4, 4]


def test_what_was_acquired_beside_what_is_given_back_is_released_again() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", "c/prefill 4x1", floor=12, ceiling=12)
    planner.ask("b/prefill 6", name="b")
    planner.ask("c/prefill 6", name="c")
    planner.ask("a/prefill 0", name="1")
    assert [change.after for change in operation(planner).plan.changes] == [0, 6, 6]
    planner.lands()
    (first, second) = (planner.order(at)[1].participant.name for at in (1, 2))
    planner.lands(1)
    planner.refused(2)
    planner.marked()
    assert told(planner.lands(3)) == ["apply a 4"], f"{first} gives back before a gets"
    planner.lands(4)
    assert sorted(pools(failure(planner).returned)) == ["a 4", f"{first} 4"]
    assert {pool.replicas for pool in planner.snapshot.pools()} == {4}
    assert second != first


def test_who_only_acquired_keeps_what_it_has() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", "c/prefill 4x1", floor=12, ceiling=12)
    planner.ask("a/prefill 6")
    assert planner.replies[-1][0] == "1"
    planner = Planner("a/prefill 4x1", "a/decode 4x1")
    planner.ask("a/prefill 6", "a/decode 5")
    planner.refused()
    assert told(planner.lands()) == ["reply 1 Failed"]
    assert (pools(failure(planner).done), failure(planner).returned) == (["a 6", "a 5"], ())


def test_what_is_gone_cannot_be_given_back() -> None:
    planner = transfer()
    planner.lands()
    planner.refused(1)
    planner.happen(Gone(ParticipantId("ns", "b")))
    planner.absent()
    planner.marked(0)
    assert told(planner.happen(Ticked(1.0))) == ["reply 1 Failed"]
    assert failure(planner).problem == "no; and ns/b/prefill could not be given back"
    assert failure(planner).returned == ()
    assert planner.ledger.operations == {}


def test_what_somebody_else_changed_is_not_fought_on_the_way_back() -> None:
    planner = transfer()
    planner.lands()
    planner.refused(1)
    planner.see("b/prefill 2x1", fence=planner.fence("b"))
    planner.marked(-1)
    planner.marked(0)
    assert told(planner.happen(Ticked(1.0))) == ["reply 1 Failed"]
    assert failure(planner).problem == "no; and ns/b/prefill could not be given back"


def test_the_record_of_what_was_given_back_says_what_was_written_and_nothing_else() -> None:
    planner = transfer()
    planner.lands()
    planner.refused(1)
    planner.marked()
    planner.lands(2)
    (ended,) = planner.ledger.ended
    assert ended.status == "error"
    forth, _, back = ended.changes.partition("; and back: ")
    assert "ns/b/prefill 4 to 3: done" in forth
    assert "ns/a/prefill" not in forth, "it was never written"
    assert "ns/b/prefill 3 to 4: done" in back


# what was refused, lost, or killed ------------------------------------------------------------------------------------


def test_a_kill_that_is_lost_is_sent_again_with_the_clock_and_what_it_kills_is_not() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.refused()
    assert planner.happen(Marked(planner.marks[-1], lost=True)) == ()
    assert told(planner.happen(Ticked(1.0))) == ["mark a"]
    assert planner.marks[0] == planner.marks[1]
    assert planner.happen(Ticked(2.0)) == (), "one is under way"
    assert told(planner.marked()) == ["reply 1 Failed"]


def test_a_write_that_another_planner_has_made_impossible_is_decided_anew() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    (_, order) = planner.order()
    assert order.fence is not None
    assert told(planner.see("a/prefill 5x1", fence=order.fence.kill)) == ["Decided", "apply a 6"]
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert told(planner.see("a/prefill 4x1", fence=order.fence.kill)) == ["Decided", "apply a 6"]


@pytest.mark.parametrize("kind", [StepApplied, StepRefused, StepUnknown])
def test_an_answer_for_an_operation_that_is_no_more_changes_nothing(
    kind: type[StepApplied | StepRefused | StepUnknown],
) -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    order = planner.order()
    planner.lands()
    before = planner.state
    event = kind(*order) if kind is StepApplied else kind(*order, "late")  # type: ignore[call-arg]
    assert planner.happen(event) == ()
    assert planner.state == before


# what waits -----------------------------------------------------------------------------------------------------------


def test_whoever_waits_names_what_still_holds_the_gpus_when_it_gives_up() -> None:
    planner = transfer()
    planner.lands(draining=1)
    planner.happen(Ticked(101.0))
    assert operation(planner).problem == "the GPUs did not come free within 100 s; still held by ns/b/prefill"
    assert planner.ledger.escrow == 0, "it is on its way back"
    entry = planner.entry("b")
    assert entry is not None
    assert entry.reservation is not None
    assert entry.reservation.afters == ((key("b/prefill").role, 4),)


def test_what_waits_goes_on_when_something_else_leaves_room() -> None:
    planner = transfer()
    planner.lands(draining=1)
    planner.happen(Seen(Deployment(ParticipantId("ns", "c"), fixed_gpus=0)))
    assert told(planner.shows()) == ["apply a 5"]

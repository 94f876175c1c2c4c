"""The ledger as it is stored: laws of one shelf that several planners write to, then an example for each rule."""

from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.bookkeeping import FEW
from gpcore.budgets import Budget
from gpcore.control import Rules, State, Transition, step
from gpcore.decisions import LedgerDown, NotLeading, Rejected
from gpcore.events import (
    Apply,
    Event,
    Failed,
    Froze,
    HandedOver,
    LeaseChanged,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnread,
    LedgerUnsaved,
    Listed,
    Load,
    Mark,
    Noted,
    Repeated,
    Reply,
    Save,
    Seen,
    StepApplied,
    Submitted,
    Succeeded,
    Tell,
    Thawed,
    Ticked,
    Told,
)
from gpcore.fences import Mint
from gpcore.holding import MAX_FREEZES
from gpcore.ledger import Ended, Freeze, Ledger, ObjectKey, abandoned, believed, closed, forgotten, settled
from gpcore.pools import Deployment
from gpcore.repeating import answered
from gpcore.testing.settled import settled_state
from tests.core.driving import Planner, object_key, told
from tests.core.words import fleet, key, request, wishes

WALL = 1e9
POOLS = ("a/prefill 4x1", "b/prefill 4x1")


def freeze(name: str = "f", direction: str = "all", *, until: float = 2 * WALL) -> Freeze:
    return Freeze(name, direction, until, "the racks are being moved", "me")


# a shelf --------------------------------------------------------------------------------------------------------------


class Shelf:
    """Keep one ledger, by compare-and-swap."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.version = 1

    def put(self, save: Save) -> bool:
        if save.expected != str(self.version):
            return False
        self.ledger, self.version = save.ledger, self.version + 1
        return True


class Desk:
    """One planner at the shelf: what it orders to be saved and read is under way until the test answers it."""

    def __init__(self, shelf: Shelf, name: str, *, ceiling: int = 10) -> None:
        self.shelf, self.name = shelf, name
        rules = Rules(budget=Budget(0, ceiling))
        self.state = settled_state(rules, fleet(*POOLS)).but(mint=Mint(name), wall_offset=WALL)
        self.save: Save | None = None
        self.loading = False
        self.said: list[object] = []
        self.replies: dict[str, list[object]] = {}

    def happen(self, event: Event) -> tuple[object, ...]:
        before = self.state
        transition = step(before, event)
        self.state = transition.state
        for one in transition.effects:
            match one:
                case Save():
                    assert self.save is None, "one at a time"
                    assert self.state.leading
                    assert one.ledger.epoch == self.state.epoch
                    self.save = one
                case Load():
                    self.loading = True
                case Reply():
                    self.replies.setdefault(one.id, []).append(one.outcome)
                case Apply() | Mark():
                    assert on_record(self.shelf.ledger, one) or self.version() != str(self.shelf.version)
                case _:
                    pass
        self.said += transition.effects
        return tuple(transition.effects)

    def version(self) -> str | None:
        return None if self.state.book is None else self.state.book.version

    def saved(self) -> tuple[object, ...]:
        """Let the save under way arrive, and answer it."""
        save, self.save = self.save, None
        assert save is not None
        if self.shelf.put(save):
            return self.happen(LedgerSaved(str(self.shelf.version)))
        return self.happen(LedgerMoved())

    def unsaved(self, *, lost: bool, landed: bool = False) -> tuple[object, ...]:
        save, self.save = self.save, None
        assert save is not None
        if landed:
            self.shelf.put(save)
        return self.happen(LedgerUnsaved("no answer" if lost else "it is too large", lost=lost))

    def loaded(self) -> tuple[object, ...]:
        self.loading = False
        now = self.state.now
        return self.happen(LedgerLoaded(self.shelf.ledger, str(self.shelf.version), now, now + WALL))

    def tick(self) -> tuple[object, ...]:
        now = self.state.now + 1.0
        return self.happen(Ticked(now, now + WALL))

    def rest(self) -> None:
        """Let everything be answered, and the clock go on, until nothing is left to say."""
        for _ in range(9):
            if self.save is not None:
                self.saved()
            elif self.loading:
                self.loaded()
            else:
                self.tick()

    def answer(self, name: str) -> object:
        """Return the one answer to request *name*."""
        (found,) = self.replies[name]
        return found


def on_record(ledger: Ledger, order: Apply | Mark) -> bool:
    """Say whether *ledger* has what *order* writes."""
    name = order.key if isinstance(order, Mark) else ObjectKey(order.step.participant, order.step.authority.name)
    entry = ledger.entry(name)
    if entry is None or entry.reservation is None:
        return False
    fence = entry.reservation.fence
    return order.step.fence == fence if isinstance(order, Apply) else order.new in fence


def shelf() -> Shelf:
    state = settled_state(Rules(budget=Budget(0, 10)), fleet(*POOLS))
    return Shelf(state.ledger)


# laws -----------------------------------------------------------------------------------------------------------------


class Office:
    """Two desks at one shelf, and whatever can happen between them."""

    def __init__(self, data: st.DataObject) -> None:
        self.data, self.shelf = data, shelf()
        self.desks = [Desk(self.shelf, "one"), Desk(self.shelf, "two")]
        self.desks[1].happen(LeaseChanged(leading=False, leader="http://one"))
        self.asked: dict[str, tuple[Desk, Freeze | str | None]] = {}

    def go_on(self) -> None:
        desk = self.data.draw(st.sampled_from(self.desks), label="who")
        things = [desk.tick, self.ask, self.freeze, self.thaw, self.see, self.lease]
        things += [desk.saved, desk.saved, lambda: desk.unsaved(lost=False)] if desk.save is not None else []
        things += [lambda: desk.unsaved(lost=True), lambda: desk.unsaved(lost=True, landed=True)] if desk.save else []
        things += [desk.loaded, desk.loaded, lambda: desk.happen(LedgerUnread("no answer"))] if desk.loading else []
        self.desk = desk
        self.data.draw(st.sampled_from(things), label="what")()

    def name(self, what: Freeze | str | None) -> str:
        name = f"r{len(self.asked)}"
        self.asked[name] = (self.desk, what)
        return name

    def ask(self) -> tuple[object, ...]:
        replicas = self.data.draw(st.integers(3, 7))
        pool = self.data.draw(st.sampled_from(("a/prefill", "b/prefill")))
        return self.desk.happen(Submitted(self.name(None), request(f"{pool} {replicas}"), self.desk.state.now))

    def freeze(self) -> tuple[object, ...]:
        until = self.desk.state.now + WALL + self.data.draw(st.sampled_from((1.5, 1e6)))
        one = freeze(self.data.draw(st.sampled_from("fg")), self.data.draw(st.sampled_from(("up", "all"))), until=until)
        return self.desk.happen(Froze(self.name(one), one))

    def thaw(self) -> tuple[object, ...]:
        one = self.data.draw(st.sampled_from("fg"))
        return self.desk.happen(Thawed(self.name(one), one))

    def see(self) -> tuple[object, ...]:
        """See that somebody has changed a pool behind everybody's back."""
        shown = self.desk.state.view.deployment(key("b/prefill").participant)
        assert shown is not None
        (one,) = shown.pools
        changed = attrs.evolve(one, replicas=self.data.draw(st.integers(2, 5)), reserved=None)
        return self.desk.happen(Seen(attrs.evolve(shown, pools=(changed,))))

    def lease(self) -> tuple[object, ...]:
        return self.desk.happen(LeaseChanged(leading=self.data.draw(st.booleans()), leader="http://other"))


@given(data=st.data(), length=st.integers(1, 30))
def test_whatever_happens_every_save_and_write_is_in_order_and_every_answer_is_given_once(
    data: st.DataObject, length: int
) -> None:
    """That a planner stores one ledger at a time, as a leader, and writes what is on record, its desk asserts."""
    office = Office(data)
    for _ in range(length):
        office.go_on()
    first, second = office.desks
    second.happen(LeaseChanged(leading=False, leader="http://one"))
    second.rest()
    first.happen(LeaseChanged(leading=False, leader="http://one"))
    first.happen(LeaseChanged(leading=True))
    first.rest()
    second.rest()
    assert first.state.book is not None
    assert first.state.book.stored.freezes == office.shelf.ledger.freezes
    assert (first.state.epoch, first.state.fault) == (office.shelf.ledger.epoch, "")
    for name, (desk, what) in office.asked.items():
        if what is not None:
            assert isinstance(desk.answer(name), Noted | Rejected)
        else:
            assert len(desk.replies.get(name, ())) <= 1
    assert first.state.noting == second.state.noting == {}


@given(data=st.data(), length=st.integers(1, 30))
def test_the_last_word_on_a_freeze_that_was_answered_is_what_is_stored(data: st.DataObject, length: int) -> None:
    """One planner leads all the time, and whatever it stores may be lost, refused, or overtaken by another freeze."""
    office = Office(data)
    office.desk = desk = office.desks[0]
    last: dict[str, str] = {}
    for _ in range(length):
        things = [desk.tick, office.freeze, office.thaw, office.ask]
        things += [desk.saved, lambda: desk.unsaved(lost=True), lambda: desk.unsaved(lost=True, landed=True)] * bool(
            desk.save
        )
        things += [lambda: desk.unsaved(lost=False)] * bool(desk.save)
        things += [desk.loaded] * desk.loading
        data.draw(st.sampled_from(things), label="what")()
    desk.rest()
    for name, (_, what) in office.asked.items():
        if what is not None and desk.answer(name) == Noted():
            last[what if isinstance(what, str) else what.id] = name
    now = desk.state.now + WALL
    for name, word in last.items():
        what = office.asked[word][1]
        holds = isinstance(what, Freeze) and what.until > now
        assert [one for one in office.shelf.ledger.freezes if one.id == name] == ([what] if holds else [])


# saving ---------------------------------------------------------------------------------------------------------------


def test_what_is_decided_while_something_is_saved_goes_with_the_next_save() -> None:
    desk = Desk(shelf(), "one")
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    first = desk.save
    assert first is not None
    desk.happen(Submitted("2", request("b/prefill 5"), 0.0))
    assert desk.save is first
    assert told(desk.saved()) == ["apply a 5", "Save"]
    second = desk.save
    assert second is not None
    assert (second.expected, set(second.ledger.operations)) == ("2", {"1", "2"})
    assert told(desk.saved()) == ["apply b 5"]


def test_who_has_nothing_to_promise_saves_with_the_clock_and_just_once() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    named = attrs.evolve(request("b/prefill 3"), request_id="r-1")
    assert told(planner.waits(Submitted("1", named, 0.0))) == ["Decided", "reply 1 Rejected"]
    assert told(planner.waits(Ticked(1.0))) == ["Save"]
    planner.waits(LedgerSaved("2"))
    assert planner.waits(Ticked(2.0)) == ()


def test_what_is_stored_carries_the_wishes_in_wall_clock_seconds() -> None:
    desk = Desk(shelf(), "one", ceiling=8)
    desk.happen(Submitted("1", request("a/prefill 5"), 7.4))
    assert desk.happen(Ticked(8.0, 8.0 + WALL)) == (), "nothing is stored for a wish alone"
    desk.happen(Submitted("2", request("b/prefill 3"), 8.0))
    assert desk.save is not None
    told_at = {one.pool: (one.replicas, one.seen_at) for one in desk.save.ledger.wishes}
    assert told_at == {key("a/prefill"): (5, WALL + 7.0), key("b/prefill"): (3, WALL + 8.0)}


def test_of_many_wishes_those_of_the_last_tick_are_stored() -> None:
    names = [f"d{at}/prefill" for at in range(FEW + 1)]
    planner = Planner(*[f"{name} 1x1" for name in names], ceiling=len(names))
    for name in names:
        planner.ask(f"{name} 2", name=name)
    planner.happen(Ticked(2.0, 2.0 + WALL))
    planner.waits(Submitted("late", request(f"{names[0]} 3"), 3.0))
    effects = planner.waits(Submitted("less", request(f"{names[1]} 0"), 3.0))
    (save,) = [one for one in effects if isinstance(one, Save)]
    assert {one.pool: one.replicas for one in save.ledger.wishes}[key(names[0])] == 2


def test_an_answer_to_no_save_changes_nothing() -> None:
    state = Planner("a/prefill 4x1").state
    assert step(state, LedgerSaved("9")) == Transition(state)
    assert step(State(), LedgerSaved("9")) == Transition(State())


def test_after_a_conflict_nothing_is_saved_before_the_newer_one_is_read() -> None:
    desk = Desk(shelf(), "one")
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    desk.shelf.version = 7
    assert told(desk.saved()) == ["Load"]
    assert told(desk.tick()) == ["Load"]
    assert told(desk.happen(Submitted("2", request("b/prefill 5"), 1.0))) == ["Decided"]
    assert told(desk.loaded()) == ["Decided", "Decided", "Save"]
    assert desk.save is not None
    assert desk.save.expected == "7"
    assert sorted(told(desk.saved())) == ["apply a 5", "apply b 5"]


def test_what_somebody_else_took_meanwhile_is_not_there_any_more_when_it_is_decided_anew() -> None:
    desk, other = Desk(at := shelf(), "one"), Desk(at, "two")
    other.happen(Submitted("2", request("b/prefill 6"), 0.0))
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    other.saved()
    assert told(desk.saved()) == ["Load"]
    assert told(desk.loaded()) == ["Decided", "reply 1 Rejected"]
    assert set(desk.state.operations) == {"2"}


def test_a_save_under_way_is_never_overtaken_by_an_older_read() -> None:
    desk = Desk(at := shelf(), "one")
    older = at.ledger
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    assert desk.happen(LedgerLoaded(older, "1", 0.0, WALL)) == ()
    assert desk.happen(LedgerLoaded(None, None, 0.0, WALL)) == ()
    assert set(desk.state.operations) == {"1"}
    assert told(desk.saved()) == ["apply a 5"]


def test_a_lost_save_that_has_landed_is_found_and_carried_out() -> None:
    desk = Desk(shelf(), "one")
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    assert told(desk.unsaved(lost=True, landed=True)) == ["Load"]
    assert desk.state.fault == "no answer"
    assert told(desk.loaded()) == ["apply a 5"]
    assert desk.state.fault == ""
    assert "1" not in desk.replies


def test_a_lost_save_that_has_not_landed_is_made_again() -> None:
    desk = Desk(shelf(), "one")
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    desk.unsaved(lost=True)
    assert told(desk.loaded()) == ["Save"]
    assert told(desk.saved()) == ["apply a 5"]


def test_a_refused_save_refuses_what_it_was_to_promise_and_is_tried_again_with_the_clock() -> None:
    desk = Desk(shelf(), "one")
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    desk.happen(Submitted("2", request("a/prefill 5"), 0.0))
    desk.happen(Froze("3", freeze()))
    desk.unsaved(lost=False)
    down = Rejected(LedgerDown("it is too large"))
    assert [desk.answer(name) for name in "123"] == [down, down, down]
    assert (desk.save, desk.loading) == (None, False)
    assert len(desk.state.operations) == len(desk.state.busy) == len(desk.state.ledger.freezes) == 0
    assert desk.state.view.totals.charged == 8, "nothing is promised any more"
    desk.happen(Submitted("4", request("a/prefill 5"), 0.0))
    assert desk.answer("4") == down
    assert told(desk.tick()) == ["Load"]
    desk.loaded()
    desk.happen(Submitted("5", request("a/prefill 5"), 2.0))
    desk.rest()
    assert [one.operation for one in desk.said if isinstance(one, Apply)] == ["5"]


def test_an_adoption_that_cannot_be_saved_is_not_tried_as_fast_as_it_is_refused() -> None:
    planner = Planner("a/prefill 4x1")
    assert told(planner.waits(Listed((*fleet("b/prefill 1x1").deployments(),))))[-1] == "Save"
    assert planner.waits(LedgerUnsaved("you may not")) == ()
    assert told(planner.waits(Ticked(1.0))) == ["Load"]
    assert told(planner.waits(LedgerLoaded(planner.ledger, "1", 1.0, WALL))) == ["Save"]


def test_a_ledger_that_cannot_be_read_lets_nothing_be_promised() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(LedgerUnread("it is of a newer version"))
    planner.ask("a/prefill 5")
    planner.happen(LedgerUnread(""))
    planner.ask("a/prefill 5", name="2")
    assert planner.replies == [
        ("1", Rejected(LedgerDown("it is of a newer version"))),
        ("2", Rejected(LedgerDown("it cannot be read"))),
    ]
    assert told(planner.waits(Ticked(1.0))) == ["Load"]


def test_answers_to_whoever_has_no_ledger_lead_to_reading_one() -> None:
    state = State()
    for event in (LedgerMoved(), LedgerUnsaved("no"), LedgerUnsaved("no", lost=True)):
        after = step(state, event)
        assert after.effects == (Load(),)
        assert after.state.book is None


# leading --------------------------------------------------------------------------------------------------------------


def test_who_begins_to_lead_reads_the_ledger_takes_it_over_once_and_decides_when_that_is_on_record() -> None:
    desk = Desk(at := shelf(), "two")
    desk.happen(LeaseChanged(leading=False, leader="http://one"))
    assert told(desk.happen(LeaseChanged(leading=True))) == ["Load"]
    assert told(desk.loaded()) == ["Save"]
    assert desk.save is not None
    assert (desk.save.ledger.epoch, at.ledger.epoch) == (2, 1)
    assert desk.happen(LeaseChanged(leading=True)) == (), "it is told again with each renewal"
    desk.saved()
    assert (at.ledger.epoch, desk.state.epoch) == (2, 2)
    assert told(desk.happen(Submitted("1", request("a/prefill 5"), 0.0))) == ["Decided", "Save"]


def test_nobody_decides_before_the_ledger_is_taken_over() -> None:
    desk = Desk(shelf(), "two")
    desk.happen(LeaseChanged(leading=False, leader="http://one"))
    desk.happen(LeaseChanged(leading=True))
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    assert desk.answer("1") == Rejected(LedgerDown("it is being taken over"))
    assert desk.tick() == (), "and nothing is saved before it was read"


def test_who_leads_without_a_ledger_makes_one_and_who_follows_does_not() -> None:
    state = settled_state(Rules(budget=Budget(0, 9)), fleet("a/prefill 4x1")).but(book=None, leading=False, epoch=-1)
    followed = step(state, LedgerLoaded(None, None, 0.0, WALL))
    assert (followed.state.book, followed.effects) == (None, ())
    begun = step(followed.state, LeaseChanged(leading=True))
    made = step(begun.state, LedgerLoaded(None, None, 0.0, WALL))
    (save,) = made.effects
    assert isinstance(save, Save)
    assert (save.expected, save.ledger.epoch, save.ledger.budget) == (None, 1, Budget(0, 9))
    assert [one.key for one in save.ledger.adoptions()] == [object_key("a")]


def test_a_follower_forgets_a_ledger_that_is_gone() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(LeaseChanged(leading=False, leader="http://one"))
    planner.happen(LedgerLoaded(None, None, 0.0, WALL))
    assert planner.state.book is None


def test_a_leader_whose_ledger_is_gone_makes_it_again_of_what_it_sees() -> None:
    planner = Planner("a/prefill 4x1", ceiling=9)
    planner.happen(LedgerUnread("no answer"))
    (save,) = planner.waits(LedgerLoaded(None, None, 1.0, WALL))
    assert isinstance(save, Save)
    assert (save.expected, save.ledger.totals.charged, save.ledger.complete) == (None, 4, False)


def test_the_one_that_takes_over_carries_out_what_the_other_has_promised() -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    two.happen(LeaseChanged(leading=False, leader="http://one"))
    one.happen(Submitted("1", request("a/prefill 5"), 0.0))
    (order,) = one.saved()
    two.happen(LeaseChanged(leading=True))
    assert told(two.loaded()) == ["Save"]
    two.saved()
    assert told(two.tick()) == ["apply a 5"]
    assert two.said[-1] == order, "through the same fence, so that it lands once"


def test_who_was_deposed_stores_nothing_and_hands_its_operations_over() -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    two.happen(LeaseChanged(leading=False, leader="http://one"))
    one.happen(Submitted("1", request("a/prefill 5"), 0.0))
    one.saved()
    two.happen(LeaseChanged(leading=True))
    two.loaded()
    two.saved()
    one.happen(Submitted("2", request("b/prefill 5"), 0.0))
    one.happen(Froze("3", freeze()))
    assert told(one.saved()) == ["Load"]
    one.loaded()
    assert (one.state.leading, one.save) == (False, None)
    assert one.answer("1") == HandedOver("1")
    assert one.answer("2") == one.answer("3") == Rejected(NotLeading())
    assert "3" not in at.ledger.operations
    assert told(one.tick()) == ["Load"]
    one.loaded()
    assert one.save is None
    assert told(one.happen(LeaseChanged(leading=True))) == ["Load"], "until it leads again"
    one.loaded()
    assert one.save is not None
    assert one.save.ledger.epoch == 3


def test_who_loses_the_lease_answers_at_once_where_nothing_is_being_saved() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 5")
    assert planner.happen(LeaseChanged(leading=False, leader="http://two")) == (Reply("1", HandedOver("1")),)
    assert planner.state.drives["1"].waiters == ()
    assert planner.happen(LeaseChanged(leading=False, leader="http://three")) == ()
    assert planner.state.leader == "http://three"
    assert planner.happen(Froze("2", freeze())) == (Reply("2", Rejected(NotLeading("http://three"))),)
    assert planner.happen(Thawed("3", "f")) == (Reply("3", Rejected(NotLeading("http://three"))),)


@pytest.mark.parametrize("landed", [True, False])
def test_who_loses_the_lease_while_something_is_saved_answers_when_it_is_known_what_became_of_it(
    *, landed: bool
) -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    one.happen(Submitted("1", request("a/prefill 5"), 0.0))
    one.happen(Froze("2", freeze()))
    assert one.happen(LeaseChanged(leading=False, leader="http://two")) == ()
    if not landed:
        two.happen(Froze("3", freeze("g")))
        two.saved()
    one.saved()
    if not landed:
        one.loaded()
    assert one.answer("1") == (HandedOver("1") if landed else Rejected(NotLeading("http://two")))
    assert one.answer("2") == Rejected(NotLeading("http://two"))
    assert ("1" in at.ledger.operations) == landed
    assert not [order for order in one.said if isinstance(order, Apply)]


def test_an_answer_to_a_save_of_an_earlier_time_of_leading_is_not_taken_for_that_of_a_later_one() -> None:
    desk = Desk(at := shelf(), "one")
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    early = desk.save
    desk.happen(LeaseChanged(leading=False))
    desk.happen(LeaseChanged(leading=True))
    assert desk.loaded() == ()
    assert desk.save is early, "just the one that is under way"
    assert "Load" in told(desk.saved())
    desk.loaded()
    desk.saved()
    assert (at.ledger.epoch, desk.state.epoch, set(at.ledger.operations)) == (2, 2, {"1"})


def test_who_leads_with_others_takes_their_epoch_for_its_own() -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    for desk in (one, two):
        desk.happen(LeaseChanged(leading=True, exclusive=False))
        desk.loaded()
        desk.saved()
        desk.rest()
    one.rest()
    one.happen(Submitted("1", request("a/prefill 5"), one.state.now))
    one.rest()
    assert (one.state.leading, one.state.epoch) == (True, at.ledger.epoch)
    assert "1" in at.ledger.operations


@pytest.mark.parametrize("over", [True, False])
def test_a_request_that_two_planners_hear_at_the_same_time_has_one_effect(*, over: bool) -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    for desk in (one, two):
        desk.happen(LeaseChanged(leading=True, exclusive=False))
    one.rest()
    two.rest()
    one.rest()
    named = attrs.evolve(request("a/prefill 5"), request_id="r-1")
    one.happen(Submitted("1", named, one.state.now))
    two.happen(Submitted("2", named, two.state.now))
    one.saved()
    if over:
        ended = closed(settled(at.ledger, object_key("a")), Ended("1", 0.0, 1.0, "success", ""))
        at.ledger, at.version = answered(ended, "1", "success", ""), at.version + 1
    two.saved()
    two.rest()
    assert set(at.ledger.operations) <= {"1"}
    if over:
        assert two.answer("2") == Repeated("success", "", "1")
    else:
        assert two.state.drives["1"].waiters == ("2",)


def test_who_takes_over_takes_the_wishes_of_the_ledger_and_who_leads_keeps_its_own() -> None:
    (wish,) = wishes("a/prefill 9")
    at = shelf()
    at.ledger = attrs.evolve(at.ledger, wishes=(attrs.evolve(wish, seen_at=WALL - 50.0),))
    at.version = 2
    desk = Desk(at, "two", ceiling=8)
    desk.happen(Submitted("1", request("b/prefill 7"), 3.0))
    desk.loaded()
    assert [one.pool for one in desk.state.intents] == [key("b/prefill")]
    desk.happen(LeaseChanged(leading=False))
    desk.happen(LeaseChanged(leading=True))
    desk.loaded()
    assert [(one.pool, one.seen_at) for one in desk.state.intents] == [(key("a/prefill"), -50.0)]


def test_a_wish_of_a_clock_that_is_ahead_is_no_younger_than_now() -> None:
    (wish,) = wishes("a/prefill 9")
    planner = Planner("a/prefill 4x1").state.but(leading=False)
    ledger = attrs.evolve(planner.ledger, wishes=(attrs.evolve(wish, seen_at=WALL + 99.0),))
    after = step(planner, LedgerLoaded(ledger, "2", 5.0, WALL + 5.0)).state
    assert [one.seen_at for one in after.intents] == [5.0]


def test_a_ledger_that_is_read_before_the_cluster_is_held_against_it_later() -> None:
    ledger = Planner("a/prefill 4x1").ledger
    state = State(leading=True)
    (save,) = step(state, LedgerLoaded(ledger, "4", 0.0, WALL)).effects
    assert isinstance(save, Save)
    assert (save.ledger.epoch, save.ledger.entries) == (2, ledger.entries)


def test_who_begins_to_lead_holds_the_ledger_that_it_knows_already_against_what_it_sees() -> None:
    desk = Desk(shelf(), "two")
    desk.happen(LeaseChanged(leading=False))
    (changed,) = fleet("a/prefill 2x1").deployments()
    shown = Deployment(changed.id, (attrs.evolve(changed.pools[0], fence="settled"),))
    desk.happen(Seen(shown))
    desk.happen(LeaseChanged(leading=True))
    desk.loaded()
    assert [one.key.name for one in desk.state.ledger.adoptions()] == ["a"]


# what others have done ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended("1", 0.0, 1.0, "success", ""), Succeeded),
        (Ended("1", 0.0, 1.0, "error", "no"), Failed),
        (Ended("2", 0.0, 1.0, "success", ""), HandedOver),
    ],
)
def test_an_operation_that_another_planner_has_ended_is_answered_as_it_ended(ended: Ended, outcome: type) -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 5")
    others = closed(abandoned(settled(planner.ledger, object_key("a")), "1"), ended)
    planner.happen(LedgerLoaded(others, "9", 1.0, WALL))
    ((name, found),) = planner.replies
    assert (name, type(found)) == ("1", outcome)
    if isinstance(found, Failed):
        assert found.problem == "no"


def test_a_follower_writes_nothing_and_whoever_takes_over_writes_what_is_on_record_once() -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    one.happen(Submitted("1", request("a/prefill 5"), 0.0))
    one.saved()
    two.happen(LeaseChanged(leading=False))
    two.loaded()
    assert two.tick() == (Load(),)
    two.happen(LeaseChanged(leading=True))
    two.rest()
    assert [order for order in two.said if isinstance(order, Apply)] == [one.said[-1]]


# freezes --------------------------------------------------------------------------------------------------------------


def stored(at: Shelf) -> list[Freeze]:
    """Return the freezes that are on record."""
    return [*at.ledger.freezes]


def answers(planner: Planner) -> dict[str, object]:
    """Return the last answer to each request."""
    return dict(planner.replies)


def test_a_freeze_is_answered_when_it_is_on_record() -> None:
    desk = Desk(at := shelf(), "one")
    assert told(desk.happen(Froze("1", freeze()))) == ["Save"]
    assert desk.saved() == (Reply("1", Noted()),)
    assert stored(at) == [freeze()]
    assert desk.happen(Froze("2", freeze())) == (Reply("2", Noted()),), "it is on record already"
    assert told(desk.happen(Thawed("3", "f"))) == ["Save"]
    assert desk.saved() == (Reply("3", Noted()),)
    assert stored(at) == []
    assert desk.happen(Thawed("4", "f")) == (Reply("4", Noted()),)


def test_several_freezes_that_are_saved_together_are_all_answered() -> None:
    desk = Desk(at := shelf(), "one")
    for name in "123":
        desk.happen(Froze(name, freeze(name)))
    desk.saved()
    desk.saved()
    assert [desk.answer(name) for name in "123"] == [Noted()] * 3
    assert [one.id for one in at.ledger.freezes] == ["1", "2", "3"]


def test_a_freeze_that_a_later_word_has_overtaken_is_answered_with_that() -> None:
    desk = Desk(at := shelf(), "one")
    desk.happen(Submitted("0", request("a/prefill 5"), 0.0))
    desk.happen(Froze("1", freeze(direction="up")))
    desk.happen(Froze("2", freeze(direction="down")))
    desk.happen(Froze("3", freeze("g")))
    desk.happen(Thawed("4", "g"))
    desk.saved()
    assert not set(desk.replies) & {"1", "2"}
    desk.saved()
    assert [desk.answer(name) for name in "1234"] == [Noted()] * 4
    assert stored(at) == [freeze(direction="down")]


def test_a_freeze_that_is_ended_and_asked_for_again_before_anything_is_saved_holds() -> None:
    desk = Desk(at := shelf(), "one")
    desk.happen(Froze("1", freeze()))
    desk.saved()
    desk.happen(Thawed("2", "f"))
    desk.happen(Froze("3", freeze()))
    desk.rest()
    assert [desk.answer(name) for name in "123"] == [Noted()] * 3
    assert stored(at) == [freeze()]


def test_a_freeze_survives_a_conflict() -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    one.happen(Froze("1", freeze("f")))
    two.happen(Froze("2", freeze("g")))
    two.saved()
    assert told(one.saved()) == ["Load"]
    assert told(one.loaded()) == ["Save"]
    assert one.saved() == (Reply("1", Noted()),)
    assert [each.id for each in at.ledger.freezes] == ["g", "f"]


@pytest.mark.parametrize("word", [Froze("1", freeze()), Thawed("1", "g")])
def test_a_freeze_whose_lost_save_has_landed_is_answered_when_that_is_found(word: Froze | Thawed) -> None:
    at = shelf()
    at.ledger = attrs.evolve(at.ledger, freezes=(freeze("g"),))
    at.version = 2
    desk = Desk(at, "one")
    desk.loaded()
    desk.happen(word)
    desk.unsaved(lost=True, landed=True)
    assert Reply("1", Noted()) in desk.loaded()
    assert desk.save is None


def test_a_freeze_ends_by_the_clock_and_one_that_was_over_before_it_was_stored_is_answered() -> None:
    desk = Desk(at := shelf(), "one")
    desk.happen(Froze("1", freeze(until=WALL + 1.5)))
    desk.saved()
    desk.tick()
    assert stored(at) == [freeze(until=WALL + 1.5)]
    desk.tick()
    desk.saved()
    assert stored(at) == []
    desk.happen(Submitted("2", request("a/prefill 5"), 2.0))
    desk.happen(Froze("3", freeze(until=WALL + 2.5)))
    desk.tick()
    desk.rest()
    assert desk.answer("3") == Noted()


def test_without_a_ledger_nothing_can_be_frozen() -> None:
    planner = Planner("a/prefill 4x1")
    planner.happen(LedgerUnread("no answer"))
    assert planner.happen(Froze("1", freeze())) == (Reply("1", Rejected(LedgerDown("no answer"))),)
    bare = step(State(leading=True), Thawed("1", "f"))
    assert bare.effects == (Reply("1", Rejected(LedgerDown("it has not been read yet"))),)


def test_one_freeze_more_than_may_hold_is_refused_and_ends_none_that_was_promised() -> None:
    planner = Planner("a/prefill 4x1")
    many = tuple(freeze(f"f{at}") for at in range(MAX_FREEZES))
    for one in many:
        planner.happen(Froze(one.id, one))
    planner.happen(Froze("more", freeze("more")))
    full = Rejected(LedgerDown(f"{MAX_FREEZES} freezes hold, and it holds no more"))
    assert answers(planner)["more"] == full
    assert planner.ledger.freezes == many
    planner.happen(Froze("again", freeze("f0", "up")))
    assert answers(planner)["again"] == Noted()
    planner.happen(Thawed("end", "f1"))
    planner.happen(Froze("more", freeze("more")))
    assert answers(planner)["more"] == Noted()


# ends -----------------------------------------------------------------------------------------------------------------


def ended_desk() -> Desk:
    """Return a desk where an operation has ended, which is being saved."""
    desk = Desk(shelf(), "one")
    desk.happen(Submitted("1", request("a/prefill 5"), 0.0))
    (order,) = desk.saved()
    assert isinstance(order, Apply)
    assert order.step.fence is not None
    (shown,) = fleet("a/prefill 5x1").deployments()
    (one,) = shown.pools
    desk.happen(Seen(Deployment(shown.id, (attrs.evolve(one, fence=order.step.fence.new),))))
    desk.happen(StepApplied("1", order.step))
    return desk


def tells(effects: Iterable[object]) -> list[str]:
    return [one.ended.id for one in effects if isinstance(one, Tell)]


def test_an_end_is_handed_on_at_once_and_stored_as_told_with_it() -> None:
    desk = ended_desk()
    assert isinstance(desk.answer("1"), Succeeded)
    assert tells(desk.said) == ["1"]
    assert desk.happen(Told("1")) == ()
    desk.rest()
    assert [(one.id, one.told) for one in desk.shelf.ledger.ended] == [("1", True)]
    desk.rest()
    assert tells(desk.said) == ["1"]
    assert desk.happen(Told("unknown")) == ()


def test_an_end_that_was_told_late_is_stored_as_told_with_whatever_is_stored_next() -> None:
    desk = ended_desk()
    desk.rest()
    desk.happen(Told("1"))
    desk.rest()
    assert [one.told for one in desk.shelf.ledger.ended] == [False], "nothing is stored for that alone"
    desk.happen(Froze("2", freeze()))
    desk.rest()
    assert [one.told for one in desk.shelf.ledger.ended] == [True]
    assert tells(desk.said) == ["1"]


def test_an_end_that_could_not_be_kept_is_handed_on_again_with_the_next_save() -> None:
    desk = ended_desk()
    desk.happen(Told("1", kept=False))
    desk.rest()
    assert tells(desk.said) == ["1", "1"]


def test_an_end_that_nobody_heard_is_told_again_by_whoever_leads_next() -> None:
    desk = ended_desk()
    desk.rest()
    other = Desk(desk.shelf, "two")
    other.happen(LeaseChanged(leading=False))
    other.loaded()
    assert tells(other.said) == []
    other.happen(LeaseChanged(leading=True))
    other.rest()
    assert tells(other.said) == ["1"]
    other.happen(LeaseChanged(leading=False))
    other.happen(LeaseChanged(leading=True))
    other.rest()
    assert tells(other.said) == ["1", "1"], "itself too, when it leads again"


def test_what_the_ledger_has_under_way_holds_its_pools() -> None:
    one, two = Desk(at := shelf(), "one"), Desk(at, "two")
    one.happen(Submitted("1", request("a/prefill 6"), 0.0))
    one.saved()
    two.loaded()
    assert two.state.busy.get(key("a/prefill")) == "1"
    assert {pool.key: pool.reserved for pool in two.state.view.pools()} == {key("a/prefill"): 6, key("b/prefill"): None}


# of another's ledger only the difference ---------------------------------------------------------------------------


def _theirs(ledger: Ledger, changes: dict[str, int | None]) -> Ledger:
    """Return *ledger* as another planner left it: objects that have other replicas and fences, or are forgotten."""
    for name, replicas in changes.items():
        where = object_key(name)
        entry = ledger.entries[where]
        if replicas is None:
            ledger = forgotten(ledger, [where])
        else:
            held = tuple(one._replace(replicas=replicas) for one in entry.held)
            ledger = believed(ledger, [attrs.evolve(entry, fence=f"theirs {name}", held=held)])
    return ledger


@given(changes=st.dictionaries(st.sampled_from("abcd"), st.none() | st.integers(1, 6)), leads=st.booleans())
def test_to_take_in_the_difference_is_to_take_in_all(changes: dict[str, int | None], *, leads: bool) -> None:
    planner = Planner(*(f"{name}/prefill 4x1" for name in "abcd"), ceiling=40)
    state = planner.state.but(leading=leads)
    theirs = _theirs(state.ledger, changes)
    loaded = LedgerLoaded(theirs, "2", 1.0, WALL)
    by_difference = step(step(state, LedgerMoved()).state, loaded).state
    all_of_it = step(state.but(book=None), loaded).state
    assert _but_for_new_fences(by_difference) == _but_for_new_fences(all_of_it)


def _but_for_new_fences(state: State) -> tuple[object, ...]:
    entries = {(one.key, one.fence, one.held, one.reservation is not None) for one in state.ledger.entries.values()}
    return (entries, state.view, state.intents, state.behind, state.mint, state.leading, state.epoch)

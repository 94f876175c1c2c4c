"""The ledger: laws of every history of its operations, then an example for each of them."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.fences import Fence, Mint
from gpcore.ledger import (
    ENDED,
    Ended,
    Entry,
    Held,
    Ledger,
    ObjectKey,
    OverdrawnError,
    Reservation,
    abandoned,
    believed,
    closed,
    forgotten,
    held,
    killed,
    object_of,
    opened,
    replaced,
    reserved,
    settled,
    told,
    updated,
)
from gpcore.operations import Leg, Operation, Stage
from gpcore.plans import Change, Plan, Step
from gpcore.pools import Authority, ParticipantId, PoolKey, Role, Totals
from gpcore.testing.strategies import ledgers
from tests.core.words import key, pool, request

NAMES = ("a", "b", "c")
REQUEST = request("a/prefill 1")
COUNTS, GPUS = st.integers(0, 5), st.sampled_from((1, 2, 0, None))


def at(name: str) -> ObjectKey:
    return ObjectKey(ParticipantId("ns", name), name)


def rest(name: str, replicas: int, gpus: int | None = 1, *, fence: str = "settled") -> Entry:
    """Return the entry of an object with one pool, nothing of which is under way."""
    return Entry(at(name), fence, (Held(Role.PREFILL, replicas, gpus),))


def change(name: str, before: int, after: int, gpus: int | None = 1) -> Change:
    return Change(PoolKey(ParticipantId("ns", name), Role.PREFILL), before, after, gpus, Authority(name, "uid"))


def operation(name: str, *changes: Change) -> Operation:
    """Return the operation of these *changes*, none of it begun."""
    plan = Plan.of(changes)
    return Operation(name, REQUEST, plan, tuple(Leg(step) for step in plan.steps))


def ledger(*entries: Entry, floor: int = 0, ceiling: int | None = None) -> Ledger:
    return Ledger.of(entries, budget=Budget(floor, ceiling))


def fence(number: int, old: str = "settled") -> Fence:
    return Mint(f"fence {number}").fence(old)[0]


# laws -----------------------------------------------------------------------------------------------------------------


class History:
    """A ledger, and whatever can happen to it, drawn one after the other."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        entries = [rest(name, data.draw(COUNTS), data.draw(GPUS)) for name in NAMES]
        totals = Ledger.of(entries).totals.charged
        ceiling = data.draw(st.none() | st.integers(-2, 4).map(lambda slack: max(0, totals + slack)))
        floor = data.draw(st.integers(0, 6))
        self.ledger = ledger(*entries, floor=min(floor, floor if ceiling is None else ceiling), ceiling=ceiling)
        self.mint = Mint("history")
        self.opened = 0

    def go_on(self) -> bool:
        """Do one thing to the ledger, and say whether it is one of ours that may promise nothing beyond the ceiling."""
        waiting = [
            (one.id, at_)
            for one in self.ledger.operations.values()
            for at_, leg in enumerate(one.legs)
            if leg.stage is Stage.WAITING and self.free(leg.step)
        ]
        pending = sorted(self.ledger.pending, key=str)
        things = [self.open, self.believe, self.forget, self.adopt]
        things += [self.reserve] * 3 if waiting else []
        things += [self.settle, self.settle, self.kill] if pending else []
        things += [self.drop, self.close] if self.ledger.operations else []
        self.waiting, self.pending = waiting, pending
        thing = self.data.draw(st.sampled_from(things), label="then")
        try:
            self.ledger = thing()
        except OverdrawnError:
            return True
        return thing != self.believe

    def free(self, step: Step) -> bool:
        entry = self.ledger.entry(ObjectKey(step.participant, step.authority.name))
        return (
            entry is not None and entry.reservation is None and entry.replicas(Role.PREFILL) == step.changes[0].before
        )

    def pick(self, found: list[tuple[str, int]]) -> tuple[str, int]:
        return self.data.draw(st.sampled_from(found))

    def open(self) -> Ledger:
        """Open an operation; what it says of GPUs may be older than what the ledger has."""
        free = [one for one in self.ledger.entries.values() if one.reservation is None]
        names = self.data.draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
        chosen = sorted((one for one in free if one.key.name in names), key=str)
        changes = []
        for one in chosen:
            gpus = self.data.draw(st.sampled_from((one.held[0].gpus, one.held[0].gpus, 1, 2)))
            changes.append(change(one.key.name, one.held[0].replicas, self.data.draw(COUNTS), gpus))
        self.opened += 1
        return opened(self.ledger, operation(f"o{self.opened}", *changes))

    def reserve(self) -> Ledger:
        key_, leg = self.pick(self.waiting)
        step = self.ledger.operations[key_].legs[leg].step
        entry = self.ledger.entries[ObjectKey(step.participant, step.authority.name)]
        made, self.mint = self.mint.fence(entry.fence)
        return reserved(self.ledger, key_, leg, made)

    def settle(self) -> Ledger:
        return settled(self.ledger, self.data.draw(st.sampled_from(self.pending)))

    def kill(self) -> Ledger:
        key_ = self.data.draw(st.sampled_from(self.pending))
        (now,) = self.ledger.entries[key_].held
        fewer = self.data.draw(st.integers(0, now.replicas))
        return killed(self.ledger, key_, (now._replace(replicas=fewer),))

    def forget(self) -> Ledger:
        return forgotten(self.ledger, [at(self.data.draw(st.sampled_from(NAMES)))])

    def adopt(self) -> Ledger:
        entry = self.ledger.entry(at(self.data.draw(st.sampled_from(NAMES))))
        made, self.mint = self.mint.fence("stranger")
        return (
            self.ledger if entry is None else replaced(self.ledger, attrs.evolve(entry, reservation=Reservation(made)))
        )

    def believe(self) -> Ledger:
        name = self.data.draw(st.sampled_from(NAMES))
        before = self.ledger.entry(at(name)) or rest(name, 0)
        seen = (Held(Role.PREFILL, self.data.draw(COUNTS), self.data.draw(GPUS)),)
        return believed(self.ledger, [attrs.evolve(before, held=seen)])

    def drop(self) -> Ledger:
        one = self.data.draw(st.sampled_from(sorted(self.ledger.operations.values(), key=lambda one: one.id)))
        legs = tuple(Leg(leg.step, Stage.DROPPED) if leg.stage is Stage.WAITING else leg for leg in one.legs)
        return updated(self.ledger, attrs.evolve(one, legs=legs))

    def close(self) -> Ledger:
        one = self.data.draw(st.sampled_from(sorted(self.ledger.operations.values(), key=lambda one: one.id)))
        return self.ledger if one.reserved else closed(self.ledger, Ended(one.id, 0.0, 1.0, "success", ""))


@given(data=st.data(), length=st.integers(1, 20))
def test_nothing_of_ours_ever_raises_what_may_be_had_above_the_ceiling(data: st.DataObject, length: int) -> None:
    history = History(data)
    for _ in range(length):
        before = history.ledger
        if history.go_on():
            ceiling = before.totals.charged if before.budget.ceiling is None else before.budget.ceiling
            assert before.budget.ceiling is None or history.ledger.totals.charged <= max(ceiling, before.totals.charged)


@given(data=st.data(), length=st.integers(1, 20))
def test_sums_are_always_as_if_made_anew(data: st.DataObject, length: int) -> None:
    history = History(data)
    for _ in range(length):
        history.go_on()
        now = history.ledger
        anew = Ledger.of(now.entries.values(), now.operations.values(), budget=now.budget)
        assert (now.totals, now.pending) == (anew.totals, anew.pending)
        assert {one.key for one in now.adoptions()} <= set(now.pending)
        assert now.escrow >= 0
        assert now.dip >= 0


@given(data=st.data(), length=st.integers(1, 20))
def test_what_becomes_certain_never_raises_what_may_be_had(data: st.DataObject, length: int) -> None:
    history = History(data)
    for _ in range(length):
        history.go_on()
        now = history.ledger
        for one in now.pending:
            after = (settled(now, one), killed(now, one, now.entries[one].held), forgotten(now, [one]))
            assert all(then.totals.charged <= now.totals.charged for then in after)


@given(data=st.data(), length=st.integers(1, 20))
def test_a_leg_is_reserved_as_long_as_its_object_is_and_no_longer(data: st.DataObject, length: int) -> None:
    history = History(data)
    for _ in range(length):
        history.go_on()
        promised = {
            one.reservation.fence
            for one in history.ledger.entries.values()
            if one.reservation is not None and not one.reservation.adopts
        }
        legs = {step.fence for one in history.ledger.operations.values() for step in one.reserved}
        assert promised == legs


@given(one=ledgers())
def test_the_least_is_never_more_than_the_most(one: Ledger) -> None:
    assert one.totals.least <= one.totals.charged
    assert all(entry.totals.least <= entry.totals.charged for entry in one.entries.values())


# examples -------------------------------------------------------------------------------------------------------------


def test_an_object_is_named_by_its_deployment_and_its_authority() -> None:
    one = pool("a/prefill 4x2")
    assert object_of(one) == at("a")
    assert str(object_of(one)) == "ns/a/a"
    assert held([pool("a/prefill 4x2"), pool("a/decode 1x1")]) == (Held(Role.DECODE, 1, 1), Held(Role.PREFILL, 4, 2))


def test_a_state_is_a_word() -> None:
    one = ledger(rest("a", 4), ceiling=4)
    assert (one.state, attrs.evolve(one, complete=True).state) == ("Bootstrapping", "Active")
    over = believed(attrs.evolve(one, complete=True), [rest("a", 6)])
    assert (over.state, over.excess) == ("OverCommitted", 2)


def test_what_is_reserved_counts_for_the_more_until_it_is_settled() -> None:
    before = opened(ledger(rest("a", 4), ceiling=6), operation("1", change("a", 4, 6)))
    assert (before.totals, before.escrow) == (Totals(6, 4), 2)
    after = reserved(before, "1", 0, fence(1))
    assert (after.totals, after.escrow) == (Totals(6, 4), 0)
    assert not after.entries[at("a")].settled
    done = settled(after, at("a"))
    assert done.entries[at("a")] == rest("a", 6, fence=fence(1).new)
    assert done.operations["1"].done == (attrs.evolve(before.operations["1"].legs[0].step, fence=fence(1)),)
    assert settled(done, at("a")) is done
    assert killed(done, at("a"), ()) is done


def test_what_was_killed_has_what_was_found() -> None:
    before = reserved(opened(ledger(rest("a", 4)), operation("1", change("a", 4, 6))), "1", 0, fence(1))
    after = killed(before, at("a"), (Held(Role.PREFILL, 3, 1),))
    assert after.entries[at("a")] == rest("a", 3, fence=fence(1).kill)
    assert after.operations["1"].at(Stage.DROPPED)


def test_what_would_be_above_the_ceiling_is_not_promised() -> None:
    before = ledger(rest("a", 4), rest("b", 4), ceiling=9)
    with pytest.raises(OverdrawnError, match=r"10 GPUs, above the ceiling \(9\)"):
        opened(before, operation("1", change("a", 4, 6)))
    one = opened(before, operation("1", change("a", 4, 5)))
    with pytest.raises(OverdrawnError):
        opened(one, operation("2", change("b", 4, 5)))


def test_what_was_released_is_kept_for_what_it_is_for_and_for_the_way_back() -> None:
    one = opened(ledger(rest("a", 4), rest("b", 4), ceiling=8), operation("1", change("a", 4, 6), change("b", 4, 2)))
    assert one.escrow == 0
    one = settled(reserved(one, "1", 0, fence(1)), at("b"))
    assert (one.totals.charged, one.escrow) == (8, 2)
    with pytest.raises(OverdrawnError):
        opened(one, operation("2", change("b", 2, 3)))
    one = reserved(one, "1", 1, fence(2))
    assert (one.totals.charged, one.escrow) == (8, 0)
    back = killed(one, at("a"), (Held(Role.PREFILL, 4, 1),))
    assert (back.totals.charged, back.escrow) == (8, 2)
    assert abandoned(back, "1").totals.charged == 6


def test_of_what_shrank_meanwhile_no_more_is_kept_than_came_free() -> None:
    one = opened(ledger(rest("a", 4, 1), rest("b", 4, 2)), operation("1", change("a", 4, 2, 2), change("b", 4, 5, 2)))
    one = settled(reserved(one, "1", 0, fence(1)), at("a"))
    assert one.escrow == 2, "not the four that the step says"


def test_a_release_that_is_alone_keeps_nothing() -> None:
    one = opened(ledger(rest("a", 4), ceiling=4), operation("1", change("a", 4, 2)))
    one = settled(reserved(one, "1", 0, fence(1)), at("a"))
    assert (one.totals.charged, one.escrow) == (2, 0)


def test_a_transfer_owns_to_the_dip_below_the_floor_that_it_may_cause() -> None:
    transfer = operation("1", change("a", 4, 6), change("b", 4, 2))
    assert opened(ledger(rest("a", 4), rest("b", 4), floor=8), transfer).dip == 2
    assert opened(ledger(rest("a", 4), rest("b", 4), floor=7), transfer).dip == 1
    assert opened(ledger(rest("a", 4), rest("b", 4), floor=5), transfer).dip == 0
    assert opened(ledger(rest("a", 4), floor=4), operation("1", change("a", 4, 2))).dip == 0


def test_what_is_gone_is_forgotten_with_its_leg() -> None:
    one = reserved(opened(ledger(rest("a", 4)), operation("1", change("a", 4, 6))), "1", 0, fence(1))
    after = forgotten(one, [at("a"), at("z")])
    assert (len(after.entries), after.totals) == (0, Totals())
    assert after.operations["1"].at(Stage.DROPPED)


def test_whoever_is_adopted_loses_what_was_reserved() -> None:
    one = reserved(opened(ledger(rest("a", 4)), operation("1", change("a", 4, 6))), "1", 0, fence(1))
    adopting = attrs.evolve(one.entries[at("a")], reservation=Reservation(fence(2, "stranger")))
    after = replaced(one, adopting)
    assert [entry.key for entry in after.adoptions()] == [at("a")]
    assert after.operations["1"].at(Stage.DROPPED)
    assert replaced(after, rest("b", 1)).entries[at("b")] == rest("b", 1)


def test_a_pool_of_an_unknown_shape_charges_nothing_and_has_its_place() -> None:
    one = rest("a", 4, None)
    assert one.totals == Totals()
    assert (one.replicas(Role.PREFILL), one.replicas(Role.DECODE)) == (4, None)


def test_a_reservation_for_an_operation_that_nobody_knows_is_settled_all_the_same() -> None:
    """As it may be after somebody has edited the ledger by hand."""
    stray = attrs.evolve(rest("a", 4), reservation=Reservation(fence(1), "unknown", ((Role.PREFILL, 2),)))
    assert settled(ledger(stray), at("a")).entries[at("a")] == rest("a", 2, fence=fence(1).new)
    strange = Ledger.of([stray], [attrs.evolve(operation("unknown", change("b", 4, 6)))])
    assert settled(strange, at("a")).operations == strange.operations


def test_the_newest_ends_are_remembered_and_whether_they_were_told() -> None:
    one = ledger()
    for number in range(ENDED + 3):
        one = closed(one, Ended(f"o{number}", float(number), number + 1.0, "success", ""))
    assert [(one.ended[0].id, one.ended[-1].id)] == [("o3", f"o{ENDED + 2}")]
    again = told(one, "o5")
    assert [ended.id for ended in again.ended if ended.told] == ["o5"]
    assert told(again, "o5") is again
    assert told(again, "o0") is again
    assert abandoned(again, "nobody") is again


def test_the_first_pool_of_a_key_is_found_by_its_role() -> None:
    entry = Entry(at("a"), "f", held([pool("a/prefill 4x2"), pool("a/decode 1x1")]))
    assert (entry.replicas(key("a/prefill").role), entry.replicas(key("a/decode").role)) == (4, 1)

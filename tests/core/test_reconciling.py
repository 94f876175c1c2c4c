"""The ledger held against what is seen: laws of every view, then an example for each way that an object may look."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.control import Rules, State, step
from gpcore.events import Apply, LeaseChanged, LedgerSaved, Listed, Load, Mark, Marked, Seen, Stale, Submitted, Ticked
from gpcore.indexes import Index
from gpcore.ledger import Entry, Held, Ledger, ObjectKey, held
from gpcore.management import Management
from gpcore.operations import Stage
from gpcore.pools import Authority, Deployment, Role, Snapshot
from gpcore.reconciling import (
    PATIENCE,
    authority_of,
    due,
    estranged,
    left_behind,
    looked_for,
    mark,
    missing,
    recarried_all,
    reconciled,
)
from gpcore.states import FULL_BYTES
from gpcore.testing.settled import FENCE
from tests.core.driving import Planner, object_key, told
from tests.core.words import fleet, key, pool, request

A = object_key("a")
COUNTS, GPUS = st.integers(0, 6), st.sampled_from((1, 2, 0, None))


def shown(text: str, *, fence: str | None = FENCE, uid: str = "uid") -> Deployment:
    """Return the deployment of one pool, as its object shows it."""
    one = pool(text)
    one = attrs.evolve(one, fence=fence, authority=Authority(one.authority.name, uid))
    return Deployment(one.key.participant, (one,))


def entry_of(state: State, name: str = "a") -> Entry:
    entry = state.ledger.entry(object_key(name))
    assert entry is not None
    return entry


# laws -----------------------------------------------------------------------------------------------------------------


@st.composite
def planners(draw: st.DrawFn) -> Planner:
    """Draw a planner of one object: at rest, being written to, being adopted, or new."""
    planner = Planner("a/prefill 3x1", ceiling=draw(st.sampled_from((3, 6, 20))))
    match draw(st.sampled_from(("rests", "is written to", "is adopted", "is new", "was killed"))):
        case "is written to":
            planner.ask(f"a/prefill {draw(COUNTS)}")
        case "is adopted":
            planner.see(f"a/prefill {draw(COUNTS)}x1")
        case "is new":
            planner.state = planner.state.drafting(Ledger(planner.ledger.budget, epoch=1))
        case "was killed":
            planner.ask("a/prefill 2")
            planner.refused()
        case _:
            pass
    return planner


@st.composite
def views(draw: st.DrawFn, planner: Planner) -> Deployment:
    """Draw how the object may look: with any fence that is known, or another, and any replicas."""
    entry = planner.entry("a")
    known = [FENCE, "", "of a stranger"]
    if entry is not None and entry.reservation is not None:
        known += list(entry.reservation.fence)
    one = attrs.evolve(
        pool("a/prefill 0x1"),
        replicas=draw(COUNTS),
        gpus_per_replica=draw(GPUS),
        fence=draw(st.sampled_from((*known, None))),
    )
    return Deployment(one.key.participant, (one,))


@given(data=st.data())
def test_what_was_taken_in_changes_nothing_when_it_is_seen_again(data: st.DataObject) -> None:
    planner = data.draw(planners())
    view = data.draw(views(planner))
    once, _ = reconciled(planner.state, [view])
    twice, _ = reconciled(once, [view])
    assert twice.ledger is once.ledger or twice.ledger == once.ledger
    assert twice.behind == once.behind
    assert twice.mint == once.mint


@given(data=st.data())
def test_what_others_have_raised_counts_at_once_and_what_they_lowered_only_when_a_new_fence_shows_it(
    data: st.DataObject,
) -> None:
    planner = data.draw(planners())
    view = data.draw(views(planner))
    before = planner.entry("a")
    state, _ = reconciled(planner.state, [view])
    fence, (seen,) = view.pools[0].fence, held(view.pools)
    after = state.ledger.entry(A)
    if fence is None:
        assert after == before, "what another ledger claims is not ours to count"
        return
    assert after is not None
    ours = before is not None and before.reservation is not None and fence in before.reservation.fence[1:]
    if before is not None and not ours:
        assert after.totals.charged >= before.totals.charged
    known = [] if before is None else [before.fence]
    known += [before.reservation.fence.old] if before is not None and before.reservation is not None else []
    if before is None or fence in known:
        assert after.held[0].replicas >= seen.replicas
        assert seen.gpus is None or (after.held[0].gpus or 0) >= seen.gpus


@given(data=st.data())
def test_nothing_is_lowered_but_by_a_fence_that_was_made_for_it(data: st.DataObject) -> None:
    planner = data.draw(planners())
    view = data.draw(views(planner))
    state, _ = reconciled(planner.state, [view])
    for again in (left_behind(state), missing(state), looked_for(state, [A])):
        assert again.ledger.totals.charged == state.ledger.totals.charged


@given(data=st.data())
def test_who_does_not_lead_takes_nothing_into_the_ledger(data: st.DataObject) -> None:
    planner = data.draw(planners())
    view = data.draw(views(planner))
    follower = planner.state.but(leading=False)
    state, concerned = reconciled(follower, [view])
    assert state.ledger is follower.ledger
    assert (concerned, due(state)) == (set(), (state, ()))
    assert missing(state) is left_behind(state) is state


@given(data=st.data())
def test_whatever_is_written_needs_the_fence_that_is_on_record_and_is_written_once(data: st.DataObject) -> None:
    planner = data.draw(planners())
    view = data.draw(views(planner))
    planner.waits(Seen(view))
    planner.waits(Ticked(1.0))
    said: list[object] = []
    while (book := planner.state.book) is not None and book.saving is not None:
        stored = book.saving
        said += planner.waits(LedgerSaved("9"))
        for order in [one for one in said if isinstance(one, Apply | Mark)]:
            name = (
                order.key if isinstance(order, Mark) else ObjectKey(order.step.participant, order.step.authority.name)
            )
            entry = stored.entries[name]
            assert entry.reservation is not None
            if isinstance(order, Apply):
                assert order.step.fence == entry.reservation.fence
            else:
                assert (order.old, order.new) in (entry.reservation.fence[:2], entry.reservation.fence[::2])
        said = []
    assert due(planner.state)[1] == ()


# one object -----------------------------------------------------------------------------------------------------------


def test_a_new_object_is_put_on_record_before_it_is_marked_and_marked_before_it_may_grow() -> None:
    planner = Planner("a/prefill 4x1", ceiling=20)
    saves = planner.waits(Seen(shown("b/prefill 2x1", fence="")))
    assert told(saves) == ["Save"]
    entry = planner.entry("b")
    assert entry is not None
    assert entry.reservation is not None
    assert (entry.fence, entry.held, entry.reservation.adopts) == ("", (Held(Role.PREFILL, 2, 1),), True)
    assert planner.ledger.totals.charged == 6
    assert told(planner.happen(LedgerSaved("2"))) == ["mark b"]
    assert told(planner.ask("b/prefill 3")) == ["Decided", "reply 1 Rejected"]
    planner.marked()
    settled = planner.entry("b")
    assert settled is not None
    assert (settled.fence, settled.settled) == (entry.reservation.fence.new, True)
    assert told(planner.ask("b/prefill 3", name="2")) == ["Decided", "apply b 3"]


def test_a_new_object_that_carries_a_fence_of_another_life_is_marked_through_it() -> None:
    planner = Planner("a/prefill 4x1")
    planner.see("b/prefill 2x1", fence="of another life")
    assert planner.marks[-1].old == "of another life"


def test_what_another_ledger_claims_is_left_alone() -> None:
    planner = Planner("a/prefill 4x1")
    assert planner.see("b/prefill 2x1", fence=None) == ()
    assert planner.entry("b") is None


def test_a_full_ledger_takes_in_no_new_object_and_goes_on_with_those_that_it_has() -> None:
    planner = Planner("a/prefill 4x1")
    assert planner.state.book is not None
    planner.state = planner.state.but(book=attrs.evolve(planner.state.book, size=FULL_BYTES))
    assert planner.see("b/prefill 2x1", fence="") == ()
    assert planner.entry("b") is None
    assert told(planner.see("a/prefill 3x1")) == ["mark a"]


def test_what_somebody_raised_behind_the_ledger_is_believed_as_it_is() -> None:
    planner = Planner("a/prefill 4x1", ceiling=5)
    assert told(planner.see("a/prefill 7x1")) == []
    assert (planner.ledger.totals.charged, planner.ledger.state) == (7, "OverCommitted")
    entry = entry_of(planner.state)
    assert (entry.fence, entry.held, entry.settled) == (FENCE, (Held(Role.PREFILL, 7, 1),), True)
    planner.happen(Ticked(1.0))
    assert planner.state.book is not None
    assert planner.state.book.stored.totals.charged == 7, "and put on record with the clock"


def test_what_somebody_raised_and_took_back_counts_until_the_mark_is_seen() -> None:
    planner = Planner("a/prefill 4x1", ceiling=5)
    planner.see("a/prefill 7x1")
    assert told(planner.see("a/prefill 4x1")) == ["mark a"]
    assert planner.ledger.totals.charged == 7
    planner.marked()
    assert planner.ledger.totals.charged == 4


def test_what_somebody_lowered_counts_until_the_mark_is_seen() -> None:
    planner = Planner("a/prefill 4x1", ceiling=5)
    assert told(planner.see("a/prefill 1x1")) == ["mark a"]
    assert planner.ledger.totals.charged == 4, "older news may follow"
    planner.marked()
    assert planner.ledger.totals.charged == 1


def test_what_is_raised_while_it_is_adopted_counts_at_once() -> None:
    planner = Planner("a/prefill 4x1", ceiling=9)
    planner.see("a/prefill 1x1")
    assert planner.see("a/prefill 8x1") == ()
    assert planner.ledger.totals.charged == 8
    assert planner.see("a/prefill 3x1", fence="of a stranger") == ()
    assert planner.ledger.totals.charged == 8
    planner.marked()
    assert planner.ledger.totals.charged == 3


def test_what_is_raised_while_it_is_written_to_counts_beside_what_is_reserved() -> None:
    planner = Planner("a/prefill 4x1", ceiling=20)
    planner.ask("a/prefill 3")
    planner.see("a/prefill 9x1")
    assert planner.ledger.totals.charged == 9


def test_a_shape_that_is_not_shown_is_as_it_was() -> None:
    planner = Planner("a/prefill 4x2")
    blind = attrs.evolve(pool("a/prefill 4x2"), gpus_per_replica=None, fence=FENCE)
    planner.happen(Seen(Deployment(blind.key.participant, (blind,))))
    entry = planner.entry("a")
    assert entry is not None
    assert entry.held == (Held(Role.PREFILL, 4, 2),)
    assert entry.settled


def test_a_shape_that_was_never_known_is_taken_when_it_is() -> None:
    planner = Planner("a/prefill 4x1")
    blind = attrs.evolve(pool("b/prefill 4x1"), gpus_per_replica=None, fence="")
    planner.happen(Seen(Deployment(blind.key.participant, (blind,))))
    planner.marked()
    assert planner.ledger.totals.charged == 4
    planner.see("b/prefill 4x3", fence=planner.fence("b"))
    assert planner.ledger.totals.charged == 16


def test_a_role_that_appears_is_believed_and_one_that_goes_is_adopted() -> None:
    planner = Planner("a/prefill 4x1")
    both = tuple(attrs.evolve(pool(one), fence=FENCE) for one in ("a/prefill 4x1", "a/decode 2x1"))
    planner.happen(Seen(Deployment(A.participant, both)))
    assert planner.ledger.totals.charged == 6
    assert entry_of(planner.state).settled
    assert told(planner.see("a/prefill 4x1")) == ["mark a"]
    assert planner.ledger.totals.charged == 6
    planner.marked()
    assert planner.ledger.totals.charged == 4


# fences ---------------------------------------------------------------------------------------------------------------


def test_the_new_fence_settles_a_write_whatever_the_replicas_are_by_then() -> None:
    planner = Planner("a/prefill 4x1", ceiling=20)
    planner.ask("a/prefill 6")
    fence = planner.order()[1].fence
    assert fence is not None
    assert told(planner.see("a/prefill 5x1", fence=fence.new)) == ["reply 1 Succeeded", "mark a"]
    entry = planner.entry("a")
    assert entry is not None
    assert (entry.fence, entry.held[0].replicas) == (fence.new, 6), "until the adoption shows that it was lowered"


def test_the_killing_fence_shows_that_a_write_can_never_land() -> None:
    planner = Planner("a/prefill 4x1", ceiling=20)
    planner.ask("a/prefill 6")
    planner.refused()
    planner.marked()
    entry = planner.entry("a")
    assert entry is not None
    assert (entry.fence, entry.held[0].replicas, entry.reservation) == (planner.marks[0].new, 4, None)


def test_an_unknown_fence_counts_as_it_did_lets_nothing_grow_and_has_the_ledger_read() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", ceiling=20)
    assert planner.see("a/prefill 9x1", fence="of a stranger") == (Load(),)
    assert planner.ledger.totals.charged == 8
    assert told(planner.ask("b/prefill 5")) == ["Decided", "reply 1 Rejected"]
    assert told(planner.ask("b/prefill 3", name="2")) == ["Decided", "apply b 3"]
    assert planner.see("a/prefill 9x1", fence="of a stranger") == ()
    assert planner.see("a/prefill 4x1") == ()
    assert len(planner.state.behind) == 0


def test_an_unknown_fence_is_adopted_when_it_has_stood_for_so_many_ticks() -> None:
    planner = Planner("a/prefill 4x1", ceiling=20)
    planner.see("a/prefill 9x1", fence="of a stranger")
    for at in range(PATIENCE):
        assert planner.happen(Ticked(float(at))) == ()
    assert told(planner.happen(Ticked(9.0))) == ["mark a"]
    assert planner.marks[-1].old == "of a stranger"
    planner.marked()
    entry = planner.entry("a")
    assert entry is not None
    assert (entry.held[0].replicas, entry.settled, len(planner.state.behind)) == (9, True, 0)


def test_what_is_no_more_behind_is_forgotten_with_the_tick() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1")
    planner.see("a/prefill 4x1", fence="of a stranger")
    state = planner.state
    assert len(left_behind(state.but(snapshot=fleet())).behind) == 0
    assert len(left_behind(state.drafting(Ledger())).behind) == 0
    known = state.drafting(attrs.evolve(state.ledger, entries=Index([(A, Entry(A, "of a stranger", ()))])))
    assert len(left_behind(known).behind) == 0


def test_an_object_without_a_fence_of_ours_is_adopted_although_it_looks_as_the_ledger_has_it() -> None:
    planner = Planner("a/prefill 4x1")
    bare = attrs.evolve(entry_of(planner.state), fence="")
    ledger = attrs.evolve(planner.ledger, entries=Index([(A, bare)]))
    planner.state = planner.state.drafting(ledger)
    assert told(planner.see("a/prefill 4x1", fence="")) == ["mark a"]
    planner.marked()
    assert entry_of(planner.state).settled


def test_an_adoption_that_was_made_of_older_news_is_dropped_when_the_entry_is_as_it_should_be() -> None:
    planner = Planner("a/prefill 4x1")
    planner.see("a/prefill 4x1", fence="of a stranger")
    for at in range(PATIENCE + 1):
        planner.happen(Ticked(float(at)))
    assert len(planner.marks) == 1
    assert planner.see("a/prefill 4x1") == (), "the stranger's fence was older than the one that is on record"
    assert entry_of(planner.state).settled


def test_a_mark_that_was_refused_where_a_stranger_was_quicker_is_made_anew() -> None:
    planner = Planner("a/prefill 4x1")
    planner.see("a/prefill 3x1")
    planner.see("a/prefill 6x1", fence="of a stranger")
    assert told(planner.happen(Marked(planner.marks[0]))) == ["mark a"]
    assert planner.marks[-1].old == "of a stranger"
    planner.marked()
    assert (entry_of(planner.state).held[0].replicas, entry_of(planner.state).settled) == (6, True)


def test_a_write_that_a_stranger_made_impossible_ends_when_its_mark_is_refused() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.see("a/prefill 4x1", fence="of a stranger")
    assert told(planner.refused()) == ["mark a"]
    assert "reply 1 Failed" in told(planner.happen(Marked(planner.marks[0])))
    assert entry_of(planner.state).reservation is not None
    planner.happen(Ticked(1.0))
    planner.marked()
    assert entry_of(planner.state).settled
    assert planner.ledger.totals.charged == 4


def test_an_object_that_was_made_anew_with_its_old_fence_is_another_one() -> None:
    """As by `kubectl get -o yaml`, `delete` and `apply`: no write for the first one can reach it."""
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.see("a/prefill 4x1", uid="another")
    assert told(planner.refused()) == ["mark a"]
    planner.happen(Marked(planner.marks[0]))
    planner.happen(Ticked(1.0))
    assert planner.marks[-1].authority.uid == "another"
    planner.marked()
    assert entry_of(planner.state).settled
    assert planner.ledger.totals.charged == 4
    assert len(planner.state.busy) == 0


def test_a_refused_mark_says_nothing_where_nothing_is_shown_or_all_is_as_it_was() -> None:
    planner = Planner("a/prefill 4x1")
    planner.see("a/prefill 3x1")
    state, one = planner.state, planner.marks[0]
    assert estranged(state, one) is state, "its old fence stands there, so it may be tried again"
    assert estranged(state.but(leading=False), one) == state.but(leading=False)
    gone = state.but(snapshot=fleet())
    assert estranged(gone, one) is gone
    unknown = state.drafting(Ledger())
    assert estranged(unknown, one) is unknown
    rest = Planner("a/prefill 4x1").state
    assert estranged(rest, one) is rest


# what is missing ------------------------------------------------------------------------------------------------------


def test_what_a_list_does_not_show_is_looked_for_by_name_and_forgotten_when_it_is_not_there() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", ceiling=8)
    assert told(planner.happen(Listed((shown("a/prefill 4x1"),)))) == ["mark b"]
    assert planner.ledger.totals.charged == 8, "the list may be old"
    assert planner.marks[0].authority == Authority("b"), "whatever its uid is"
    planner.happen(Marked(planner.marks[0], absent=True))
    assert planner.entry("b") is None
    assert planner.ledger.totals.charged == 4


def test_what_is_found_by_its_name_is_adopted() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", ceiling=20)
    planner.happen(Listed((shown("a/prefill 4x1"),)))
    order = planner.marks[0]
    planner.happen(Seen(shown("b/prefill 5x1", fence=order.new, uid="new")))
    planner.happen(Marked(order))
    assert (entry_of(planner.state, "b").settled, planner.ledger.totals.charged) == (True, 9)


def test_what_is_not_managed_any_more_is_forgotten_at_once() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1")
    planner.state = planner.state.but(rules=Rules(Management(frozenset({"ns-a"}))))
    assert planner.happen(Listed(tuple(planner.snapshot.deployments()))) == ()
    assert planner.entry("b") is None


def test_nothing_is_missing_while_nobody_knows_or_may_say_so() -> None:
    state = Planner("a/prefill 4x1", "b/prefill 4x1").state.but(snapshot=fleet("a/prefill 4x1"))
    for blind in (
        state.but(book=None),
        state.but(snapshot=None),
        state.but(stale=True),
        state.but(leading=False),
    ):
        assert missing(blind) is blind
    assert [one.key.name for one in missing(state).ledger.adoptions()] == ["b"]


def test_what_is_being_written_to_is_not_looked_for_beside_that() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    assert planner.happen(Listed(())) == ()
    assert entry_of(planner.state).reservation is not None
    assert not entry_of(planner.state).reservation.adopts  # type: ignore[union-attr]
    assert looked_for(planner.state, [ObjectKey(A.participant, "unknown")]).ledger is planner.ledger


def test_an_object_that_was_deleted_while_it_was_written_to_ends_its_operation() -> None:
    planner = Planner("a/prefill 4x1")
    planner.ask("a/prefill 6")
    planner.happen(Listed(()))
    planner.refused(why="there is no such object")
    assert told(planner.happen(Marked(planner.marks[-1], absent=True)))[-1] == "reply 1 Rejected"
    assert planner.entry("a") is None
    assert len(planner.state.operations) == len(planner.state.busy) == 0


# a whole ledger -------------------------------------------------------------------------------------------------------


def bare(*pools: str) -> Planner:
    """Return a planner that leads over an empty ledger, and has not seen its *pools* yet."""
    planner = Planner()
    ledger = attrs.evolve(Ledger(Budget(0, 20)), epoch=1)
    assert planner.state.book is not None
    planner.state = planner.state.but(snapshot=None, book=attrs.evolve(planner.state.book, stored=ledger, draft=ledger))
    planner.happen(Listed(tuple(attrs.evolve(one) for one in fleet(*pools).deployments())))
    return planner


def test_a_ledger_is_complete_when_all_that_a_list_showed_is_adopted() -> None:
    planner = bare("a/prefill 4x1", "b/prefill 2x1")
    assert (planner.ledger.complete, planner.ledger.totals.charged) == (False, 6)
    assert not planner.state.ready
    planner.marked(0)
    assert not planner.ledger.complete
    planner.marked(1)
    assert planner.ledger.complete
    assert planner.state.ready


def test_an_empty_cluster_makes_an_empty_and_complete_ledger() -> None:
    assert bare().ledger.complete


def test_a_ledger_does_not_become_complete_on_a_stale_view() -> None:
    planner = bare("a/prefill 4x1")
    planner.happen(Stale())
    planner.marked()
    assert not planner.ledger.complete
    planner.relist()
    assert planner.ledger.complete


# orders ---------------------------------------------------------------------------------------------------------------


def test_nothing_is_written_before_it_is_on_record_or_by_who_does_not_lead() -> None:
    planner = Planner("a/prefill 4x1")
    assert told(planner.waits(Submitted("1", request("a/prefill 6"), 0.0))) == ["Decided", "Save"]
    assert due(planner.state) == (planner.state, ())
    stored = step(planner.state, LedgerSaved("2"))
    assert told(stored.effects) == ["apply a 6"]
    assert due(stored.state) == (stored.state, ()), "and once"
    fresh = stored.state.but(drives={})
    (_, orders) = due(fresh)
    assert orders == stored.effects
    assert due(fresh.but(leading=False))[1] == ()
    assert due(fresh.but(book=None))[1] == ()


def test_what_is_on_record_and_settled_meanwhile_is_not_written() -> None:
    planner = Planner("a/prefill 4x1")
    planner.waits(Submitted("1", request("a/prefill 6"), 0.0))
    entry = entry_of(planner.state)
    assert entry.reservation is not None
    planner.waits(Seen(shown("a/prefill 6x1", fence=entry.reservation.fence.new)))
    assert not [one for one in planner.waits(LedgerSaved("2")) if isinstance(one, Apply)]


def test_an_adoption_is_ordered_once_until_it_is_answered() -> None:
    planner = Planner("a/prefill 4x1")
    planner.see("a/prefill 3x1")
    assert due(planner.state)[1] == ()
    planner.happen(Marked(planner.marks[0], lost=True))
    assert told(planner.happen(Ticked(1.0))) == ["mark a"]
    assert planner.marks[0] == planner.marks[1]


def test_a_mark_names_the_object_as_it_is_seen() -> None:
    state = Planner("a/prefill 4x1").state
    assert authority_of(state, A) == Authority("a", "uid")
    assert authority_of(state, object_key("z")) == Authority("z")
    assert authority_of(state, ObjectKey(A.participant, "other")) == Authority("other")
    fence, _ = state.mint.fence(FENCE)
    assert mark(state, A, fence, fence.kill) == Mark(A, Authority("a", "uid"), FENCE, fence.kill)


def test_of_one_operation_the_legs_that_are_reserved_are_written_and_no_other() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 3", name="0")
    planner.ask("a/prefill 5")
    (_, orders) = due(planner.state.but(drives={}))
    assert [one.step.changes[0].pool for one in orders if isinstance(one, Apply)] == [key("b/prefill")]
    assert [leg.stage for leg in planner.state.operations["1"].legs] == [Stage.RESERVED, Stage.WAITING]


# promises -------------------------------------------------------------------------------------------------------------


def test_what_is_not_as_the_ledger_has_it_is_promised_the_more_of_both() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1")
    planner.see("a/prefill 9x1", fence="of a stranger")
    unpromised = Snapshot.of(
        attrs.evolve(one, pools=tuple(free.reserving(None) for free in one.pools))
        for one in planner.snapshot.deployments()
    )
    state = recarried_all(planner.state.but(snapshot=unpromised))
    assert {one.key: one.reserved for one in state.view.pools()} == {key("a/prefill"): 4, key("b/prefill"): None}
    assert recarried_all(state.but(snapshot=None)).snapshot is None


@pytest.mark.parametrize("leading", [True, False])
def test_without_a_ledger_nothing_is_held_against_it(*, leading: bool) -> None:
    state = Planner("a/prefill 4x1").state.but(book=None, leading=leading)
    assert reconciled(state, state.view.deployments()) == (state, set())
    assert left_behind(state) is state
    assert step(state, LeaseChanged(leading=leading)).state.book is None


def test_an_object_of_several_pools_is_one_entry() -> None:
    planner = Planner("a/prefill 4x1", "a/decode 2x1")
    assert [one.key.name for one in planner.ledger.entries.values()] == ["a"]
    assert entry_of(planner.state).held == (Held(Role.DECODE, 2, 1), Held(Role.PREFILL, 4, 1))

"""What holds changes back: laws of freezes and limits, then an example for each branch."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.control import Rules
from gpcore.decisions import Frozen, LimitReached
from gpcore.errors import InvalidError
from gpcore.holding import (
    DIRECTIONS,
    MAX_FREEZE_S,
    Limits,
    checked_freeze,
    frozen,
    held_back,
    noted,
    with_freeze,
    without_freezes,
)
from gpcore.ledger import Freeze, Ledger, Move
from gpcore.plans import Change, Plan
from gpcore.pools import PoolKey
from tests.core.driving import Planner, told
from tests.core.words import key, pool

WALL = 1e9
POOLS = (key("a/prefill"), key("a/decode"), key("b/decode"))
FREEZES = st.builds(
    Freeze,
    st.sampled_from(("f", "g", "h")),
    st.sampled_from(DIRECTIONS),
    st.integers(-5, 5).map(lambda at: WALL + at),
    st.just("the racks are being moved"),
    st.just("me"),
    st.lists(st.sampled_from(POOLS), unique=True).map(tuple),
)
MOVES = st.builds(Move, st.sampled_from(POOLS), st.integers(-9, 0).map(lambda at: WALL + at), st.integers(-4, 4))


def freeze(direction: str = "all", *pools: str, name: str = "f", lasts_s: float = 60.0) -> Freeze:
    return Freeze(name, direction, WALL + lasts_s, "the racks are being moved", "me", tuple(map(key, pools)))


def plan(*changes: tuple[str, int]) -> Plan:
    """Read `("a/prefill 4x1", 6)`."""
    return Plan.of([Change.of(pool(text), after) for text, after in changes])


# laws -----------------------------------------------------------------------------------------------------------------


@given(freezes=st.lists(FREEZES), name=st.sampled_from(POOLS), up=st.booleans(), wall=st.integers(-6, 6))
def test_a_pool_is_held_while_some_freeze_of_its_direction_is_not_over(
    freezes: list[Freeze], name: PoolKey, *, up: bool, wall: int
) -> None:
    now = WALL + wall
    holds = [
        one
        for one in freezes
        if one.until > now and one.direction != ("down" if up else "up") and name in (one.pools or POOLS)
    ]
    found = frozen(freezes, name, up=up, wall=now)
    assert (found is not None) == bool(holds)
    assert found is None or (found.pool, found.until) in [(name, one.until) for one in holds]


@given(freezes=st.lists(FREEZES))
def test_of_one_id_the_last_freeze_holds_whatever_came_before(freezes: list[Freeze]) -> None:
    ledger = Ledger()
    for one in freezes:
        ledger = with_freeze(ledger, one)
        assert with_freeze(ledger, one) is ledger, "what is on record is not put there again"
    assert {one.id: one for one in ledger.freezes} == {one.id: one for one in freezes}
    assert len(ledger.freezes) == len({one.id for one in freezes}), "none that was promised ends early"


@given(freezes=st.lists(FREEZES), wall=st.integers(-6, 6))
def test_to_forget_what_is_over_lets_nothing_through(freezes: list[Freeze], wall: int) -> None:
    now, ledger = WALL + wall, attrs.evolve(Ledger(), freezes=tuple(freezes))
    left = without_freezes(ledger, wall=now)
    assert all(one.until > now for one in left.freezes)
    for name in POOLS:
        for up in (True, False):
            assert frozen(left.freezes, name, up=up, wall=now) == frozen(freezes, name, up=up, wall=now)


@given(
    moves=st.lists(MOVES, max_size=4),
    after=st.integers(0, 9),
    gpus=st.none() | st.integers(0, 12),
    changes=st.none() | st.integers(0, 3),
    window_s=st.integers(1, 9),
)
def test_a_plan_passes_when_it_and_what_moved_in_the_window_stay_within_both_bounds(
    moves: list[Move], after: int, gpus: int | None, changes: int | None, window_s: int
) -> None:
    limits, asked = Limits(gpus, changes, float(window_s)), plan(("a/prefill 4x2", after))
    ledger = attrs.evolve(Ledger(), moves=tuple(moves))
    found = held_back(ledger, limits, asked, wall=WALL)
    recent = [one for one in moves if one.at > WALL - window_s]
    moved = sum(abs(one.gpus) for one in recent) + 2 * abs(after - 4)
    often = sum(one.pool == POOLS[0] for one in recent)
    assert (found is None) == ((gpus is None or moved <= gpus) and (changes is None or often < changes))
    then = noted(ledger, limits, asked, wall=WALL)
    if found is None and gpus is not None:
        assert sum(abs(one.gpus) for one in then.moves) <= gpus, "what is noted counts"
    assert (
        held_back(then, limits, asked, wall=WALL + window_s) is None
        or gpus == 0
        or changes == 0
        or (gpus is not None and 2 * abs(after - 4) > gpus)
    ), "and no longer than the window"


# examples -------------------------------------------------------------------------------------------------------------


def test_a_freeze_that_makes_sense_is_taken_as_it_is() -> None:
    one = freeze(lasts_s=MAX_FREEZE_S)
    assert checked_freeze(one, wall=WALL) is one


def test_a_freeze_that_makes_no_sense_is_told_everything_at_once() -> None:
    one = attrs.evolve(freeze("sideways", lasts_s=0.0), reason=" ")
    with pytest.raises(InvalidError) as found:
        checked_freeze(one, wall=WALL)
    assert found.value.problems == (
        "direction must be up, down or all: 'sideways'",
        "a freeze lasts up to 2.592e+06 s: 0",
        "reason must be 1 to 256 printable characters: ' '",
    )


@pytest.mark.parametrize(
    "one",
    [
        freeze(lasts_s=MAX_FREEZE_S + 1.0),
        freeze(lasts_s=-1.0),
        freeze(lasts_s=float("nan")),
        freeze(lasts_s=float("inf")),
        attrs.evolve(freeze(), reason=""),
        attrs.evolve(freeze(), reason="x" * 257),
        attrs.evolve(freeze(), reason="two\nlines"),
        freeze("UP"),
    ],
)
def test_a_freeze_that_is_too_long_or_cannot_be_told_is_refused(one: Freeze) -> None:
    with pytest.raises(InvalidError):
        checked_freeze(one, wall=WALL)


def test_a_freeze_says_what_it_holds_and_until_when() -> None:
    assert frozen([freeze("up")], POOLS[0], up=True, wall=WALL) == Frozen(
        POOLS[0], "up", WALL + 60.0, "the racks are being moved"
    )
    assert frozen([freeze("up")], POOLS[0], up=False, wall=WALL) is None
    assert frozen([freeze("all", "b/decode")], POOLS[0], up=True, wall=WALL) is None
    assert frozen([freeze("all", "b/decode")], POOLS[2], up=True, wall=WALL) is not None
    assert frozen([freeze("all")], POOLS[0], up=True, wall=WALL + 60.0) is None


def test_a_freeze_of_one_partner_holds_the_whole_plan() -> None:
    ledger = with_freeze(Ledger(), freeze("down", "b/decode"))
    both = plan(("b/decode 4x1", 3), ("a/prefill 4x1", 5))
    held = held_back(ledger, Limits(), both, wall=WALL)
    assert isinstance(held, Frozen)
    assert (held.pool, held.direction) == (POOLS[2], "down")
    assert held_back(ledger, Limits(), plan(("a/prefill 4x1", 5)), wall=WALL) is None


def test_a_limit_says_which_it_is() -> None:
    ledger = attrs.evolve(Ledger(), moves=(Move(POOLS[0], WALL - 1.0, -2),))
    asked = plan(("a/prefill 4x1", 6))
    assert held_back(ledger, Limits(gpus=3), asked, wall=WALL) == LimitReached("gpus", 3, 300.0)
    assert held_back(ledger, Limits(gpus=4), asked, wall=WALL) is None
    assert held_back(ledger, Limits(changes=1), asked, wall=WALL) == LimitReached("changes", 1, 300.0, POOLS[0])
    assert held_back(ledger, Limits(changes=1), plan(("b/decode 4x1", 3)), wall=WALL) is None
    assert held_back(ledger, Limits(changes=0), plan(("b/decode 4x1", 3)), wall=WALL) == LimitReached(
        "changes", 0, 300.0, POOLS[2]
    )


def test_a_gpu_that_goes_from_one_pool_to_another_counts_at_both() -> None:
    both = plan(("b/decode 4x1", 3), ("a/prefill 4x1", 5))
    assert held_back(Ledger(), Limits(gpus=1), both, wall=WALL) == LimitReached("gpus", 1, 300.0)
    assert held_back(Ledger(), Limits(gpus=2), both, wall=WALL) is None


def test_without_a_limit_nothing_is_noted() -> None:
    ledger = Ledger()
    assert noted(ledger, Limits(), plan(("a/prefill 4x1", 6)), wall=WALL) is ledger


def test_what_is_noted_leaves_out_what_is_too_old() -> None:
    ledger = attrs.evolve(Ledger(), moves=(Move(POOLS[0], WALL - 301.0, 1), Move(POOLS[1], WALL - 299.0, 1)))
    then = noted(ledger, Limits(gpus=9), plan(("a/prefill 4x2", 3)), wall=WALL)
    assert then.moves == (Move(POOLS[1], WALL - 299.0, 1), Move(POOLS[0], WALL, -2))


@pytest.mark.parametrize("bad", [{"gpus": -1}, {"changes": -1}, {"window_s": 0.0}])
def test_a_limit_below_nothing_is_none(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Limits(**bad)  # type: ignore[arg-type]


def test_a_freeze_ends_by_its_id_or_by_the_clock() -> None:
    ledger = with_freeze(with_freeze(Ledger(), freeze(name="f", lasts_s=1.0)), freeze(name="g"))
    assert [one.id for one in without_freezes(ledger, key="f").freezes] == ["g"]
    assert [one.id for one in without_freezes(ledger, wall=WALL + 1.0).freezes] == ["g"]
    assert without_freezes(ledger, key="h") is without_freezes(ledger, wall=WALL) is ledger


# what a planner makes of it -------------------------------------------------------------------------------------------


def test_what_is_under_way_when_a_freeze_begins_is_finished() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=8)
    planner.ask("b/prefill 3", name="0")
    assert told(planner.ask("a/prefill 5")) == ["Decided", "apply b 3"]
    planner.freeze("all")
    assert told(planner.lands()) == ["apply a 5"]
    assert told(planner.lands(1)) == ["reply 1 Succeeded"]


def test_a_frozen_pool_is_no_partner_and_another_one_is_found() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", "c/prefill 4x1", floor=12, ceiling=12)
    for name, wish in (("0", "b/prefill 3"), ("1", "c/prefill 3")):
        planner.ask(wish, name=name)
    planner.freeze("down", "b/prefill")
    assert told(planner.ask("a/prefill 5", name="2")) == ["Decided", "apply c 3"]
    assert planner.state.intents.get(key("b/prefill")) is not None, "its wish is kept for later"


def test_the_pace_is_bounded_and_goes_on_when_the_window_has_passed() -> None:
    rules = Rules(budget=Budget(0, 20), limits=Limits(gpus=3, window_s=60.0))
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", rules=rules)
    assert told(planner.ask("a/prefill 6", now=1.0)) == ["Decided", "apply a 6"]
    assert told(planner.ask("b/prefill 6", name="2", now=2.0)) == ["Decided", "reply 2 Rejected"]
    assert told(planner.ask("b/prefill 6", name="3", now=61.0)) == ["Decided", "apply b 6"]

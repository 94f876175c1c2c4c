import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.errors import InvalidError
from gpcore.pools import Totals
from gpcore.testing.strategies import budgets

TOTALS = st.builds(Totals, st.integers(0, 40), st.integers(0, 40))


@given(budget=budgets(), totals=TOTALS)
def test_totals_are_held_when_nothing_is_in_excess_and_nothing_short(budget: Budget, totals: Totals) -> None:
    assert budget.holds(totals) == (budget.excess(totals) == 0 and budget.shortfall(totals) == 0)


@given(budget=budgets(), totals=TOTALS, tolerance=st.integers(0, 9))
def test_the_tolerance_relaxes_the_floor_only(budget: Budget, totals: Totals, tolerance: int) -> None:
    lower = Budget(max(0, budget.floor - tolerance), budget.ceiling)
    assert budget.holds(totals, tolerance=tolerance) == lower.holds(totals)


@given(budget=budgets(), before=TOTALS, after=TOTALS)
def test_recovery_starts_outside_and_never_passes_the_far_edge(budget: Budget, before: Totals, after: Totals) -> None:
    if budget.recovers(before, after):
        assert not budget.holds(before)
        assert budget.excess(after) == 0 or budget.shortfall(after) == 0
        assert budget.excess(after) < max(1, budget.excess(before)) or budget.excess(after) == 0


@given(budget=budgets(), totals=TOTALS)
def test_headroom_is_what_is_missing_to_the_ceiling(budget: Budget, totals: Totals) -> None:
    room = budget.headroom(totals)
    assert (room is None) == (budget.ceiling is None)
    assert room is None or budget.excess(totals) == max(0, -room)


def test_without_bounds_everything_is_held() -> None:
    assert not Budget().bounded
    assert Budget().holds(Totals(1 << 40, 0))
    assert Budget(floor=1).bounded
    assert Budget(ceiling=0).bounded


def test_a_floor_above_the_ceiling_is_no_budget() -> None:
    with pytest.raises(InvalidError, match=r"floor must be at most the ceiling \(4\): 5"):
        Budget(5, 4)


@pytest.mark.parametrize("bad", [-1, 1.5, "4"])
def test_a_bound_is_a_count(bad: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Budget(ceiling=bad)  # type: ignore[arg-type]

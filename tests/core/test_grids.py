import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gpcore.errors import InvalidError
from gpcore.grids import MAX_BINS, MAX_BOUND, Axis, RoutingGrid

BOUNDS = st.one_of(st.integers(-MAX_BOUND, MAX_BOUND), st.floats(-MAX_BOUND, MAX_BOUND))
VALUES = st.one_of(st.integers(), st.floats(allow_nan=False))


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    low, high = sorted([draw(BOUNDS), draw(BOUNDS)])
    bins = draw(st.integers(1, 40))
    assume((high - low) / bins > 0)
    return Axis("x", low, high, bins)


def divided(axis: Axis, value: float) -> int:
    """Return the bin by the formula; where the quotient is too large for it, the bin that it would have been."""
    quotient = (value - axis.low) / axis.step
    if math.isinf(quotient):
        return axis.bins - 1 if quotient > 0 else 0
    return max(0, min(int(quotient), axis.bins - 1))


@given(axes(), VALUES)
@example(Axis("x", 0, 1e-300, 2), 1)
@example(Axis("x", 0, 1, 2), 10**400)
def test_the_bin_of_a_value_is_what_the_division_says(axis: Axis, value: float) -> None:
    try:
        expected = divided(axis, value)
    except OverflowError:  # an integer that no float can be
        expected = axis.bins - 1 if value > 0 else 0
    assert axis.bin(value) == expected


@given(axes())
@example(Axis("x", -1e15, 1e-3, 7))
@example(Axis("x", 10, 3_000, 8))
@example(Axis("x", 0.1, 0.7, 6))
def test_beside_every_edge_the_bin_is_what_the_division_says(axis: Axis) -> None:
    nominal = [axis.low + at * axis.step for at in range(axis.bins + 1)]
    for edge in [*axis.edges, *nominal]:
        beside = [math.nextafter(edge, -math.inf), edge, math.nextafter(edge, math.inf)]
        for value in [*beside, math.floor(edge), math.ceil(edge)]:
            assert axis.bin(value) == divided(axis, value)


@given(axes(), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_many_values_at_once_have_the_bins_that_each_has_alone(axis: Axis, values: list[float]) -> None:
    given_values = [*values, *axis.edges, *(math.nextafter(edge, -math.inf) for edge in axis.edges)]
    with np.errstate(over="ignore"):
        bins = axis.bins_of(np.array(given_values))
    assert bins.tolist() == [axis.bin(value) for value in given_values]


@given(axes())
def test_bins_are_in_order_and_integers_have_edges_of_their_own(axis: Axis) -> None:
    assert list(axis.edges) == sorted(axis.edges)
    assert all(whole - 1 < edge <= whole for edge, whole in zip(axis.edges, axis.whole_edges, strict=True))


def test_a_bin_begins_where_the_one_before_it_ends_and_the_last_one_never_ends() -> None:
    axis = Axis("isl", 0, 32_000, 4)
    assert [axis.bin(value) for value in (-1, 0, 7_999, 7_999.9, 8_000, 24_000, 32_000, 10**9)] == [
        0,
        0,
        0,
        0,
        1,
        3,
        3,
        3,
    ]
    assert (axis.step, axis.middle, axis.edges) == (8_000, 16_000, (8_000.0, 16_000.0, 24_000.0))


@pytest.mark.parametrize(
    ("low", "high", "bins", "problem"),
    [
        (0, 0, 2, r"low \(0\) of x must be less than high \(0\)"),
        (5, 1, 2, r"low \(5\) of x must be less than high \(1\)"),
        (math.nan, 1, 2, "low of x must be a number between"),
        (0, math.inf, 2, "high of x must be a number between"),
        (0, MAX_BOUND + 1, 2, "high of x must be a number between"),
        (True, 5, 2, "low of x must be a number between"),
        ("0", 5, 2, "low of x must be a number between"),
        (0, 5, 0, f"bins of x must be an integer between 1 and {MAX_BINS}"),
        (0, 5, MAX_BINS + 1, "bins of x must be an integer"),
        (0, 5, 2.0, "bins of x must be an integer"),
        (0, 5e-324, 2, "x is too narrow for 2 bins"),
    ],
)
def test_an_axis_without_room_for_its_bins_cannot_be_made(low: float, high: float, bins: int, problem: str) -> None:
    with pytest.raises(InvalidError, match=problem):
        Axis("x", low, high, bins)


def test_an_axis_may_have_bounds_and_bins_up_to_the_limit() -> None:
    axis = Axis("x", -MAX_BOUND, MAX_BOUND, MAX_BINS)
    assert axis.bin(MAX_BOUND) == MAX_BINS - 1
    assert axis.bin(-MAX_BOUND) == 0


def test_cells_are_read_row_by_row() -> None:
    grid = RoutingGrid((Axis("a", 0, 2, 2), Axis("b", 0, 3, 3), Axis("c", 0, 2, 2)), tuple(range(12)))
    assert (grid.shape, grid.strides) == ((2, 3, 2), (6, 2, 1))
    assert grid.cell((1, 2, 0)) == (1, 2, 0)
    assert grid.at((1, 2, 0)) == 10


@pytest.mark.parametrize(
    ("bins", "cells", "problem"),
    [
        ((), (), "at least one axis"),
        ((2, 2), (0, 0, 0), "4 cells are needed: 3"),
        ((4_096, 4_096), (0,), "at most 1048576 cells: 16777216"),
    ],
)
def test_a_grid_has_one_number_for_each_of_a_bounded_number_of_cells(
    bins: tuple[int, ...], cells: tuple[int, ...], problem: str
) -> None:
    with pytest.raises(InvalidError, match=problem):
        RoutingGrid(tuple(Axis("x", 0, 10, count) for count in bins), cells)

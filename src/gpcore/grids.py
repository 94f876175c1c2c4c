"""A table over one or more axes, each cut into bins of one width; a cell is where one bin of each axis meets.

Rules of this file: it knows numbers and cells, and nothing of requests or pools. Where a bin begins is decided by one
division, the peer's: `int((value - low) / step)`, kept to the bins that there are. Multiplying by 1 / step, or adding
steps up, puts a value that lies on an edge elsewhere about one time in ten.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import attrs
import numpy as np
import numpy.typing as npt

from gpcore.errors import InvalidError

Number = int | float
Floats = npt.NDArray[np.float64]
MAX_BINS = 4_096
"""The most bins that one axis may have."""

MAX_CELLS = 1 << 20
"""The most cells that one grid may have."""

MAX_BOUND = 1 << 53
"""The largest bound of an axis; beyond it integers and JSON's numbers are no longer the same thing."""


@attrs.frozen
class Axis:
    """Cut the range from *low* to *high* into *bins*; what lies outside belongs to the nearest bin.

    >>> axis = Axis("isl", 0, 32_000, 2)
    >>> axis.bin(-5), axis.bin(15_999), axis.bin(16_000), axis.bin(10**9)
    (0, 0, 1, 1)
    """

    name: str
    low: Number
    high: Number
    bins: int

    def __attrs_post_init__(self) -> None:
        problems = [*self._not_bounds(), *self._not_bins()]
        if not problems and not self.low < self.high:
            problems = [f"low ({self.low}) of {self.name} must be less than high ({self.high})"]
        if not problems and self.step == 0:
            problems = [f"{self.name} is too narrow for {self.bins} bins"]
        if problems:
            raise InvalidError(problems)

    def _not_bounds(self) -> list[str]:
        said = f"must be a number between {-MAX_BOUND} and {MAX_BOUND}"
        return [f"{side} of {self.name} {said}" for side in ("low", "high") if not _is_bound(getattr(self, side))]

    def _not_bins(self) -> list[str]:
        known = type(self.bins) is int and 1 <= self.bins <= MAX_BINS
        return [] if known else [f"bins of {self.name} must be an integer between 1 and {MAX_BINS}"]

    @property
    def step(self) -> float:
        """Return the width of a bin."""
        return (self.high - self.low) / self.bins

    @property
    def middle(self) -> float:
        """Return the middle of the range."""
        return (self.low + self.high) / 2

    @cached_property
    def edges(self) -> tuple[float, ...]:
        """Return the least value of every bin but the first, exactly as the division has it."""
        return tuple(self._edge(at) for at in range(1, self.bins))

    @cached_property
    def whole_edges(self) -> tuple[int, ...]:
        """Return the least integer that is not before each of `edges`: integers compare faster with their like."""
        return tuple(map(math.ceil, self.edges))

    def bin(self, value: Number) -> int:
        """Return the bin of *value*, any number at all but NaN."""
        return bisect_right(self.edges, value)

    def bins_of(self, values: Floats) -> Floats:
        """Return the bin of each of *values* as `bin` does, in floats; of NaN, NaN."""
        with np.errstate(over="ignore"):  # what is too large for the division is in the last bin as well
            return np.trunc(np.clip((values - self.low) / self.step, 0, self.bins - 1))

    def _edge(self, at: int) -> float:
        """Return the least float that the division puts into bin *at*, by bisection."""
        before, inside = self._around(at)
        while before < (between := before + (inside - before) / 2) < inside:
            if (between - self.low) / self.step < at:
                before = between
            else:
                inside = between
        return inside

    def _around(self, at: int) -> tuple[float, float]:
        """Return a value before the edge of bin *at* and one that is not; nearly always the edge is very near."""
        near = self.low + at * self.step
        width = 4 * math.ulp(near)
        before, inside = near - width, near + width
        if (before - self.low) / self.step < at <= (inside - self.low) / self.step:
            return before, inside
        return float(self.low), float(self.high)


@attrs.frozen
class RoutingGrid:
    """Hold one number for every cell, in *cells*: row by row, the last axis running fastest.

    >>> grid = RoutingGrid((Axis("isl", 0, 8000, 2), Axis("ttft", 0, 1000, 2)), (0, 1, 2, 3))
    >>> grid.at(grid.cell((5000, 100)))
    2
    """

    axes: tuple[Axis, ...]
    cells: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        size = math.prod(self.shape)
        problems = []
        if not self.axes:
            problems = ["a grid has at least one axis"]
        elif size > MAX_CELLS:
            problems = [f"a grid has at most {MAX_CELLS} cells: {size}"]
        elif len(self.cells) != size:
            problems = [f"{size} cells are needed: {len(self.cells)}"]
        if problems:
            raise InvalidError(problems)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of bins of each axis."""
        return tuple(axis.bins for axis in self.axes)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Return how far apart in `cells` neighbours along each axis are."""
        return tuple(math.prod(self.shape[at + 1 :]) for at in range(len(self.axes)))

    def cell(self, values: Sequence[Number]) -> tuple[int, ...]:
        """Return the cell in which *values*, one an axis, meet."""
        return tuple(axis.bin(value) for axis, value in zip(self.axes, values, strict=True))

    def at(self, cell: Sequence[int]) -> int:
        """Return what *cell* holds."""
        return self.cells[sum(at * stride for at, stride in zip(cell, self.strides, strict=True))]


def _is_bound(value: object) -> bool:
    """Say whether *value* may bound an axis: NaN and infinity fail the comparison."""
    return type(value) in {int, float} and -MAX_BOUND <= value <= MAX_BOUND  # type: ignore[operator]

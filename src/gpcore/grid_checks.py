"""What a routing table can be read as and can hardly be meant as.

Rules of this file: everything here is allowed, and served as it stands; a finding says what follows from it. Nothing
is found that a request could not notice, so a table without findings does what its author sees in it.
"""

import enum
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from gpcore.grids import Axis
from gpcore.routing import Destination, RoutingTable, Selection

_LENGTHS = ("isl", "context_length")


class Kind(enum.StrEnum):
    """What was found; the last two may well be meant."""

    DEAD_CELLS = "dead cells"
    NEVER_CHOSEN = "pool never chosen"
    NEVER_MATCHES = "override never matches"
    NOT_MONOTONE = "cells out of order"
    PRIORITIES = "priorities reversed"
    NO_FALLBACK = "no fallback"
    SAME_NAMESPACE = "namespace listed twice"
    ONLY_FALLBACK = "pool only a fallback"
    OVERLAP = "overrides overlap"


@attrs.frozen
class Finding:
    """Say in one sentence what was found in the part of a table that is called *where*."""

    kind: Kind
    where: str
    sentence: str

    @property
    def serious(self) -> bool:
        """Say whether it is hardly meant; the others are good to know."""
        return self.kind not in {Kind.ONLY_FALLBACK, Kind.OVERLAP}

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.sentence}"


def check(table: RoutingTable) -> tuple[Finding, ...]:
    """Return everything that *table* can hardly be meant as."""
    found = [finding for selection in table.selections for finding in _of_selection(selection)]
    return (*found, *_twice([pool for selection in table.selections for pool in selection.pools]))


def dead_bins(axis: Axis) -> list[int]:
    """Return the bins that no request falls into: lengths are integers, and neither they nor targets are below 0."""
    edges: Sequence[float] = axis.whole_edges if axis.name in _LENGTHS else axis.edges
    ends = enumerate(zip((0, *edges), (*edges, math.inf), strict=True))
    return [at for at, (start, end) in ends if max(start, 0) >= end]


def _of_selection(selection: Selection) -> Iterator[Finding]:
    live = [sorted({*range(axis.bins)} - {*dead_bins(axis)}) for axis in selection.grid.axes]
    cells = np.array(selection.grid.cells).reshape(selection.grid.shape)[np.ix_(*live)]
    yield from _dead(selection)
    yield from _unchosen(selection, {*map(int, np.unique(cells))})
    yield from _unmatched(selection)
    yield from _disordered(selection, cells, live)
    if selection.retry and len({pool.priority for pool in selection.pools}) == 1 < len(selection.pools):
        yield _finding(
            Kind.NO_FALLBACK, selection, "retrying is on, but all pools have one priority, so none is faster"
        )


def _finding(kind: Kind, selection: Selection, sentence: str) -> Finding:
    return Finding(kind, selection.phase.value, sentence)


def _dead(selection: Selection) -> Iterator[Finding]:
    for axis in selection.grid.axes:
        if bins := dead_bins(axis):
            what = "whole number from 0 on" if axis.name in _LENGTHS else "value from 0 on"
            yield _finding(Kind.DEAD_CELLS, selection, f"no {what} is in {axis.name} {_bins(bins)}")


def _unchosen(selection: Selection, in_cells: set[int]) -> Iterator[Finding]:
    targets = {rule.target for at, rule in enumerate(selection.overrides) if not _hidden(selection, at)}
    chosen = [pool for pool in selection.pools if pool.index in in_cells | targets]
    for pool in selection.pools:
        if pool in chosen:
            continue
        if selection.retry and any(pool.priority < one.priority for one in chosen):
            yield _finding(Kind.ONLY_FALLBACK, selection, f"{_named(pool)} serves only what a slower pool failed at")
        else:
            yield _finding(Kind.NEVER_CHOSEN, selection, f"{_named(pool)} gets no request")


def _unmatched(selection: Selection) -> Iterator[Finding]:
    for at, rule in enumerate(selection.overrides):
        said = f"priority_overrides[{at}] ({rule.low} to {rule.high})"
        before = [one for one in range(at) if _overlap(selection, one, at)]
        if _hidden(selection, at):
            yield _finding(Kind.NEVER_MATCHES, selection, f"{said} comes after {_rules(before)}, which match all of it")
        elif before:
            yield _finding(Kind.OVERLAP, selection, f"{said} gets only what {_rules(before)} leave of it")


def _overlap(selection: Selection, one: int, other: int) -> bool:
    a, b = selection.overrides[one], selection.overrides[other]
    return a.low <= b.high and b.low <= a.high


def _hidden(selection: Selection, at: int) -> bool:
    """Say whether the overrides before the one at *at* match every whole priority that it does."""
    rule = selection.overrides[at]
    reached = rule.low
    for low, high in sorted((one.low, one.high) for one in selection.overrides[:at]):
        if low <= reached <= high:
            reached = high + 1
    return reached > rule.high


def _disordered(selection: Selection, cells: npt.NDArray[Any], live: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Find neighbours where the easier request, shorter or with more time, gets the faster pool."""
    ranks = sorted({pool.priority for pool in selection.pools})  # priorities may be too large for numpy, ranks are not
    rank = np.array([ranks.index(pool.priority) for pool in selection.pools])[cells]
    signs = [-1 if axis.name in _LENGTHS else 1 for axis in selection.grid.axes]
    falls = [np.diff(rank, axis=at) * sign for at, sign in enumerate(signs)]
    wrong, right = (sum(int((fall * sign < 0).sum()) for fall in falls) for sign in (1, -1))
    if wrong > right:
        yield _finding(
            Kind.PRIORITIES,
            selection,
            f"a lower number is a faster pool, yet {wrong} neighbouring cells give the faster pool to the easier "
            f"request, and only {right} would if a higher number were faster",
        )
        return
    for at, fall in enumerate(falls):
        places = np.argwhere(fall < 0)
        if len(places):
            yield _finding(Kind.NOT_MONOTONE, selection, _disorder(selection, at, live, places))


def _disorder(selection: Selection, at: int, live: Sequence[Sequence[int]], places: npt.NDArray[Any]) -> str:
    first = [int(one) for one in places[0]]
    after = [one + (axis == at) for axis, one in enumerate(first)]
    hard, easy = (after, first) if selection.axes[at] in _LENGTHS else (first, after)
    told = []
    for place in (easy, hard):
        cell = [live[axis][one] for axis, one in enumerate(place)]
        told.append(f"cell {cell} has {_named(selection.pools[selection.grid.at(cell)])}")
    easier = "a shorter request" if selection.axes[at] in _LENGTHS else "a laxer target"
    return f"{easier} gets a faster pool at {len(places)} places along {selection.axes[at]}: {', and '.join(told)}"


def _twice(pools: Sequence[Destination]) -> Iterator[Finding]:
    for namespace, count in Counter(pool.namespace for pool in pools).items():
        if count > 1:
            yield Finding(Kind.SAME_NAMESPACE, "pools", f"{namespace} is the namespace of {count} pools")


def _named(pool: Destination) -> str:
    return f"pool {pool.index} ({pool.namespace}, priority {pool.priority})"


def _bins(bins: Sequence[int]) -> str:
    return f"bin{'s' if len(bins) > 1 else ''} {_listed(bins)}"


def _rules(indices: Sequence[int]) -> str:
    return f"priority_overrides {_listed(indices)}"


def _listed(numbers: Sequence[int], most: int = 8) -> str:
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more

"""Which pool serves one inference request, what to try if that fails, and why.

Rules of this file: `route` is total: whatever a request holds, the answer is a `Route` or an `Unroutable`, never an
exception. What a decision can be is prepared when a table is made, so that a request only looks it up; nothing here
knows whether a pool lives.
"""

import enum
import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, NamedTuple

import attrs
import numpy as np
import numpy.typing as npt

from gpcore.errors import InvalidError
from gpcore.grids import Axis, Number, RoutingGrid

MAX_POOLS = 1_024
"""The most pools that one phase may choose from."""

REFUSED = -1
"""What `route_batch` answers where `route` refuses."""

Indices = npt.NDArray[np.int16]

_SHOWN = 80
_LONG = 64
_CHUNK = 1 << 14  # requests of a batch that are decided at once: what they need stays in the caches


class Phase(enum.StrEnum):
    """Which part of the work on a request a pool is chosen for; AGG is all of it."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGG = "agg"


class RouteRequest(NamedTuple):
    """Say what is known of one inference request; None is what it did not say.

    *length* is in tokens: the input for PREFILL and AGG, the context for DECODE. One is made for every request that
    is served, so it is a tuple, and its values are whatever the client sent: `route` judges them.
    """

    phase: object
    length: object = None
    ttft_ms: object = None
    itl_ms: object = None
    priority: object = None


@attrs.frozen
class Destination:
    """Name one of the pools to choose from; of two, the one with the lower *priority* number is faster."""

    index: int
    namespace: str
    priority: int


@attrs.frozen
class Override:
    """Send requests with a priority from *low* to *high* to the pool *target*, whatever the grid says."""

    low: int
    high: int
    target: int

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise InvalidError([f"min_priority ({self.low}) must be <= max_priority ({self.high})"])


@attrs.frozen
class InCell:
    """The grid has this pool in *cell*, which is one bin of each of *axes*."""

    cell: tuple[int, ...]
    axes: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"{axis} bin {at}" for axis, at in zip(self.axes, self.cell, strict=True))


@attrs.frozen
class ByPriority:
    """The request's priority is one of *override*, the first that matches, at *index* among them."""

    index: int
    override: Override

    def __str__(self) -> str:
        return f"priority_overrides[{self.index}]: priority {self.override.low} to {self.override.high}"


@attrs.frozen
class Route:
    """Say which *pool* serves, which ones to try in which order if it fails, and why it is this one.

    *faster* are all pools that are strictly faster, the slowest of them first: the order in which to leave a pool
    that cannot serve. *fallbacks* are the same ones where retrying is switched on, and none otherwise.
    """

    pool: Destination
    fallbacks: tuple[Destination, ...]
    faster: tuple[Destination, ...]
    why: InCell | ByPriority

    @property
    def cell(self) -> tuple[int, ...] | None:
        """Return the cell of the grid, which a priority goes round."""
        return self.why.cell if isinstance(self.why, InCell) else None


class Fault(enum.StrEnum):
    """Why a value cannot be used."""

    MISSING = "is needed"
    NOT_A_NUMBER = "must be a number"
    NOT_FINITE = "must be a finite number"
    NO_SUCH_PHASE = "must be a phase of this table"


@attrs.frozen
class BadValue:
    """Say that the value of *field* cannot be used, and why."""

    field: str
    fault: Fault
    value: object = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        return f"{self.field} {self.fault}" + ("" if self.fault is Fault.MISSING else f": {_shown(self.value)}")


@attrs.frozen
class Unroutable:
    """Refuse a request, with everything that is wrong with it."""

    reasons: tuple[BadValue, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons))


Routed = Route | Unroutable

_Lookup = tuple[int, tuple[int, ...], tuple[float, ...], int | None]
_Rule = tuple[int, int, Route]
_Column = np.ndarray[Any, np.dtype[Any]]

_AXES = {
    Phase.PREFILL: (("isl", "ttft"),),
    Phase.DECODE: (("context_length", "itl"),),
    Phase.AGG: (("ttft", "itl"), ("isl", "ttft", "itl")),
}
_PREFILL, _DECODE, _AGG = Phase.PREFILL, Phase.DECODE, Phase.AGG
_PRIORITY = 4
_FIELDS = {"isl": 1, "context_length": 1, "ttft": 2, "itl": 3}
_NAMES = {"isl": "isl", "context_length": "context_length", "ttft": "ttft_target", "itl": "itl_target"}
"""What a request calls the value of an axis."""


@attrs.frozen
class Selection:
    """Choose a pool for one *phase*: by the grid, unless the priority of a request says otherwise."""

    phase: Phase
    grid: RoutingGrid
    pools: tuple[Destination, ...]
    overrides: tuple[Override, ...] = ()
    retry: bool = attrs.field(default=False, kw_only=True)
    _lookups: tuple[_Lookup, ...] = attrs.field(init=False, repr=False, eq=False)
    _tree: Any = attrs.field(init=False, repr=False, eq=False)
    _rules: tuple[_Rule, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        problems = [*self._wrong_axes(), *self._wrong_pools()]
        if problems:
            raise InvalidError(problems)
        # Not cached properties: those make every attribute of a class slower to reach, and these are for the fast path.
        object.__setattr__(self, "_lookups", self._prepared_lookups())
        object.__setattr__(self, "_tree", self._prepared_tree())
        object.__setattr__(self, "_rules", self._prepared_rules())

    def _wrong_axes(self) -> list[str]:
        if self.axes in _AXES[self.phase]:
            return []
        known = " or ".join(" x ".join(axes) for axes in _AXES[self.phase])
        return [f"the axes of {self.phase.value} must be {known}: {' x '.join(self.axes)}"]

    def _wrong_pools(self) -> list[str]:
        count = len(self.pools)
        if not 1 <= count <= MAX_POOLS:
            return [f"there must be 1 to {MAX_POOLS} pools: {count}"]
        used = {*self.grid.cells, *(rule.target for rule in self.overrides)}
        problems = [f"there is no pool {index}: {count} pools" for index in sorted(used) if not 0 <= index < count]
        if [pool.index for pool in self.pools] != list(range(count)):
            problems.append("pools must be in the order of their indices")
        return problems

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the names of the axes."""
        return tuple(axis.name for axis in self.grid.axes)

    def default(self, axis: Axis) -> Number | None:
        """Return what a request that says nothing about *axis* is taken to say: the peer's rule for each axis."""
        match axis.name:
            case "ttft" | "itl":
                return axis.middle
            case "isl" if self.phase is Phase.AGG:
                return (axis.low + axis.high) // 2
            case _:
                return None

    def route(self, request: RouteRequest) -> Routed:
        """Return the route of *request*, whatever its phase."""
        node: Any = self._tree
        for field, whole_edges, edges, default in self._lookups:
            value = request[field]
            if type(value) is int:
                node = node[bisect_right(whole_edges, value)]
            elif type(value) is float and value * 0.0 == 0.0:  # neither NaN nor infinite; two comparisons take longer
                node = node[bisect_right(edges, value)]
            elif value is None and default is not None:
                node = node[default]
            else:
                return self._unusual(request)
        found: Route = node
        priority = request[_PRIORITY]
        if type(priority) is int or (type(priority) is float and math.isfinite(priority)):
            for low, high, overriding in self._rules:
                if low <= priority <= high:
                    return overriding
            return found
        return found if priority is None else self._unusual(request)

    def cell(self, request: RouteRequest) -> tuple[int, ...]:
        """Return the cell of the grid that *request*, which has a route, is in, also where its priority goes round it.

        `Route.cell` is the same for all others, and there already.
        """
        values = (request[_FIELDS[axis.name]] for axis in self.grid.axes)
        pairs = zip(self.grid.axes, values, strict=True)
        return tuple(axis.bin(self.default(axis) if value is None else value) for axis, value in pairs)  # type: ignore[arg-type]

    def _unusual(self, request: RouteRequest) -> Routed:
        """Refuse *request*, or route it with plain numbers in the place of their relatives."""
        fields = [(_FIELDS[axis.name], _NAMES[axis.name], self.default(axis) is None) for axis in self.grid.axes]
        plain: list[object] = [self.phase, None, None, None, None]
        reasons: list[BadValue] = []
        for field, name, needed in [*fields, (_PRIORITY, "priority", False)]:
            plain[field] = given = _plain(request[field], name, needed=needed)
            if isinstance(given, BadValue):
                reasons.append(given)
        return Unroutable(tuple(reasons)) if reasons else self.route(RouteRequest(*plain))

    def _prepared_lookups(self) -> tuple[_Lookup, ...]:
        """Return, for each axis, where in a request its value is, where its bins begin, and the bin of no value."""
        return tuple(
            (_FIELDS[axis.name], axis.whole_edges, axis.edges, None if usual is None else axis.bin(usual))
            for axis, usual in ((axis, self.default(axis)) for axis in self.grid.axes)
        )

    def _prepared_tree(self) -> tuple[Any, ...]:
        """Return the route of every cell, nested as the axes are."""
        ways = [self._way(pool) for pool in self.pools]
        names = tuple(axis.name for axis in self.grid.axes)
        places = itertools.product(*map(range, self.grid.shape))
        level: tuple[Any, ...] = tuple(
            Route(*ways[target], InCell(place, names)) for target, place in zip(self.grid.cells, places, strict=True)
        )
        for bins in reversed(self.grid.shape[1:]):
            level = tuple(level[at : at + bins] for at in range(0, len(level), bins))
        return level

    def _prepared_rules(self) -> tuple[_Rule, ...]:
        """Return the bounds and the route of every override."""
        return tuple(
            (rule.low, rule.high, Route(*self._way(self.pools[rule.target]), ByPriority(at, rule)))
            for at, rule in enumerate(self.overrides)
        )

    def _way(self, pool: Destination) -> tuple[Destination, tuple[Destination, ...], tuple[Destination, ...]]:
        """Return *pool*, what to retry on after it, and all that are strictly faster, the slowest of them first."""
        faster = sorted((one for one in self.pools if one.priority < pool.priority), key=lambda one: -one.priority)
        return pool, tuple(faster) if self.retry else (), tuple(faster)  # equals stay in the order of their indices


@attrs.frozen
class Disaggregated:
    """Choose two pools for a request: one that reads its input and one that writes the output."""

    prefill: Selection
    decode: Selection

    def __attrs_post_init__(self) -> None:
        if self.prefill.phase is not Phase.PREFILL or self.decode.phase is not Phase.DECODE:
            raise InvalidError(["prefill must select for 'prefill' and decode for 'decode'"])

    def selection(self, phase: object) -> Selection | None:
        """Return what chooses for *phase*, if there is a choice to make in it."""
        if phase is _PREFILL or phase == _PREFILL:  # identity first: it is the usual case, and faster
            return self.prefill
        return self.decode if phase == _DECODE else None

    @property
    def selections(self) -> tuple[Selection, ...]:
        """Return everything that chooses."""
        return (self.prefill, self.decode)


@attrs.frozen
class Aggregated:
    """Choose one pool that does all the work on a request."""

    agg: Selection

    def __attrs_post_init__(self) -> None:
        if self.agg.phase is not Phase.AGG:
            raise InvalidError(["agg must select for 'agg'"])

    def selection(self, phase: object) -> Selection | None:
        """Return what chooses for *phase*, if there is a choice to make in it."""
        return self.agg if phase == _AGG else None

    @property
    def selections(self) -> tuple[Selection, ...]:
        """Return everything that chooses."""
        return (self.agg,)


RoutingTable = Disaggregated | Aggregated


def route(table: RoutingTable, request: RouteRequest) -> Routed:
    """Return where *request* goes, or why it cannot be told: any values at all are answered."""
    selection = table.selection(request[0])
    if selection is None:
        return Unroutable((BadValue("phase", Fault.NO_SUCH_PHASE, request.phase),))
    return selection.route(request)


def route_batch(
    table: RoutingTable,
    phase: Phase,
    *,
    lengths: npt.ArrayLike | None = None,
    ttft_ms: npt.ArrayLike | None = None,
    itl_ms: npt.ArrayLike | None = None,
    priorities: npt.ArrayLike | None = None,
) -> Indices:
    """Return the index of the pool that `route` gives each request, or `REFUSED` where it refuses it.

    What is None, and in a masked array what is masked, the requests did not say.
    """
    selection = table.selection(phase)
    if selection is None:
        raise InvalidError([f"phase {Fault.NO_SUCH_PHASE}: {_shown(phase)}"])
    given = {"length": lengths, "ttft_ms": ttft_ms, "itl_ms": itl_ms, "priority": priorities}
    columns = {name: _column(values, name) for name, values in given.items() if values is not None}
    sizes = {len(column) for column in columns.values()}
    if len(sizes) != 1:
        raise InvalidError([f"the arrays must be of one length: {sorted(sizes)}"])
    answers = np.empty(sizes.pop(), np.int16)
    cells = np.array(selection.grid.cells, np.int16)
    for start in range(0, len(answers), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        part = {name: column[chunk] for name, column in columns.items()}
        _decide(selection, part, cells, answers[chunk])
    return answers


def _column(values: npt.ArrayLike, name: str) -> _Column:
    """Return *values* as one row of numbers; priorities are whole ones."""
    column = np.asanyarray(values)
    if column.ndim != 1 or column.dtype.kind not in ("iu" if name == "priority" else "iuf"):
        raise InvalidError([f"{name} must be a row of numbers: {column.ndim} dimensions of {column.dtype}"])
    return column


def _decide(selection: Selection, chunk: Mapping[str, _Column], cells: Indices, pools: Indices) -> None:
    """Fill *pools* with the indices of the pools for one chunk."""
    at: Any = 0.0
    refused: Any = np.zeros(len(pools), bool)
    for axis, stride in zip(selection.grid.axes, selection.grid.strides, strict=True):
        values, unusable = _filled(chunk.get(RouteRequest._fields[_FIELDS[axis.name]]), selection.default(axis))
        at = at + axis.bins_of(values) * stride
        refused = refused | unusable
    pools[:] = cells[np.asarray(at).astype(np.intp)]
    if "priority" in chunk:
        given = ~np.ma.getmaskarray(chunk["priority"])
        priorities = np.ma.getdata(chunk["priority"])
        for rule in reversed(selection.overrides):  # the first that matches is written last
            pools[given & (rule.low <= priorities) & (priorities <= rule.high)] = rule.target
    pools[refused] = REFUSED


def _filled(column: _Column | None, default: Number | None) -> tuple[Any, Any]:
    """Return *column* with *default* where nothing is given, and where that leaves something unusable."""
    instead = 0.0 if default is None else default
    if column is None:
        return np.float64(instead), default is None
    unusable = np.ma.getmaskarray(column) if default is None else False
    values = (column.filled(instead) if np.ma.isMaskedArray(column) else column).astype(np.float64)
    finite = np.isfinite(values)
    return (values, unusable) if finite.all() else (np.where(finite, values, 0.0), unusable | ~finite)


def _plain(value: object, name: str, *, needed: bool) -> object:
    """Return *value* as an int, a finite float or None, or what is wrong with it; truth is not a number here."""
    if value is None:
        return BadValue(name, Fault.MISSING) if needed else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return BadValue(name, Fault.NOT_A_NUMBER, value)
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else BadValue(name, Fault.NOT_FINITE, value)


def _shown(value: object) -> str:
    """Return *value* as one short line of plain characters, whatever it is."""
    if isinstance(value, int) and value.bit_length() > _LONG:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str | int | float):
        text = ascii(value[:_SHOWN] if isinstance(value, str) else value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return "a list" if isinstance(value, list) else "an object"

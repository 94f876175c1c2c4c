"""The JSON configuration of the global router: the peer's, every version of it, read strictly.

Rules of this file: a file that the peer serves is read as the peer means it, and whatever the peer would ignore,
mistake or crash on is said, all of it at once, each with its path. The sentences are the peer's where it has one.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import attrs

from gpcore.errors import ConfigError, InvalidError
from gpcore.grids import MAX_BINS, MAX_BOUND, Axis, Number, RoutingGrid
from gpcore.routing import MAX_POOLS, Aggregated, Destination, Disaggregated, Override, Phase, RoutingTable, Selection
from gpcore.wire.documents import Extras, Node, Reading, certain, loads, shown

MAX_CONFIG_BYTES = 1 << 20
"""The most bytes that a configuration may have."""

MAX_CONFIG_DEPTH = 32
"""The deepest nesting that a configuration may have."""

_NAMESPACE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,315}[A-Za-z0-9])?")
_MODES = {"disagg": (Phase.PREFILL, Phase.DECODE), "agg": (Phase.AGG,)}
_COMMON = ("mode", "enable_priority_retry")
_AXES = {Phase.PREFILL: ("isl", "ttft"), Phase.DECODE: ("context_length", "itl"), Phase.AGG: ("ttft", "itl")}
_ISL = ("isl_min", "isl_max", "isl_resolution")
_TIMES = ("ttft", "itl")
_SHOWN = 80
_OVERRIDE = ("min_priority", "max_priority", "target_pool")


@attrs.frozen
class RoutingConfig:
    """Hold what a file configures; *warnings* say what in it is old, or has no meaning."""

    table: RoutingTable
    warnings: tuple[str, ...] = ()


def routing_config(data: bytes) -> RoutingConfig:
    """Return what *data* configures, or raise `ConfigError` with every problem."""
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError([f"more than {MAX_CONFIG_BYTES} bytes: {len(data)}"])
    try:
        return _config(loads(data, max_depth=MAX_CONFIG_DEPTH))
    except InvalidError as error:
        raise ConfigError(error.problems) from error


def _config(document: object) -> RoutingConfig:
    """Return what *document* configures, or raise `InvalidError` with every problem."""
    top = Reading(Extras.IGNORED).root(document)
    mode = _mode(top)
    others = [name for other in _MODES if other != mode for name in _top_names(other)]
    _refuse_unknown(top, [*_COMMON, *_top_names(mode)], besides=others)
    retry = top.field("enable_priority_retry") if "enable_priority_retry" in top.mapping() else None
    if retry is not None and not isinstance(retry.value, bool):
        retry.refuse(f"enable_priority_retry must be a boolean: {shown(retry.value)}")
    readers = [_Reader(phase, mode, top, retry=retry is not None and retry.value is True) for phase in _MODES[mode]]
    selections = [reader.selection() for reader in readers]
    top.reading.finish()
    renamed = [note for reader in readers for note in reader.renamed]
    warnings = [f"old names: {', '.join(renamed)}"] if renamed else []
    if ignored := [name for name in others if name in top.mapping()]:
        warnings.append(f"not read, as the mode is {mode!r}: {', '.join(ignored)}")
    return RoutingConfig(_table([certain(selection) for selection in selections]), tuple(warnings))


def _table(selections: Sequence[Selection]) -> RoutingTable:
    return Aggregated(*selections) if len(selections) == 1 else Disaggregated(*selections)


def _mode(top: Node) -> str:
    """Return the mode; without one nothing else can be judged."""
    mode = top.mapping().get("mode", "disagg")
    if not isinstance(mode, str) or mode not in _MODES:
        said = mode[:_SHOWN] if isinstance(mode, str) else shown(mode)
        Node(mode, "$.mode", top.reading).refuse(f"Unknown mode {said!a}, must be 'disagg' or 'agg'")
    top.reading.finish()
    return str(mode)


def _top_names(mode: str) -> list[str]:
    """Return the names that *mode* has of its own."""
    return [
        name
        for phase in _MODES[mode]
        for name in (
            f"num_{phase}_pools",
            f"{phase}_pool_dynamo_namespaces",
            f"{phase}_pool_priorities",
            f"{phase}_pool_selection_strategy",
        )
    ]


def _refuse_unknown(node: Node, known: Sequence[str], *, besides: Iterable[str] = ()) -> None:
    """Refuse each name that is neither *known* nor one of *besides*, and say which one may be meant."""
    for name in node.mapping():
        if name not in known and name not in besides:
            near = difflib.get_close_matches(name[:_SHOWN], known, n=1)
            node.refuse(f"unknown field {shown(name)}" + (f"; did you mean {shown(near[0])}?" if near else ""))


class _Level(NamedTuple):
    """One dimension of a mapping: what its rows are called, and how many there must be, where that is known."""

    word: str
    name: str
    bins: int | None


@attrs.frozen
class _Reader:
    """Read what is said of one phase."""

    phase: Phase
    mode: str
    top: Node
    retry: bool = attrs.field(kw_only=True)
    renamed: list[str] = attrs.field(factory=list, kw_only=True)

    def selection(self) -> Selection | None:
        """Return what chooses a pool; where anything is wrong with the file so far, nothing."""
        names, priorities = self._namespaces(), self._priorities()
        if priorities is not None and len(priorities) != len(names):
            said = f"{self.phase}_pool_priorities length ({len(priorities)})"
            self._top("pool_priorities").refuse(f"{said} does not match number of pools ({len(names)})")
        strategy = _object(self._top("pool_selection_strategy"))
        axes, bins = self._axes(strategy)
        levels = [_Level("", axis, at) for axis, at in bins.items()]
        if len(levels) > len(_AXES[self.phase]):
            levels = [level._replace(word=f"{level.name.upper()} ") for level in levels]
        mapping = f"{self.phase}_pool_mapping"
        cells = tuple(self._cells(strategy.field(mapping), mapping, levels, len(names)))
        overrides = self._overrides(strategy, len(names))
        if self.top.reading.problems:
            return None
        speeds = range(len(names)) if priorities is None else priorities
        pools = tuple(Destination(*one) for one in zip(range(len(names)), names, speeds, strict=True))
        grid = RoutingGrid(tuple(map(certain, axes)), cells)
        return Selection(self.phase, grid, pools, overrides, retry=self.retry)

    def _top(self, name: str) -> Node:
        name = f"{self.phase}_{name}"
        return self.top.field(name, missing=f"{name} required for {self.mode} mode")

    def _namespaces(self) -> list[str]:
        """Return the namespaces of the pools, of which there must be as many as were promised."""
        name = f"num_{self.phase}_pools"
        number = self.top.field(name, missing=f"{name} required for {self.mode} mode")
        count = number.integer(high=MAX_POOLS)
        if count == 0:
            number.refuse(f"{name} must be at least 1: 0")
        listed = self._top("pool_dynamo_namespaces")
        names = [self._namespace(item) for item in listed.items(high=MAX_POOLS)]
        if count and isinstance(listed.value, list) and len(listed.value) != count:
            said = f"{self.phase}_pool_dynamo_namespaces length ({len(listed.value)})"
            number.refuse(f"{name} ({count}) does not match {said}")
        return names

    def _namespace(self, node: Node) -> str:
        if not isinstance(node.value, str) or not _NAMESPACE.fullmatch(node.value):
            node.refuse(f"must be a namespace of 1 to 317 letters, digits, '-', '_' or '.': {shown(node.value)}")
        return str(node.value)

    def _priorities(self) -> list[int] | None:
        """Return how fast the pools are, or None for the order in which they are listed."""
        name = f"{self.phase}_pool_priorities"
        if self.top.mapping().get(name) is None:
            return None
        items = self.top.field(name).items(high=MAX_POOLS)
        return [_integer(item, f"{name}[{at}]") or 0 for at, item in enumerate(items)]

    def _axes(self, strategy: Node) -> tuple[list[Axis | None], dict[str, int | None]]:
        """Return the axes, and how many bins each has even where nothing else of it can be told."""
        names: tuple[str, ...] = _AXES[self.phase]
        given = [name for name in _ISL if strategy.mapping().get(name) is not None]
        if self.phase is Phase.AGG and given:
            if len(given) < len(_ISL):
                strategy.refuse("isl_min, isl_max, and isl_resolution must be configured together")
            else:
                names = ("isl", *names)
        known = [one for name in names for one in (*_bounds(name), f"{name}_resolution")]
        besides = [*map(_old, known), *(_ISL if self.phase is Phase.AGG else ())]
        _refuse_unknown(strategy, [*known, f"{self.phase}_pool_mapping", "priority_overrides"], besides=besides)
        bins = {name: self._bins(strategy, f"{name}_resolution") for name in names}
        return [self._axis(strategy, name, bins[name]) for name in names], bins

    def _axis(self, strategy: Node, name: str, bins: int | None) -> Axis | None:
        low_name, high_name = _bounds(name)
        low, high = self._bound(strategy, low_name), self._bound(strategy, high_name)
        if low is None or high is None:
            return None
        if low >= high:
            strategy.field(low_name).refuse(f"{low_name} ({low}) must be less than {high_name} ({high})")
        elif bins is not None:
            return strategy.built_from(lambda: Axis(name, low, high, bins))
        return None

    def _bins(self, strategy: Node, name: str) -> int | None:
        node = strategy.field(name)
        bins = _integer(node, name)
        if bins is not None and bins <= 0:
            node.refuse(f"{name} must be positive, got {bins}")
        elif bins is not None and bins > MAX_BINS:
            node.refuse(f"{name} must be at most {MAX_BINS}: {bins}")
        else:
            return bins
        return None

    def _bound(self, strategy: Node, name: str) -> Number | None:
        """Return a bound of an axis, which may stand under its old name."""
        found, old = strategy.mapping(), _old(name)
        if old != name and old in found:
            self.renamed.append(f"{strategy.path}.{old} is now {name}")
            if name in found and found[name] != found[old]:
                strategy.field(old).refuse(f"contradicts {name}: {shown(found[old])} and {shown(found[name])}")
        node = strategy.field(old if old in found and name not in found else name)
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            node.refuse(f"must be a number: {shown(value)}")
        elif not -MAX_BOUND <= value <= MAX_BOUND:
            node.refuse(f"must be between {-MAX_BOUND} and {MAX_BOUND}: {shown(value)}")
        else:
            return value
        return None

    def _cells(
        self, node: Node, label: str, levels: Sequence[_Level], pools: int, *, top: bool = True
    ) -> Iterator[int]:
        """Yield the cells row by row; what has not the shape of *levels* is a problem."""
        if not levels:
            yield self._index(node, pools)
        elif not isinstance(node.value, list):
            node.refuse(f"{label} must be a list of {levels[0].name}_resolution items: {shown(node.value)}")
        elif levels[0].bins not in {len(node.value), None}:
            said = f"{label} {levels[0].word}rows" if top else f"{label} length"
            node.refuse(f"{said} ({len(node.value)}) does not match {levels[0].name}_resolution ({levels[0].bins})")
        elif len(levels) == 1 and all(type(cell) is int and 0 <= cell < pools for cell in node.value):
            yield from node.value  # there may be half a million of them
        else:
            joint = f"{label}{'' if top else ','} {levels[0].word}row"
            for at, row in enumerate(node.items()):
                yield from self._cells(row, f"{joint} {at}", levels[1:], pools, top=False)

    def _index(self, node: Node, pools: int) -> int:
        if type(node.value) is int and 0 <= node.value < pools:
            return node.value
        if pools:  # otherwise it was said that there are none
            bounds = f"(must be 0 to {pools - 1})"
            node.refuse(f"Invalid {self.phase} pool index {shown(node.value)} in mapping {bounds}")
        return 0

    def _overrides(self, strategy: Node, pools: int) -> tuple[Override, ...]:
        """Return the rules for priorities, in the order in which they are tried."""
        if "priority_overrides" not in strategy.mapping():
            return ()
        rules = enumerate(strategy.field("priority_overrides").items())
        return tuple(Override(*found) for at, item in rules if (found := self._override(item, at, pools)) is not None)

    def _override(self, node: Node, at: int, pools: int) -> tuple[int, int, int] | None:
        node = _object(node)
        _refuse_unknown(node, _OVERRIDE)
        fields = [node.field(name) for name in _OVERRIDE]
        low, high, target = (_integer(field, name) for field, name in zip(fields, _OVERRIDE, strict=True))
        if low is None or high is None or target is None:
            return None
        said = f"{self.phase.capitalize()} priority_overrides[{at}]:"
        if low > high:
            node.refuse(f"{said} min_priority ({low}) must be <= max_priority ({high})")
            return None
        if pools and not 0 <= target < pools:
            fields[2].refuse(f"{said} invalid target_pool {target} (must be 0 to {pools - 1})")
        return low, high, target


def _object(node: Node) -> Node:
    """Return *node*; where it is no object, say so once and read on with nothing."""
    if isinstance(node.value, dict):
        return node
    node.mapping()
    return node.field("")


def _integer(node: Node, name: str) -> int | None:
    if type(node.value) is int:
        return node.value
    node.refuse(f"{name} must be an integer: {shown(node.value)}")
    return None


def _bounds(axis: str) -> tuple[str, str]:
    """Return what a file calls the bounds of *axis*."""
    unit = "_ms" if axis in _TIMES else ""
    return f"{axis}_min{unit}", f"{axis}_max{unit}"


def _old(name: str) -> str:
    """Return what older files call *name*."""
    return name.removesuffix("_ms")

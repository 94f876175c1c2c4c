"""The ledger as a document: what a store writes, and what it makes of what it reads.

Every object that holds replicas is one line (see `entries`), and every step of an operation another, so that a ledger
of thousands of pools is one object of an API server. A document says its `schema`, as `1.0`. Another major is refused,
since its lines may mean anything; a minor may add fields to the document and to nothing in it, and who does not know
them keeps them as they are.

Rules of this file: a document is believed in whole or not at all. What it says twice (its state, and the sum of what
the pools may have) must agree, so that what was cut or edited by hand is noticed.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from gpcore.budgets import Budget
from gpcore.errors import InvalidError
from gpcore.holding import DIRECTIONS
from gpcore.intents import Intent
from gpcore.ledger import Ended, Entry, Freeze, Ledger, Move, Repeat
from gpcore.operations import Operation
from gpcore.pools import PoolKey
from gpcore.wire.documents import Extras, Json, Node, Reading, shown
from gpcore.wire.entries import MAX_COUNT, Lines, read_lines
from gpcore.wire.flat import flat_document, pool_text, read_flat, read_pool
from gpcore.wire.underway import operation_document, read_operation

SCHEMA = (1, 0)
"""The major and minor version of the documents that are written here."""

STATES = ("Bootstrapping", "Active", "OverCommitted")
"""The words for how things stand; the first is that of a ledger that is not complete."""

T = TypeVar("T")

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
_REQUIRED = ("state", "epoch", "floor", "gpus", "entries")
_OPTIONAL = ("ceiling", "operations", "wishes", "repeats", "sequences", "freezes", "moves", "ended")


class Scribe:
    """Writes one ledger after another, and anew only what is not as in the one before."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._before: dict[int, tuple[object, object]] = {}  # by identity, with what was written and how
        self._now: dict[int, tuple[object, object]] = {}

    def document(self, ledger: Ledger) -> Json:
        """Return *ledger* as a document of JSON values, some of which it shares with the one before."""
        self._before, self._now = self._now, {}
        return _document(ledger, self._lines.of(ledger.entries), self._each)

    def _each(self, write: Callable[[Any], object], values: Iterable[object]) -> list[object]:
        written = []
        for value in values:
            known = self._before.get(id(value)) or (value, write(value))
            self._now[id(value)] = known
            written.append(known[1])
        return written


def ledger_document(ledger: Ledger) -> Json:
    """Return *ledger* as a document of JSON values."""
    return Scribe().document(ledger)


def _document(
    ledger: Ledger, entries: list[str], each: Callable[[Callable[[Any], object], Iterable[object]], list[object]]
) -> Json:
    document = {
        **ledger.extra,
        "schema": ledger.extra.get("schema", f"{SCHEMA[0]}.{SCHEMA[1]}"),
        "state": ledger.state,
        "epoch": ledger.epoch,
        "ceiling": ledger.budget.ceiling,
        "floor": ledger.budget.floor,
        "gpus": ledger.totals.charged,
        "entries": entries,
        "operations": each(operation_document, ledger.operations.values()),
        "wishes": each(_wish_text, ledger.wishes),
        "repeats": each(flat_document, ledger.repeats),
        "sequences": [f"{number} {caller}" for caller, number in ledger.sequences.items()],
        "freezes": each(flat_document, ledger.freezes),
        "moves": each(_move_text, ledger.moves),
        "ended": each(flat_document, ledger.ended),
    }
    return {name: value for name, value in document.items() if name not in _OPTIONAL or value not in (None, [])}


def ledger(document: object, *, epoch: int = 0) -> Ledger:
    """Return the ledger that *document* holds, or raise `InvalidError` with every problem.

    Whoever has seen *epoch* does not believe an older one: then the ledger was put back from a copy.
    """
    reading = Reading(Extras.IGNORED)
    root = reading.root(document)
    found = root.mapping()
    _refuse_schema(root.field("schema"))
    reading.finish()
    fields = root.fields(_REQUIRED, _OPTIONAL)
    entries, operations = list(_entries(fields["entries"])), list(_each(fields, "operations", read_operation))
    _agree(entries, operations, fields["entries"])
    made = attrs.evolve(
        Ledger.of(entries, operations, budget=_budget(fields)),
        epoch=_epoch(fields["epoch"], epoch),
        complete=fields["state"].value != STATES[0],
        wishes=tuple(_each(fields, "wishes", _wish)),
        repeats=tuple(_each(fields, "repeats", lambda node: read_flat(node, Repeat))),
        sequences=dict(_each(fields, "sequences", _sequence)),
        freezes=tuple(_each(fields, "freezes", _freeze)),
        moves=tuple(_each(fields, "moves", _move)),
        ended=tuple(_each(fields, "ended", lambda node: read_flat(node, Ended))),
        extra=_extra(found),
    )
    if not reading.problems:  # the sums of what could not be read would differ, and say nothing
        _refuse_sums(fields, made)
    reading.finish()
    return made


def _refuse_schema(node: Node) -> None:
    version = _VERSION.fullmatch(node.value) if isinstance(node.value, str) else None
    if version is None or int(version[1]) != SCHEMA[0]:
        node.refuse(f"must be {SCHEMA[0]}.x, which is what this version reads: {shown(node.value)}")


def _extra(found: Mapping[str, object]) -> dict[str, Any]:
    """Return what a later version has written; of the schema what is later than ours, so that it stays said."""
    known = {*_REQUIRED, *_OPTIONAL, "schema"}
    extra = {name: value for name, value in found.items() if name not in known}
    later = found["schema"] != f"{SCHEMA[0]}.{SCHEMA[1]}"
    return extra | ({"schema": found["schema"]} if later else {})


def _budget(fields: Mapping[str, Node]) -> Budget:
    floor = fields["floor"].integer() or 0
    ceiling = fields["ceiling"].integer() if "ceiling" in fields else None
    return fields["floor"].built_from(lambda: Budget(floor, ceiling)) or Budget()


def _epoch(node: Node, least: int) -> int:
    epoch = node.integer() or 0
    if epoch < least:
        node.refuse(f"must be at least {least}, which was seen before: {epoch}; was it put back from a copy?")
    return epoch


def _entries(node: Node) -> Iterator[Entry]:
    lines = list(node.items())
    texts = [line.value if isinstance(line.value, str) else "" for line in lines]
    for line, entry in zip(lines, read_lines(texts), strict=True):
        if isinstance(entry, InvalidError):
            line.built_from(lambda error=entry: _raise(error))  # type: ignore[misc]
        else:
            yield entry


def _raise(error: InvalidError) -> None:
    raise error


def _agree(entries: Sequence[Entry], operations: Sequence[Operation], node: Node) -> None:
    """Refuse what no ledger says: one object or fence twice, or a reservation for an operation that is not there."""
    keys = Counter(str(entry.key) for entry in entries)
    fences = Counter(entry.fence for entry in entries if entry.fence)
    names = Counter(operation.id for operation in operations)
    for key in (key for key, count in keys.items() if count > 1):
        node.refuse(f"{shown(key)} is there twice")
    for fence in (fence for fence, count in fences.items() if count > 1):
        node.refuse(f"two objects have the fence {shown(fence)}")
    for name in (name for name, count in names.items() if count > 1):
        node.refuse(f"operation {shown(name)} is there twice")
    for entry in entries:
        operation = entry.reservation.operation if entry.reservation is not None else ""
        if operation and operation not in names:
            node.refuse(f"{shown(str(entry.key))} is reserved for operation {shown(operation)}, which is not there")


def _refuse_sums(fields: Mapping[str, Node], made: Ledger) -> None:
    """Refuse a state and a sum that are not those of the ledger that was *made*."""
    if fields["gpus"].integer() != made.totals.charged:
        fields["gpus"].refuse(f"must be {made.totals.charged}, which is what entries and operations add up to")
    if fields["state"].value != made.state:
        sums = f"{made.totals.charged} GPUs and the ceiling {made.budget.ceiling}"
        allowed = f"{made.state!r}, with {sums}" if fields["state"].value in STATES else f"one of {', '.join(STATES)}"
        fields["state"].refuse(f"must be {allowed}: {shown(fields['state'].value)}")


def _each(fields: Mapping[str, Node], name: str, read: Callable[[Node], T | None]) -> Iterator[T]:
    """Yield what *read* makes of each item of the list *name*, which need not be there."""
    for node in fields[name].items() if name in fields else ():
        one = read(node)
        if one is not None:
            yield one


def _wish_text(wish: Intent) -> str:
    return f"{pool_text(wish.pool)} {wish.replicas} {wish.seen_at!r}"


def _wish(node: Node) -> Intent | None:
    return node.built(lambda text: Intent(*_at(text, low=0)))


def _move_text(move: Move) -> str:
    return f"{pool_text(move.pool)} {move.gpus} {move.at!r}"


def _move(node: Node) -> Move | None:
    def built(text: str) -> Move:
        pool, gpus, at = _at(text, low=-MAX_COUNT)
        return Move(pool, at, gpus)

    return node.built(built)


def _at(text: str, *, low: int) -> tuple[PoolKey, int, float]:
    """Read a pool, a count of at least *low*, and a time."""
    pool, _, rest = text.partition(" ")
    count, _, at = rest.partition(" ")
    if not (_WHOLE.fullmatch(count) and low <= int(count) <= MAX_COUNT):
        raise InvalidError([f"a count must be {low} to {MAX_COUNT}: {shown(count)}"])
    return read_pool(pool), int(count), _time(at)


def _time(text: str) -> float:
    try:
        at = float(text)
    except ValueError:
        at = -1.0
    if not 0 <= at < math.inf:
        raise InvalidError([f"a time must be a number of seconds since 1970: {shown(text)}"])
    return at


def _sequence(node: Node) -> tuple[str, int] | None:
    def built(text: str) -> tuple[str, int]:
        number, _, caller = text.partition(" ")
        if not (_WHOLE.fullmatch(number) and 0 <= int(number) <= MAX_COUNT):
            raise InvalidError([f"must be a number and a caller: {shown(text)}"])
        return caller, int(number)

    return node.built(built)


def _freeze(node: Node) -> Freeze | None:
    freeze = read_flat(node, Freeze)
    if freeze is not None and freeze.direction not in DIRECTIONS:
        node.refuse(f"direction must be one of {', '.join(DIRECTIONS)}: {shown(freeze.direction)}")
    return freeze

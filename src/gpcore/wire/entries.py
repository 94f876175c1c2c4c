"""Entries of a ledger as one line of text each, short enough that one object holds ten thousand pools.

An entry reads `SHARED+NAME FENCE HELD`, and while something is reserved `... OLD NEW KILL OPERATION AFTERS`. NAME is
the object, as `OBJECT/NAMESPACE/DEPLOYMENT` where `~` in OBJECT stands for the deployment's name; of it the first
SHARED characters are those of the line before. HELD are the pools, as `p4x8d2` for 4 replicas of prefill with 8 GPUs
each, and 2 of decode with nobody knows how many; AFTERS are replicas in the same way. OLD is `=` where it is FENCE.
Whatever in a name is not a plain character, or means something here, is written as its bytes, as `%20`.

Rules of this file: a line says all of its entry, given the line before; what cannot be an entry is refused with the
reason.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from gpcore.errors import InvalidError
from gpcore.fences import Fence
from gpcore.indexes import Index
from gpcore.ledger import Entry, Held, ObjectKey, Reservation
from gpcore.pools import MAX_GPUS_PER_REPLICA, ParticipantId, Role
from gpcore.wire.documents import shown

MAX_COUNT = 2**63 - 1
"""The most of anything that is read: whatever an API server takes for an integer, others may have asked for."""

LETTERS = {role: role.value[0] for role in Role}
ROLES = {letter: role for role, letter in LETTERS.items()}
_POOLS = re.compile(rf"(?:[{''.join(ROLES)}]\d{{1,19}}(?:x\d{{1,19}})?)*", re.ASCII)
_POOL = re.compile(rf"([{''.join(ROLES)}])(\d+)(?:x(\d+))?", re.ASCII)
_ODD = re.compile(r"[^!-$&-*,-<>-}]+")  # what is not printable ASCII, and '%', '+', '=', '~'
_ESCAPED = re.compile(r"(?:%[0-9A-F]{2})+")
_SAME = "="
_AT_REST = 3
_RESERVED = 8
_SLASHES = 2
_DIGITS = 4


class Lines:
    """The lines of a ledger's entries, made anew only where an entry differs from that of the ledger before.

    One for each ledger that is followed: it remembers the last one.
    """

    def __init__(self) -> None:
        self._entries: Index[ObjectKey, Entry] = Index()
        self._names: list[str] = []
        self._lines: list[str] = []

    def of(self, entries: Index[ObjectKey, Entry]) -> list[str]:
        """Return the lines of *entries*, in the order of their names."""
        for key in entries.changed(self._entries):
            self._update(object_text(key), entries.get(key))
        self._entries = entries
        return self._lines.copy()

    def _update(self, name: str, entry: Entry | None) -> None:
        at = bisect_left(self._names, name)
        there = at < len(self._names) and self._names[at] == name
        if entry is None:
            del self._names[at], self._lines[at]
        elif there:
            self._lines[at] = f"{self._lines[at].partition(' ')[0]} {entry_text(entry)}"
            return
        else:
            self._names.insert(at, name)
            self._lines.insert(at, f"{self._head(at)} {entry_text(entry)}")
            at += 1
        if at < len(self._names):
            self._lines[at] = f"{self._head(at)} {self._lines[at].partition(' ')[2]}"

    def _head(self, at: int) -> str:
        name = self._names[at]
        shared = _shared(self._names[at - 1], name) if at else 0
        return f"{shared}+{name[shared:]}"


def entry_text(entry: Entry) -> str:
    """Return all of *entry* but its name."""
    rest = f"{plain(entry.fence)} {''.join(map(_held_text, entry.held))}"
    reservation = entry.reservation
    if reservation is None:
        return rest
    afters = "".join(f"{LETTERS[role]}{replicas}" for role, replicas in reservation.afters)
    old, new, kill = map(plain, reservation.fence)
    same = _SAME if reservation.fence.old == entry.fence else old
    return f"{rest} {same} {new} {kill} {plain(reservation.operation)} {afters}"


def object_text(key: ObjectKey) -> str:
    """Return the name of an object, by which lines are sorted: those of a kind stand together."""
    folder, slash, name = key.name.rpartition("/")
    own = key.participant.name
    short = f"~{plain(name[len(own) :])}" if name.startswith(own) else plain(name)
    return f"{plain(folder)}{slash}{short}/{key.participant}"


def plain(text: str) -> str:
    """Return *text* in characters that mean nothing else in a line."""
    return _ODD.sub(lambda odd: "".join(f"%{byte:02X}" for byte in odd[0].encode()), text)


def unplain(text: str) -> str:
    """Return what `plain` has written as *text*; InvalidError where it cannot have."""
    if _ESCAPED.sub("", text).count("%"):
        raise InvalidError([f"'%' must begin two digits: {shown(text)}"])
    try:
        return _ESCAPED.sub(lambda bytes_: bytes.fromhex(bytes_[0].replace("%", "")).decode(), text)
    except UnicodeDecodeError:
        raise InvalidError([f"not UTF-8: {shown(text)}"]) from None


def read_lines(lines: Iterable[str]) -> Iterator[Entry | InvalidError]:
    """Yield the entry of each line, or what is wrong with it."""
    before = ""
    for line in lines:
        head, _, rest = line.partition(" ")
        digits, plus, own = head.partition("+")
        if not (plus and digits.isascii() and digits.isdecimal() and len(digits) < _DIGITS):
            yield InvalidError([f"must begin with a number and '+': {shown(line)}"])
            continue
        if int(digits) > len(before):
            yield InvalidError([f"must share at most {len(before)} characters with the line before: {shown(line)}"])
            continue
        before = before[: int(digits)] + own
        try:
            yield _entry(before, rest)
        except InvalidError as error:
            yield InvalidError([f"{shown(before)}: {problem}" for problem in error.problems])


def _entry(name: str, rest: str) -> Entry:
    fields = rest.split(" ")
    if len(fields) + 1 not in (_AT_REST, _RESERVED):
        raise InvalidError([f"must have {_AT_REST} or {_RESERVED} fields: {len(fields) + 1}"])
    problems: list[str] = []
    held = tuple(Held(role, count, gpus) for role, count, gpus in _pools(fields[1], problems))
    marks = [fields[0] if mark == _SAME else mark for mark in fields[2:3]]
    reservation = _reservation([*marks, *fields[3:]], held, problems) if marks else None
    entry = None
    try:
        entry = Entry(_object(name), unplain(fields[0]), held, reservation)
    except InvalidError as error:
        problems += error.problems
    if problems or entry is None:
        raise InvalidError(problems)
    return entry


def _object(name: str) -> ObjectKey:
    if name.count("/") < _SLASHES:
        raise InvalidError(["must be named object/namespace/deployment"])
    place, namespace, deployment = name.rsplit("/", _SLASHES)
    participant = ParticipantId(namespace, deployment)
    folder, slash, short = place.rpartition("/")
    own = f"{deployment}{unplain(short[1:])}" if short.startswith("~") else unplain(short)
    return ObjectKey(participant, f"{unplain(folder)}{slash}{own}")


def _reservation(fields: list[str], held: tuple[Held, ...], problems: list[str]) -> Reservation:
    old, new, kill, operation = map(unplain, fields[:4])
    if not (new and kill) or len({old, new, kill}) < len(Fence._fields):
        problems.append(f"a reservation needs three fences, none like another: {shown(f'{old} {new} {kill}')}")
    afters = _pools(fields[4], problems)
    if unknown := {role for role, _, _ in afters} - {one.role for one in held}:
        problems.append(f"reserves for pools that it does not hold: {', '.join(sorted(unknown))}")
    if bool(operation) != bool(afters):
        problems.append(f"reserves {len(afters)} pools for {f'operation {shown(operation)}' if operation else 'none'}")
    return Reservation(Fence(old, new, kill), operation, tuple((role, count) for role, count, _ in afters))


def _pools(text: str, problems: list[str]) -> list[tuple[Role, int, int | None]]:
    """Return the pools that *text* says, or nothing and say why."""
    if not _POOLS.fullmatch(text):
        problems.append(f"must be pools as 'p4x8': {shown(text)}")
        return []
    found = [(ROLES[role], int(count), int(gpus) if gpus else None) for role, count, gpus in _POOL.findall(text)]
    if len({role for role, _, _ in found}) < len(found):
        problems.append(f"has two pools of one role: {shown(text)}")
    if any(count > MAX_COUNT or (gpus or 0) > MAX_GPUS_PER_REPLICA for _, count, gpus in found):
        bounds = f"{MAX_COUNT} replicas of {MAX_GPUS_PER_REPLICA} GPUs"
        problems.append(f"a pool has at most {bounds}: {shown(text)}")
    return found


def _held_text(held: Held) -> str:
    return f"{LETTERS[held.role]}{held.replicas}" + ("" if held.gpus is None else f"x{held.gpus}")


def _shared(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    for at, (mine, its) in enumerate(zip(one, other, strict=False)):
        if mine != its:
            return at
    return min(len(one), len(other))

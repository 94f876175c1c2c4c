"""The ledger: what every pool may have, and what is about to be written, on record before it is written.

Rules of this file: every operation is a function from a ledger to a ledger. None of ours ever raises the sum of what
the pools may have (and of what operations hold in escrow) above the ceiling, or above where it was: `Overdrawn` says
that somebody tried. Only what is seen in the cluster may do so, because it is already true.

Why the ceiling holds: a write needs the fence that stood in the ledger when it was reserved, and leaves another. What
is reserved counts until one of its two fences was seen on the object, and after that it can never land. The ledger is
one object that changes by compare-and-swap, so there is one order of all of it. No clause mentions time, or who leads.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from gpcore.budgets import Budget
from gpcore.errors import GpcoreError
from gpcore.fences import Fence
from gpcore.indexes import Index, amended
from gpcore.intents import Intent
from gpcore.operations import Leg, Operation, Stage
from gpcore.plans import Step
from gpcore.pools import ParticipantId, Pool, PoolKey, Role, Totals
from gpcore.successors import Successive

REPEATS = 32
"""How many requests of one caller are remembered by their ids."""

ALL_REPEATS = 512
"""How many requests of all callers are remembered by their ids; of one more, the oldest is forgotten."""

CALLERS = 1_000
"""Of how many callers the last sequence number is remembered."""

ENDED = 32
"""How many operations that have ended are remembered."""


class OverdrawnError(GpcoreError):
    """A change of the ledger would have let the pools have more than the ceiling; nothing was changed."""


class ObjectKey(NamedTuple):
    """Name one object that holds replicas: its deployment, and the name of its `Authority`."""

    participant: ParticipantId
    name: str

    def __str__(self) -> str:
        return f"{self.participant}/{self.name}"


class Held(NamedTuple):
    """What one pool may have: *replicas* of *gpus* each (None: never known)."""

    role: Role
    replicas: int
    gpus: int | None

    @property
    def total(self) -> int:
        """Return the GPUs, none where they are not known: then nothing may grow, and somebody else sees to that."""
        return self.replicas * (self.gpus or 0)


@attrs.frozen
class Reservation:
    """Say that an object may change to *afters* at any time, through *fence*, for *operation*.

    An adoption is for no operation (""), and changes nothing but the fence: what is on the object then is adopted.
    """

    fence: Fence
    operation: str = ""
    afters: tuple[tuple[Role, int], ...] = ()

    @property
    def adopts(self) -> bool:
        """Say whether it changes no replicas."""
        return not self.operation


@attrs.frozen
class Entry:
    """What the pools of one object may have; *fence* is the one that was last seen on it ("" before any)."""

    key: ObjectKey
    fence: str
    held: tuple[Held, ...]
    reservation: Reservation | None = None
    totals: Totals = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        now = sum([one.total for one in self.held])
        then = now
        if self.reservation is not None and self.reservation.afters:
            then = sum([one.total for one in self.after])
        object.__setattr__(self, "totals", Totals(max(now, then), min(now, then)))

    @property
    def after(self) -> tuple[Held, ...]:
        """Return what the pools have when what is reserved has landed."""
        afters = dict(self.reservation.afters) if self.reservation is not None else {}
        return tuple([Held(one.role, afters.get(one.role, one.replicas), one.gpus) for one in self.held])

    @property
    def settled(self) -> bool:
        """Say whether nothing of it is under way."""
        return self.reservation is None and bool(self.fence)

    def replicas(self, role: Role) -> int | None:
        """Return the replicas that the pool of *role* has, as far as is settled."""
        return next((one.replicas for one in self.held if one.role is role), None)


def held(pools: Iterable[Pool]) -> tuple[Held, ...]:
    """Return what *pools* are seen to have, in the order of their roles."""
    return tuple(sorted([Held(pool.key.role, pool.replicas, pool.gpus_per_replica) for pool in pools]))


@attrs.frozen
class Repeat:
    """Remember that *caller* sent request *request_id* with this *digest*, and what it was answered.

    *operation* is the one that carried it out. *status* "scaling": it had not ended.
    """

    caller: str
    request_id: str
    digest: str
    status: str
    message: str = ""
    operation: str | None = None


@attrs.frozen
class Freeze:
    """Hold changes in *direction* ("up", "down" or "all") of *pools* (none named: of all) until *until*.

    *until* is in wall-clock seconds since 1970; *reason* and *by* are for people.
    """

    id: str
    direction: str
    until: float
    reason: str
    by: str
    pools: tuple[PoolKey, ...] = ()


@attrs.frozen
class Move:
    """Remember that *pool* was changed *at* this time (wall-clock seconds), by so many *gpus* up or down."""

    pool: PoolKey
    at: float
    gpus: int


@attrs.frozen
class Ended:
    """Remember how operation *id*, begun and ended at these times (wall-clock seconds), ended: the record of an audit.

    *caller* is who asked for *participant*, as far as is known; *changes* what was written, with its fences, and
    *before* and *after* the fleet's charged GPUs. *told*: it was handed on to whoever keeps such records.
    """

    id: str
    began_at: float
    ended_at: float
    status: str
    message: str
    caller: str = ""
    participant: str = ""
    changes: str = ""
    before: int = 0
    after: int = 0
    told: bool = False


@attrs.frozen(slots=False)
class Ledger(Successive):
    """Hold one budget domain: every object's entry, the operations under way, and what is remembered.

    *epoch* counts those who took over. *complete*: everything that a whole list showed was adopted; before that
    nothing may grow. *wishes* have wall-clock times. *sequences* are the last numbers that callers have counted to.
    *extra* is what a later version has written and this one does not know; it is kept.
    """

    budget: Budget = attrs.field(factory=Budget)
    epoch: int = 0
    complete: bool = False
    entries: Index[ObjectKey, Entry] = attrs.field(factory=Index)
    operations: Mapping[str, Operation] = attrs.field(factory=dict, hash=False)
    wishes: tuple[Intent, ...] = ()
    repeats: tuple[Repeat, ...] = ()
    sequences: Mapping[str, int] = attrs.field(factory=dict, hash=False)
    freezes: tuple[Freeze, ...] = ()
    moves: tuple[Move, ...] = ()
    ended: tuple[Ended, ...] = ()
    extra: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    totals: Totals = attrs.field(default=Totals(), eq=False)
    pending: Index[ObjectKey, ObjectKey] = attrs.field(factory=Index, eq=False)

    @classmethod
    def of(
        cls, entries: Iterable[Entry], operations: Iterable[Operation] = (), *, budget: Budget | None = None
    ) -> "Ledger":
        """Return the ledger of *entries* and *operations*, with its sums made anew."""
        known = {entry.key: entry for entry in entries}
        under_way = {operation.id: operation for operation in operations}
        totals = sum([entry.totals for entry in known.values()], Totals())
        escrow = sum([operation.escrow for operation in under_way.values()])
        return cls(
            budget or Budget(),
            entries=Index(known.items()),
            operations=under_way,
            totals=totals + Totals(escrow, 0),
            pending=Index((key, key) for key, entry in known.items() if entry.reservation is not None),
        )

    @property
    def excess(self) -> int:
        """Return the GPUs by which the pools may stand above the ceiling, because others made them."""
        return self.budget.excess(self.totals)

    @property
    def state(self) -> str:
        """Return the word for how things stand."""
        if not self.complete:
            return "Bootstrapping"
        return "OverCommitted" if self.excess else "Active"

    @property
    def escrow(self) -> int:
        """Return the GPUs that operations hold for what they have yet to write."""
        return sum([operation.escrow for operation in self.operations.values()])

    @property
    def dip(self) -> int:
        """Return the GPUs by which operations let the fleet stand below the floor for a while."""
        return sum([operation.dip for operation in self.operations.values()])

    def entry(self, key: ObjectKey) -> Entry | None:
        """Return the entry of one object."""
        return self.entries.get(key)

    def adoptions(self) -> Iterator[Entry]:
        """Yield the entries that are being adopted."""
        for key in self.pending:
            entry = self.entries[key]
            if entry.reservation is not None and entry.reservation.adopts:
                yield entry


def object_of(pool: Pool) -> ObjectKey:
    """Return the object that the replicas of *pool* are written to."""
    return ObjectKey(pool.key.participant, pool.authority.name)


def believed(ledger: Ledger, entries: Iterable[Entry]) -> Ledger:
    """Return *ledger* with *entries* as they were seen, whatever that makes of the sums: it is already true."""
    return _with(ledger, {entry.key: entry for entry in entries}, {})


def forgotten(ledger: Ledger, keys: Iterable[ObjectKey]) -> Ledger:
    """Return *ledger* without the objects *keys*, which exist no more; a leg for one of them is dropped."""
    for key in keys:
        entry = ledger.entry(key)
        if entry is None:
            continue
        ledger = _with(ledger, {key: None}, _leg_of(ledger, entry, None, Stage.DROPPED))
    return ledger


def opened(ledger: Ledger, operation: Operation) -> Ledger:
    """Return *ledger* with *operation* under way, nothing of it reserved.

    It holds in escrow what it will acquire beyond what it will release, and owns to the dip below the floor that
    it may cause by releasing first.
    """
    gpus = [leg.step.gpus for leg in operation.legs]
    acquired, released = sum([one for one in gpus if one > 0]), sum([-one for one in gpus if one < 0])
    dip = 0
    if acquired and released:
        least = ledger.totals.least - _to_be_released(ledger) - released
        dip = min(released, max(0, ledger.budget.floor - least))
    held_back = operation.but(escrow=max(0, acquired - released), dip=dip)
    return _checked(ledger, _with(ledger, {}, {operation.id: held_back}))


def _to_be_released(ledger: Ledger) -> int:
    """Return the GPUs that operations under way have yet to release."""
    waiting = [leg.step.gpus for one in ledger.operations.values() for leg in one.legs if leg.stage is Stage.WAITING]
    return sum([-gpus for gpus in waiting if gpus < 0])


def updated(ledger: Ledger, operation: Operation) -> Ledger:
    """Return *ledger* with *operation* as it is now; what it holds in escrow may not have grown."""
    return _checked(ledger, _with(ledger, {}, {operation.id: operation}))


def reserved(ledger: Ledger, key: str, at: int, fence: Fence) -> Ledger:
    """Return *ledger* in which the leg *at* of operation *key* may be written through *fence*."""
    operation = ledger.operations[key]
    step = Step(operation.legs[at].step.changes, fence)
    entry = ledger.entries[ObjectKey(step.participant, step.authority.name)]
    afters = tuple([(change.pool.role, change.after) for change in step.changes])
    entry = Entry(entry.key, entry.fence, entry.held, Reservation(fence, key, afters))
    operation = operation.with_leg(at, Leg(step, Stage.RESERVED), escrow=max(0, operation.escrow - max(0, step.gpus)))
    return _checked(ledger, _with(ledger, {entry.key: entry}, {key: operation}))


def settled(ledger: Ledger, key: ObjectKey) -> Ledger:
    """Return *ledger* when the new fence of what is reserved for the object *key* was seen on it.

    An operation that goes on keeps what it has released, so that nobody takes what it needs to go on, or back.
    """
    entry = ledger.entries[key]
    if entry.reservation is None:
        return ledger
    rest = Entry(key, entry.reservation.fence.new, entry.after)
    return _with(ledger, {key: rest}, _leg_of(ledger, entry, rest, Stage.DONE))


def killed(ledger: Ledger, key: ObjectKey, found: tuple[Held, ...]) -> Ledger:
    """Return *ledger* when the killing fence of what is reserved for *key* was seen, with *found* on the object."""
    entry = ledger.entries[key]
    if entry.reservation is None:
        return ledger
    rest = Entry(key, entry.reservation.fence.kill, found)
    return _with(ledger, {key: rest}, _leg_of(ledger, entry, rest, Stage.DROPPED))


def replaced(ledger: Ledger, entry: Entry) -> Ledger:
    """Return *ledger* with *entry* in the place of one whose reservation can never land; its leg is dropped."""
    before = ledger.entry(entry.key)
    legs = {} if before is None else _leg_of(ledger, before, entry, Stage.DROPPED)
    return _with(ledger, {entry.key: entry}, legs)


def abandoned(ledger: Ledger, key: str) -> Ledger:
    """Return *ledger* without the operation *key*, which need not be there; nothing of it may be reserved."""
    return _with(ledger, {}, {key: None}) if key in ledger.operations else ledger


def closed(ledger: Ledger, ended: Ended) -> Ledger:
    """Return *ledger* without the operation of *ended*, which is remembered instead of one that was."""
    return abandoned(ledger, ended.id).but(ended=(*ledger.ended[1 - ENDED :], ended))


def told(ledger: Ledger, key: str) -> Ledger:
    """Return *ledger* in which the end of operation *key* was handed on."""
    if not any(one.id == key and not one.told for one in ledger.ended):
        return ledger
    ended = tuple([attrs.evolve(one, told=True) if one.id == key else one for one in ledger.ended])
    return ledger.but(ended=ended)


def _leg_of(ledger: Ledger, entry: Entry, rest: Entry | None, stage: Stage) -> dict[str, Operation | None]:
    """Return the operation whose leg was reserved for *entry*, which becomes *rest*, with that leg at *stage*.

    What comes free by that the operation keeps, but no more than the leg is about.
    """
    reservation = entry.reservation
    operation = None if reservation is None else ledger.operations.get(reservation.operation)
    if reservation is None or operation is None:
        return {}
    for at, leg in enumerate(operation.legs):
        if leg.stage is Stage.RESERVED and leg.step.fence == reservation.fence:
            shift = leg.step.gpus if stage is Stage.DROPPED else -leg.step.gpus
            others = any(other.open or other.stage is Stage.DONE for other in operation.legs if other is not leg)
            freed = entry.totals.charged - (0 if rest is None else rest.totals.charged)
            escrow = operation.escrow + (max(0, min(shift, freed)) if others else 0)
            return {operation.id: operation.with_leg(at, Leg(leg.step, stage), escrow=escrow)}
    return {}


def _with(
    ledger: Ledger, entries: Mapping[ObjectKey, Entry | None], operations: Mapping[str, Operation | None]
) -> Ledger:
    """Return *ledger* with some entries and operations replaced, or left out (None), and its sums kept."""
    charged, least = ledger.totals.charged, ledger.totals.least
    pending: dict[ObjectKey, ObjectKey | None] = {}
    for key, entry in entries.items():
        before = ledger.entries.get(key)
        if before is not None:
            charged, least = charged - before.totals.charged, least - before.totals.least
        if entry is not None:
            charged, least = charged + entry.totals.charged, least + entry.totals.least
        pending[key] = key if entry is not None and entry.reservation is not None else None
    under_way: Mapping[str, Operation] = ledger.operations
    if operations:
        under_way = amended(ledger.operations, operations)
        charged += sum([one.escrow for one in operations.values() if one is not None])
        charged -= sum([ledger.operations[name].escrow for name in operations if name in ledger.operations])
    return ledger.but(
        entries=ledger.entries.replaced(entries) if entries else ledger.entries,
        operations=under_way,
        totals=Totals(charged, least),
        pending=ledger.pending.replaced(pending) if pending else ledger.pending,
    )


def _checked(before: Ledger, after: Ledger) -> Ledger:
    """Return *after*, unless it lets the pools have more than the ceiling, and more than *before* did."""
    if after.excess > before.excess:
        raise OverdrawnError(
            f"the pools could have {after.totals.charged} GPUs, above the ceiling ({after.budget.ceiling})"
        )
    return after

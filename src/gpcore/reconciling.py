"""The ledger held against what is seen of the cluster.

Rules of this file: a fence that the ledger knows settles what it was written for; any other justifies nothing but an
adoption, which is itself written down first and changes no replicas. What others have raised is believed at once;
what they have lowered only when a new fence shows that no older news can follow. Nobody is fought.
"""

from collections.abc import Iterable

import attrs

from gpcore.events import Apply, Effect, Mark
from gpcore.fences import Fence, Mint
from gpcore.indexes import Index
from gpcore.ledger import (
    Entry,
    Held,
    Ledger,
    ObjectKey,
    Reservation,
    believed,
    forgotten,
    held,
    killed,
    object_of,
    replaced,
    settled,
)
from gpcore.operations import Stage
from gpcore.pools import Authority, Deployment, Pool
from gpcore.states import Drive, State, carried, objects_of

PATIENCE = 3
"""For how many ticks an object may show a fence that the ledger does not know before it is adopted."""


@attrs.define
class _Reading:
    """The ledger while the objects of the cluster are held against it, one after the other."""

    ledger: Ledger
    mint: Mint
    behind: Index[ObjectKey, int]
    full: bool = False
    urgent: bool = False

    def take(self, key: ObjectKey, pools: list[Pool]) -> None:
        """Hold the *pools* of the object *key* against its entry."""
        entry = self.ledger.entry(key)
        fence = pools[0].fence or ""
        if entry is None and self.full:
            return
        if entry is None:
            self._adopt(Entry(key, "", held(pools)), old=fence)
            return
        reservation = entry.reservation
        if reservation is not None:
            entry = self._pending(entry, reservation, fence, pools)
        if entry.reservation is None:
            self._resting(entry, fence, pools)

    def _pending(self, entry: Entry, reservation: Reservation, fence: str, pools: list[Pool]) -> Entry:
        """Settle what is under way for *entry*, as far as *fence* proves how it ended."""
        key = entry.key
        if reservation.adopts and fence == reservation.fence.new:
            self.ledger = believed(self.ledger, [Entry(key, fence, _known(entry, pools))])
        elif reservation.adopts and fence == entry.fence != reservation.fence.old:  # it was to adopt yesterday's news
            self.ledger = believed(self.ledger, [Entry(key, entry.fence, entry.held)])
        elif not reservation.adopts and fence == reservation.fence.new:
            self.ledger = settled(self.ledger, key)
        elif not reservation.adopts and fence == reservation.fence.kill:
            self.ledger = killed(self.ledger, key, _known(entry, pools))
        elif reservation.adopts or fence == reservation.fence.old:
            self._raise(entry, pools)
        return self.ledger.entries[key]

    def _resting(self, entry: Entry, fence: str, pools: list[Pool]) -> None:
        """See whether somebody else has changed what nothing of ours is under way for."""
        key = entry.key
        if fence != entry.fence:
            if key not in self.behind:
                self.behind = self.behind.put(key, 0)
            return
        if key in self.behind:
            self.behind = self.behind.drop(key)
        self._raise(entry, pools)
        if not fence or self.ledger.entries[key].held != _known(entry, pools):
            self._adopt(self.ledger.entries[key], old=fence)

    def _raise(self, entry: Entry, pools: list[Pool]) -> None:
        """Believe whatever others have raised."""
        most = _most(entry.held, _known(entry, pools))
        if most != entry.held:
            self.ledger = believed(self.ledger, [attrs.evolve(entry, held=most)])

    def _adopt(self, entry: Entry, *, old: str) -> None:
        fence, self.mint = self.mint.fence(old)
        self.ledger = replaced(self.ledger, attrs.evolve(entry, reservation=Reservation(fence)))
        self.behind = self.behind.drop(entry.key)
        self.urgent = True

    def readopt(self, key: ObjectKey, *, old: str) -> None:
        """Adopt the object *key*, which shows *old*, whatever was under way for it."""
        self._adopt(self.ledger.entries[key], old=old)


def _known(entry: Entry, pools: list[Pool]) -> tuple[Held, ...]:
    """Return what *pools* are seen to have, with the last known shape where they show none."""
    gpus = {one.role: one.gpus for one in entry.held}
    seen = held(pools)
    if None not in [one.gpus for one in seen]:
        return seen
    return tuple([Held(role, count, gpus.get(role) if size is None else size) for role, count, size in seen])


def _most(before: tuple[Held, ...], seen: tuple[Held, ...]) -> tuple[Held, ...]:
    """Return the more of both, role by role."""
    if before == seen:
        return before
    now = {one.role: one for one in seen}
    both = [_more(one, now.pop(one.role, one)) for one in before]
    return tuple(sorted([*both, *now.values()]))


def _more(one: Held, other: Held) -> Held:
    gpus = [size for size in (one.gpus, other.gpus) if size is not None]
    return Held(one.role, max(one.replicas, other.replicas), max(gpus, default=None))


def reconciled(state: State, deployments: Iterable[Deployment]) -> tuple[State, set[str]]:
    """Return *state* with what is seen of *deployments* taken into the ledger, and the operations that it concerns.

    A planner that does not lead takes nothing into the ledger, and says where it knows less than that does.
    """
    book = state.book
    if book is None:
        return state, set()
    reading = _Reading(book.draft, state.mint, state.behind, book.full)
    concerned: set[str] = set()
    for deployment in deployments:
        for key, pools in objects_of(deployment).items():
            before = reading.ledger.entry(key)
            if not state.leading:
                continue
            reading.take(key, pools)
            if before is not None and before.reservation is not None and not before.reservation.adopts:
                concerned.add(before.reservation.operation)
    return _read(state, reading), concerned


def _read(state: State, reading: _Reading) -> State:
    """Return *state* with the ledger, and what is behind, as *reading* left them."""
    if reading.mint is not state.mint or reading.behind is not state.behind:
        state = state.but(mint=reading.mint, behind=reading.behind)
    return state.drafting(_completed(state, reading.ledger), urgent=reading.urgent)


def _completed(state: State, ledger: Ledger) -> Ledger:
    """Return *ledger*, complete if all that was ever listed is adopted."""
    if ledger.complete or state.snapshot is None or state.stale or not state.leading:
        return ledger
    return ledger if any(ledger.adoptions()) else attrs.evolve(ledger, complete=True)


def missing(state: State, among: Iterable[ObjectKey] | None = None) -> State:
    """Return *state* in which objects of the ledger that a whole list does not show are looked for by name.

    Only those *among* these; None: all. What is not managed any more is forgotten at once. A list may be older than
    the ledger, so what is missing from it may exist: it is marked like an object that is adopted, and whoever cannot
    find it says so.
    """
    if state.book is None or state.snapshot is None or state.stale or not state.leading:
        return state
    manages, entries = state.rules.management.manages, state.book.draft.entries
    lost = [key for key in (entries if among is None else among) if key in entries and not _is_shown(state, key)]
    unmanaged = [key for key in lost if not manages(key.participant)]
    state = state.drafting(forgotten(state.book.draft, unmanaged)) if unmanaged else state
    return looked_for(state, lost)


def _is_shown(state: State, key: ObjectKey) -> bool:
    deployment = state.view.deployment(key.participant)
    return deployment is not None and any(object_of(pool) == key for pool in deployment.pools)


def looked_for(state: State, keys: Iterable[ObjectKey]) -> State:
    """Return *state* in which the objects *keys*, which are not shown, are looked for by name.

    One that is being written to is found, or not, by that write.
    """
    reading = _Reading(state.ledger, state.mint, state.behind)
    for key in keys:
        entry = reading.ledger.entry(key)
        reading.behind = reading.behind.drop(key)
        if entry is not None and entry.reservation is None:
            reading.readopt(key, old=entry.fence)
    return _read(state, reading)


def left_behind(state: State) -> State:
    """Return *state* one tick later: what has shown an unknown fence for too long is adopted."""
    if state.book is None or not state.leading or not len(state.behind):
        return state
    reading = _Reading(state.book.draft, state.mint, state.behind)
    for key, ticks in list(state.behind.items()):
        entry = reading.ledger.entry(key)
        fence = _shown(state, key)
        if entry is None or fence is None or fence == entry.fence or entry.reservation is not None:
            reading.behind = reading.behind.drop(key)
        elif ticks >= PATIENCE:
            reading.readopt(key, old=fence)
        else:
            reading.behind = reading.behind.put(key, ticks + 1)
    return _read(state, reading)


def estranged(state: State, mark: Mark) -> State:
    """Return *state* when *mark* was refused: a fence that nobody of us wrote stands there, so the object is adopted.

    What the object shows was read after the refusal. Had another planner gone on from there, the ledger would have
    moved, and this change of it could not be saved. One that was deleted and created anew with its old fence is
    another object, which no write for the first can reach.
    """
    key = mark.key
    entry, fence = state.ledger.entry(key), _shown(state, key)
    if entry is None or entry.reservation is None or fence is None or not state.leading:
        return state
    same = mark.authority.uid in ("", authority_of(state, key).uid)
    if same and fence in (entry.reservation.fence.old, entry.fence):
        return state
    reading = _Reading(state.ledger, state.mint, state.behind)
    reading.readopt(key, old=fence)
    return _read(state, reading)


def _pools_of(state: State, key: ObjectKey) -> list[Pool]:
    """Return the pools of the object *key* as they are seen; none where it is not."""
    deployment = state.view.deployment(key.participant)
    return [] if deployment is None else objects_of(deployment).get(key, [])


def _shown(state: State, key: ObjectKey) -> str | None:
    """Return the fence that the object *key* shows, or None where it is not shown."""
    return next((pool.fence for pool in _pools_of(state, key)), None)


def authority_of(state: State, key: ObjectKey) -> Authority:
    """Return the object *key* as it is seen; without a uid where it is not."""
    return next((pool.authority for pool in _pools_of(state, key)), Authority(key.name))


def due(state: State, keys: Iterable[ObjectKey] | None = None) -> tuple[State, tuple[Effect, ...]]:
    """Return what may be written now, because it is on record, and is not under way; *keys* None: to any object."""
    book = state.book
    if book is None or not state.leading or not len(book.stored.pending):
        return state, ()
    effects: list[Effect] = []
    marking = {}
    for key in book.stored.pending if keys is None else keys:
        stored, entry = book.stored.entry(key), book.draft.entry(key)
        reservation = None if stored is None else stored.reservation
        if reservation is None or entry is None or entry.reservation != reservation:
            continue
        if reservation.adopts:
            if state.marking.get(key) != reservation.fence.new:
                effects.append(mark(state, key, reservation.fence, reservation.fence.new))
                marking[key] = reservation.fence.new
            continue
        operation = book.draft.operations[reservation.operation]
        drive = state.drives.get(operation.id, Drive(state.now))
        for leg in operation.legs:
            if leg.stage is Stage.RESERVED and leg.step.fence == reservation.fence and leg.step not in drive.begun:
                effects.append(Apply(operation.id, leg.step))
                drive = Drive(drive.started_at, drive.waiters, (*drive.sent, leg.step), drive.unsure, drive.killing)
                state = state.driving(operation.id, drive)
    if marking:
        state = state.but(marking=state.marking.replaced(marking))
    return state, tuple(effects)


def mark(state: State, key: ObjectKey, fence: Fence, new: str) -> Mark:
    """Return the order to put *new* in the place of the old one of *fence* on the object *key*."""
    return Mark(key, authority_of(state, key), fence.old, new)


def recarried_all(state: State) -> State:
    """Return *state* with what is promised to every pool as the ledger has it now."""
    snapshot = state.snapshot
    if snapshot is None:
        return state
    for deployment in list(snapshot.deployments()):
        after = carried(state, deployment)
        if after is not deployment:
            snapshot = snapshot.with_deployment(after)
    return state.but(snapshot=snapshot, intents=state.intents.follow(snapshot, [one.pool for one in state.intents]))

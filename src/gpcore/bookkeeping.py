"""The ledger as it is stored, and who may write it.

Rules of this file: one save at a time. When somebody else has saved first, what they saved is the truth: this planner
takes it, finds again what it has seen since, and decides anew what it had promised and not yet stored. Leading is for
speed; a planner that only thinks that it leads stores nothing, for the ledger has moved.
"""

import attrs

from gpcore.deciding import redrafted
from gpcore.decisions import LedgerDown, NotLeading, Rejected
from gpcore.events import (
    Effect,
    Failed,
    Froze,
    HandedOver,
    LeaseChanged,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnread,
    LedgerUnsaved,
    Load,
    Noted,
    Outcome,
    Reply,
    Save,
    Succeeded,
    Tell,
    Thawed,
    Told,
)
from gpcore.executing import advanced
from gpcore.holding import MAX_FREEZES, with_freeze, without_freezes
from gpcore.indexes import Index
from gpcore.intents import Intent, Intents
from gpcore.ledger import Freeze, Ledger, ObjectKey, told
from gpcore.operations import Operation
from gpcore.pools import ParticipantId
from gpcore.reconciling import due, missing, recarried_all, reconciled
from gpcore.states import Book, Drive, State, Transition, recarried

FEW = 128
"""How many wishes are drafted anew for each save; what more of them cost would be felt by every request."""


def saving(transition: Transition) -> Transition:
    """Return *transition* with the order to store the draft, where something waits for that."""
    state, book = transition.state, transition.state.book
    if book is None or not book.urgent or book.outdated or book.saving is not None:
        return transition
    if not state.leading or state.epoch < 0:  # who has not taken over yet has nothing to store
        return transition
    if len(state.intents) <= FEW:
        state = wished(state)
    draft = state.ledger
    state = state.but(book=Book(book.stored, book.version, draft, draft, size=book.size))
    return Transition(state, (*transition.effects, Save(draft, book.version)))


def wished(state: State) -> State:
    """Return *state* with its wishes in the draft, to be stored with whatever is stored next.

    Their times are those of the wall, to the second: another planner has another monotonic clock. This costs as much
    as there are wishes, so many of them are drafted with the clock only, and not for each save.
    """
    if not state.leading or state.epoch < 0:  # whoever has taken over hears them
        return state
    offset, ledger = state.wall_offset, state.ledger
    wishes = tuple([Intent(one.pool, one.replicas, round(one.seen_at + offset)) for one in state.intents])
    return state if wishes == ledger.wishes else state.drafting(ledger.but(wishes=wishes), lazy=True)


def ledger_saved(state: State, event: LedgerSaved) -> Transition:
    """Write what is on record now."""
    book = state.book
    if book is None or book.saving is None:
        return Transition(state)
    if not state.leading:
        before = state.but(book=attrs.evolve(book, saving=None), fault="")
        return _rebased(before, book.saving, event.version, size=event.size)
    after = Book(book.saving, event.version, book.draft, None, book.urgent, event.size, dirty=book.dirty)
    state = state.but(book=after, fault="")
    state, orders = due(state, book.saving.entries.changed(book.stored.entries))
    state, ends = _telling(state)
    state, notes = _noted(state)
    beginning = (Load(),) if state.leading and state.epoch < 0 else ()  # what was read meanwhile said less than this
    return Transition(state, (*orders, *ends, *notes, *beginning))


def froze(state: State, event: Froze) -> Transition:
    """Hold changes from now on, and say so when that is on record."""
    return _noting(state, event.id, event.freeze)


def thawed(state: State, event: Thawed) -> Transition:
    """Hold changes no more, and say so when that is on record."""
    return _noting(state, event.id, event.key)


def _noting(state: State, key: str, freeze: Freeze | str) -> Transition:
    if state.book is None or not state.leading or state.fault:
        refusal = NotLeading(state.leader) if not state.leading else LedgerDown(state.fault)
        return Transition(state, (Reply(key, Rejected(refusal)),))
    noted = _as_noted(state.ledger, freeze)
    if len(noted.freezes) > max(MAX_FREEZES, len(state.ledger.freezes)):
        full = LedgerDown(f"{MAX_FREEZES} freezes hold, and it holds no more")
        return Transition(state, (Reply(key, Rejected(full)),))
    noting = state.but(noting={**state.noting, key: freeze})
    if noted.freezes == state.ledger.freezes and not state.noting and _on_record(state, state.book.stored, freeze):
        return Transition(*_noted(noting))
    return Transition(noting.drafting(noted, urgent=True))


def _as_noted(ledger: Ledger, freeze: Freeze | str) -> Ledger:
    return without_freezes(ledger, key=freeze) if isinstance(freeze, str) else with_freeze(ledger, freeze)


def _on_record(state: State, stored: Ledger, freeze: Freeze | str) -> bool:
    """Say whether *stored* has *freeze*, or that it ended; one that is over has nothing to be put on record."""
    over = isinstance(freeze, Freeze) and freeze.until <= state.now + state.wall_offset
    return over or _as_noted(stored, freeze).freezes == stored.freezes


def _noted(state: State) -> tuple[State, tuple[Effect, ...]]:
    """Answer for the freezes that are on record now, and for those that a later word on them has overtaken."""
    if state.book is None or not state.noting:
        return state, ()
    left, overtaken = {}, set()
    for key, freeze in reversed(list(state.noting.items())):
        name = freeze if isinstance(freeze, str) else freeze.id
        if name in overtaken or _on_record(state, state.book.stored, freeze):
            overtaken.add(name)
        else:
            left[key] = freeze
    done = [key for key in state.noting if key not in left]
    left = {key: freeze for key, freeze in state.noting.items() if key in left}
    return state.but(noting=left), tuple([Reply(key, Noted()) for key in done])


def _telling(state: State) -> tuple[State, tuple[Effect, ...]]:
    """Return the orders to hand on what has ended by the ledger, and what nobody is known to have handed on."""
    ended = () if state.book is None or not state.leading else state.book.stored.ended
    known = {*state.telling, *[one.id for one in state.ledger.ended if one.told]}
    untold = [one for one in ended if not one.told and one.id not in known]
    if not untold:
        return state, ()
    telling = state.telling | {one.id for one in untold}
    return state.but(telling=telling), tuple([Tell(one) for one in untold])


def end_told(state: State, event: Told) -> Transition:
    """Note that the end was handed on, with whatever is stored next; else it is handed on again when that is stored."""
    state = state.but(telling=state.telling - {event.id})
    return Transition(state.drafting(told(state.ledger, event.id), lazy=True) if event.kept else state)


def ledger_moved(state: State, _: LedgerMoved) -> Transition:
    """See what somebody else has stored."""
    return Transition(_not_saving(state), (Load(),))


def ledger_unsaved(state: State, event: LedgerUnsaved) -> Transition:
    """See whether it is stored all the same, or refuse what it was to promise, and try again with the clock."""
    state = _not_saving(state).but(fault=event.detail)
    if event.lost or state.book is None:
        return Transition(state, (Load(),))
    refused, book = Rejected(LedgerDown(event.detail)), state.book
    notes = [Reply(key, refused) for key in state.noting]
    told = _rebased(state.but(noting={}), book.stored, book.version, refused, size=book.size)
    return Transition(told.state.but(book=_outdated(told.state.book)), (*notes, *told.effects))


def ledger_unread(state: State, event: LedgerUnread) -> Transition:
    """Promise nothing until it can be read."""
    return Transition(state.but(fault=event.detail or "it cannot be read"))


def _not_saving(state: State) -> State:
    return state.but(book=_outdated(state.book))


def _outdated(book: Book | None) -> Book | None:
    return None if book is None else attrs.evolve(book, saving=None, urgent=True, outdated=True)


def ledger_loaded(state: State, event: LedgerLoaded) -> Transition:
    """Take what is stored for the truth."""
    state = state.but(now=event.now, wall_offset=event.wall - event.now, fault="")
    book = state.book
    if book is not None and book.saving is not None:
        return Transition(state)  # an answer is under way that says more
    begins = state.leading and state.epoch < 0
    if book is not None and not begins and book.version == event.version and event.version is not None:
        state = state.but(book=attrs.evolve(book, outdated=False))
        return taking_over(Transition(*due(state)))
    if event.ledger is None and not state.leading:  # whoever leads will make one; until then nothing is on record
        return Transition(recarried_all(state.but(book=None)))
    ledger = event.ledger or Ledger()
    if state.leading and state.exclusive and 0 <= state.epoch < ledger.epoch:
        state = state.but(epoch=-1, leading=False, leader="")
    return taking_over(_rebased(state, ledger, event.version, size=event.size))


def taking_over(transition: Transition) -> Transition:
    """Return *transition* with this planner's epoch drafted into the ledger, where it leads and has not done so."""
    state = transition.state
    if state.book is None or not state.leading or state.epoch == state.book.draft.epoch:
        return transition
    draft = state.book.draft
    if state.exclusive or state.epoch < 0:
        draft = attrs.evolve(draft, epoch=draft.epoch + 1)
    draft = attrs.evolve(draft, budget=state.rules.budget)
    return Transition(state.drafting(draft, urgent=True).but(epoch=draft.epoch), transition.effects)


def lease_changed(state: State, event: LeaseChanged) -> Transition:
    """Begin to lead, or leave what is under way to the one that does."""
    if event.leading:
        if state.leading and state.exclusive == event.exclusive and state.epoch >= 0:
            return Transition(state)
        state = state.but(leading=True, leader="", exclusive=event.exclusive, epoch=-1, telling=frozenset())
        return Transition(state, (Load(),))
    if not state.leading:
        return Transition(state.but(leader=event.leader))
    state = state.but(leading=False, leader=event.leader, epoch=-1)
    if state.book is None or state.book.saving is not None:  # what is being saved may land, and its answer says so
        return Transition(state)
    return _rebased(state, state.book.stored, state.book.version, size=state.book.size)


def _rebased(
    state: State, ledger: Ledger, version: str | None, refusal: Rejected | None = None, *, size: int = 0
) -> Transition:
    """Return *state* on the stored *ledger*, with what was drafted and is not in it decided anew, or refused."""
    before, drives = state.book, state.drives
    drafted = {} if before is None else before.draft.operations
    stored = {} if before is None else before.stored.operations
    ended = {*stored, *[one.id for one in ledger.ended]}
    lost = [operation for key, operation in drafted.items() if key not in ledger.operations]
    known = {key for key in drafted if key in ledger.operations}
    begins = state.leading and state.epoch < 0
    differing = None if begins or before is None else ledger.entries.changed(before.draft.entries)
    under_way = [*drafted.values(), *ledger.operations.values()]
    changing = {change.pool.participant for one in under_way for change in one.plan.changes}
    state = state.but(
        book=Book(ledger, version, ledger, size=size),
        drives={key: _driven(state, one, fresh=key not in known) for key, one in ledger.operations.items()},
        busy=Index((change.pool, one.id) for one in ledger.operations.values() for change in one.plan.changes),
        marking=Index(),
    )
    state = _wishing(state, ledger)
    for freeze in state.noting.values() if state.leading else ():
        state = state.drafting(_as_noted(state.ledger, freeze), urgent=True)
    state = _held_against(state, differing, changing)
    effects: list[Effect] = []
    for operation in lost:
        drive = drives.get(operation.id, Drive(state.now))
        if operation.id in ended:  # by another planner, who may have found it where our save had landed after all
            effects += _told(drive, _outcome(ledger, operation))
        elif refusal is not None or not state.leading:
            effects += _told(drive, refusal or Rejected(NotLeading(state.leader)))
        else:
            one = redrafted(state, operation, drive)
            state = one.state
            effects += one.effects
    if not state.leading:
        effects += [Reply(key, Rejected(NotLeading(state.leader))) for key in state.noting]
        state = state.but(noting={})
        effects += [reply for key, drive in state.drives.items() for reply in _told(drive, HandedOver(key))]
        drives = {key: attrs.evolve(drive, waiters=()) for key, drive in state.drives.items()}
        return Transition(state.but(drives=drives), tuple(effects))
    went_on = advanced(state, list(state.operations))
    state, orders = due(went_on.state)
    state, ends = _telling(state)
    state, notes = _noted(state)
    return Transition(state, (*effects, *went_on.effects, *orders, *ends, *notes))


def _held_against(state: State, differing: set[ObjectKey] | None, changing: set[ParticipantId]) -> State:
    """Return *state* with what is seen taken into its new ledger.

    Only the objects *differing* are not as the draft before had them (None: all may be), which had what is seen; only
    pools of deployments *changing* were, or are, promised to operations.
    """
    if differing is None:
        state, _ = reconciled(state, list(state.view.deployments()))
        return recarried_all(missing(state))
    participants = changing | {key.participant for key in differing}
    deployments = [one for key in participants if (one := state.view.deployment(key)) is not None]
    state, _ = reconciled(state, deployments)
    return recarried(missing(state, differing), participants)


def _driven(state: State, operation: Operation, *, fresh: bool) -> Drive:
    """Return what is known of *operation*, which is on record.

    What another planner has reserved it may be about to write: it is asked for again a tick later.
    """
    drive = state.drives.get(operation.id, Drive(state.now))
    return attrs.evolve(drive, unsure=operation.reserved) if fresh else drive


def _wishing(state: State, ledger: Ledger) -> State:
    """Return *state* with the wishes that the ledger remembers, unless this planner is the one that hears them."""
    if state.snapshot is None or (state.leading and state.epoch >= 0):
        return state
    offset = state.wall_offset
    wishes = [Intent(one.pool, one.replicas, min(state.now, one.seen_at - offset)) for one in ledger.wishes]
    return state.but(intents=Intents.of(wishes, state.view))


def _told(drive: Drive, outcome: Outcome) -> list[Effect]:
    return [Reply(waiter, outcome) for waiter in drive.waiters]


def _outcome(ledger: Ledger, operation: Operation) -> Outcome:
    """Return how *operation* ended, as far as the ledger remembers."""
    for one in ledger.ended:
        if one.id == operation.id:
            return Succeeded(operation.plan) if one.status == "success" else Failed(one.message)
    return HandedOver(operation.id)

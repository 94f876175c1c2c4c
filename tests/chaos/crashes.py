"""Where a planner can die: between what it hears and what it does about it.

Everything goes through the planner's brain: an event goes in, and the orders for what is to be written come out. Dying
before the brain has heard of an answer leaves what was written and nobody who knows; dying with the orders in hand
leaves what is on record and nothing of it written. What is under way when a planner dies is the proxy's to arrange.

Rules of this file: pure. A point has a name; what the names mean is in `arrived` and `ordered`.
"""

from collections.abc import Iterator

from gpcore.events import (
    Apply,
    Decided,
    Effect,
    Event,
    LedgerSaved,
    Mark,
    Marked,
    Save,
    Seen,
    StepApplied,
    Submitted,
    Tell,
    Ticked,
    Told,
)
from gpcore.ledger import Entry, Ledger
from gpcore.plans import Step
from gpcore.pools import Deployment
from gpcore.states import State


def arrived(state: State, event: Event) -> Iterator[str]:
    """Yield the points at which a planner is that knows *state* and is about to hear of *event*."""
    match event:
        case Submitted():
            yield "request-read"
        case LedgerSaved() if state.book is not None and state.book.saving is not None:
            yield from (f"{what}-stored" for what in changes(state.book.stored, state.book.saving))
        case StepApplied(_, step):
            yield "applied"
            if step.acquires and len(_reserved(state, event.operation)) > 1:
                yield "one-of-two-applied"
        case Marked(mark, absent, lost) if not absent and not lost and kills(_stored(state), mark):
            yield "killed"
        case Told():
            yield "told"
        case Seen(deployment) if state.leading and _landed(state, deployment):
            yield "landed-and-seen"
        case Ticked() if state.leading and any(one.holding(state.view) for one in state.operations.values()):
            yield "release-awaited"
        case _:
            pass


def ordered(state: State, event: Event, effects: tuple[Effect, ...]) -> Iterator[str]:
    """Yield the points at which a planner is whose brain has made *state* of *event* and ordered *effects*."""
    for effect in effects:
        match effect:
            case Decided(_, _, _, operation) if operation is not None and isinstance(event, Submitted):
                yield "planned"
            case Save(ledger) if state.book is not None:
                yield from (f"{what}-ordered" for what in changes(state.book.stored, ledger))
            case Apply():
                yield "apply-ordered"
            case Tell():
                yield "tell-ordered"
            case Mark() if kills(_stored(state), effect):
                yield "kill-ordered"
            case _:
                pass


def changes(before: Ledger, after: Ledger) -> Iterator[str]:
    """Yield what *after* has on record that *before* has not."""
    if after.epoch > before.epoch:
        yield "takeover"
    if not after.complete and any(after.adoptions()):
        yield "adoption"
    for key, operation in after.operations.items():
        known = before.operations.get(key)
        if known is None:
            yield "intent"
        elif operation.returning and not known.returning:
            yield "return"
        elif any(step.acquires for step in operation.reserved) and any(step.acquires for step in known.waiting):
            yield "grant"
    if any(_settles(before.entries[key], after.entry(key)) for key in before.pending):
        yield "settle"


def kills(stored: Ledger, mark: Mark) -> bool:
    """Say whether *mark* is to make sure that a write never lands that *stored* has on record."""
    entry = stored.entry(mark.key)
    reservation = None if entry is None else entry.reservation
    return reservation is not None and not reservation.adopts and mark.new == reservation.fence.kill


def _settles(before: Entry, after: Entry | None) -> bool:
    reservation = before.reservation
    return reservation is not None and not reservation.adopts and (after is None or after.reservation != reservation)


def _landed(state: State, deployment: Deployment) -> bool:
    """Say whether *deployment* shows a write that is on record as one that may still land."""
    stored = _stored(state)
    pending = [one for key in stored.pending if (one := stored.entries[key].reservation) is not None]
    fences = {one.fence.new for one in pending if not one.adopts}
    return any(pool.fence in fences for pool in deployment.pools)


def _stored(state: State) -> Ledger:
    return Ledger() if state.book is None else state.book.stored


def _reserved(state: State, operation: str) -> tuple[Step, ...]:
    """Return what of *operation* is on record as what may still land."""
    found = _stored(state).operations.get(operation)
    return () if found is None else found.reserved

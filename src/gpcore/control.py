"""The planner's brain: one state, and what each event makes of it.

Rules of this file: everything that happens goes through `step`, and everything that is to happen leaves it as an
effect. Ids, fences and the time come in with the state and the events. What is decided is drafted into the ledger in
the same step, so of two requests between two observations the second sees the first; it is written when the draft is
stored. One save is under way at a time, and what is decided meanwhile goes with the next one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from gpcore.bookkeeping import (
    end_told,
    froze,
    lease_changed,
    ledger_loaded,
    ledger_moved,
    ledger_saved,
    ledger_unread,
    ledger_unsaved,
    saving,
    thawed,
    wished,
)
from gpcore.deciding import preview, submitted
from gpcore.events import (
    Effect,
    Event,
    Froze,
    Gone,
    LeaseChanged,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnread,
    LedgerUnsaved,
    Listed,
    Load,
    Marked,
    Seen,
    Stale,
    StepApplied,
    StepRefused,
    StepUnknown,
    Submitted,
    Thawed,
    Ticked,
    Told,
)
from gpcore.executing import advanced, given_up, observed_again, retried, step_applied, step_refused, step_unknown
from gpcore.holding import without_freezes
from gpcore.intents import Intents
from gpcore.ledger import forgotten
from gpcore.pools import PoolKey, Snapshot
from gpcore.reconciling import estranged, left_behind, looked_for, missing, reconciled
from gpcore.states import Rules, State, Transition, carried, objects_of

__all__ = ["TRANSITIONS", "Rules", "State", "Transition", "preview", "step"]


def step(state: State, event: Event) -> Transition:
    """Return what *event* makes of *state*."""
    return saving(TRANSITIONS[type(event)](state, event))


def _listed(state: State, event: Listed) -> Transition:
    managed = [one for one in event.deployments if state.rules.management.manages(one.id)]
    state = attrs.evolve(state, snapshot=Snapshot.of(managed), stale=False)
    state, _ = reconciled(state, managed)
    state = missing(state)
    snapshot = Snapshot.of(carried(state, one) for one in managed)
    state = state.but(snapshot=snapshot, intents=Intents.of(state.intents, snapshot))
    return advanced(state, list(state.operations))


def _seen(state: State, event: Seen) -> Transition:
    snapshot, deployment = state.snapshot, event.deployment
    if snapshot is None or not state.rules.management.manages(deployment.id):
        return Transition(state)
    before, known = snapshot.deployment(deployment.id), state.behind
    state, concerned = reconciled(state, [deployment])
    deployment = carried(state, deployment)
    # A fence that the ledger does not know: it is behind this view, or somebody else has written.
    loading = (Load(),) if len(state.behind) > len(known) else ()
    if deployment == before and not concerned:
        return Transition(state, loading)
    keys = {pool.key for pool in deployment.pools} | {pool.key for pool in (before.pools if before else ())}
    observed = _observed(state, snapshot.with_deployment(deployment), keys, concerned)
    return Transition(observed.state, (*loading, *observed.effects))


def _gone(state: State, event: Gone) -> Transition:
    """Look by name for the objects of a deployment that is not shown any more, since a list may be old."""
    before = None if state.snapshot is None else state.snapshot.deployment(event.participant)
    if state.snapshot is None or before is None:
        return Transition(state)
    if state.book is not None and state.leading:
        state = looked_for(state, objects_of(before))
    return _observed(state, state.view.without(event.participant), {pool.key for pool in before.pools}, set())


def _observed(state: State, snapshot: Snapshot, keys: set[PoolKey], concerned: set[str]) -> Transition:
    """Take *snapshot* for what is deployed; only the pools *keys* differ from what was known."""
    freed = snapshot.totals.charged < state.view.totals.charged
    state = state.but(snapshot=snapshot, intents=state.intents.follow(snapshot, keys))
    concerned = concerned | {operation for key in keys if (operation := state.busy.get(key)) is not None}
    if freed:
        concerned |= {one.id for one in state.operations.values() if one.waiting}
    return advanced(state, [key for key in state.operations if key in concerned])


def _went_stale(state: State, _: Stale) -> Transition:
    return Transition(state.but(stale=True))


def _marked(state: State, event: Marked) -> Transition:
    """Ask again later where the mark is not seen; forget what is not there; adopt what somebody else has marked."""
    mark = event.mark
    entry = state.ledger.entry(mark.key)
    if entry is None or entry.reservation is None or mark.new not in entry.reservation.fence:
        return Transition(state.but(marking=state.marking.drop(mark.key)))
    state = state.but(resting=state.resting | {mark.key})
    concerned = {entry.reservation.operation} - {""}
    if event.absent and state.leading:
        state = state.drafting(forgotten(state.ledger, [mark.key]), urgent=True)
        state, _ = observed_again(state, mark.key)
    elif not event.lost:
        state = estranged(state, mark)
    return advanced(state, concerned)


def _ticked(state: State, event: Ticked) -> Transition:
    """Forget old wishes, ask again for what is not certain, give up what waited too long, and store what changed."""
    offset = event.wall - event.now if event.wall else state.wall_offset
    intents = state.intents.fresh(event.now, ttl_s=state.rules.intent_ttl_s)
    state = given_up(left_behind(state.but(now=event.now, wall_offset=offset, intents=intents)))
    if state.leading and state.ledger.freezes:
        state = state.drafting(without_freezes(state.ledger, wall=event.now + offset))
    asked = retried(state)
    went_on = advanced(asked.state, list(asked.state.operations))
    loading = _loading(went_on.state)
    return Transition(_flushing(wished(went_on.state)), (*asked.effects, *went_on.effects, *loading))


def _loading(state: State) -> tuple[Effect, ...]:
    """Return the order to read the ledger, where it is not known, or where somebody else may have stored it."""
    book = state.book
    if book is not None and book.saving is not None:
        return ()
    alone = state.leading and state.exclusive
    return (Load(),) if book is None or book.outdated or state.fault or not alone else ()


def _flushing(state: State) -> State:
    """Return *state* with what was drafted and waits for nothing stored, too."""
    book = state.book
    if book is None or book.urgent or not book.dirty:
        return state
    return state.but(book=attrs.evolve(book, urgent=True))


TRANSITIONS: Mapping[type[Any], Callable[[State, Any], Transition]] = {
    Submitted: submitted,
    StepApplied: step_applied,
    StepRefused: step_refused,
    StepUnknown: step_unknown,
    Marked: _marked,
    Listed: _listed,
    Seen: _seen,
    Gone: _gone,
    Stale: _went_stale,
    LedgerSaved: ledger_saved,
    LedgerMoved: ledger_moved,
    LedgerUnsaved: ledger_unsaved,
    LedgerLoaded: ledger_loaded,
    LedgerUnread: ledger_unread,
    LeaseChanged: lease_changed,
    Froze: froze,
    Thawed: thawed,
    Told: end_told,
    Ticked: _ticked,
}
"""What each kind of event does; every member of `Event` has its line."""

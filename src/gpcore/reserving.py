"""Which steps of an operation may be written next, and their promise in the ledger.

Rules of this file: releases are reserved first; what they free is reserved for somebody else when it is seen to be
free. A step is reserved only on objects that are as it needs them and settled; nothing is written here.
"""

from collections.abc import Iterable

import attrs

from gpcore.ledger import ObjectKey, OverdrawnError, reserved, updated
from gpcore.operations import Leg, Operation, Stage, needed, promised
from gpcore.plans import Step
from gpcore.pools import Totals
from gpcore.states import State


def going_on(state: State, operation: Operation) -> State:
    """Return *state* with the steps of *operation* reserved that may be written now."""
    return _reserving(state, operation, sendable(state, operation))


def sendable(state: State, operation: Operation) -> tuple[Step, ...]:
    """Return the waiting steps that may be reserved now: releases at once, the others when there is room.

    Where a release would leave the fleet below the floor for a while, and there is room without it, it comes last.
    """
    waiting, under_way = operation.waiting, operation.reserved
    acquisitions = tuple([step for step in waiting if step.acquires])
    releases = tuple([step for step in waiting if not step.acquires])
    short = state.rules.budget.shortfall(state.view.totals) > 0
    if releases and short and acquisitions and _certain(state) and _promises_fit(state, operation):
        return acquisitions
    if releases:
        return () if short and any(step.acquires for step in under_way) else releases
    if not acquisitions or not all(step.acquires for step in under_way):
        return ()
    return acquisitions if _certain(state) and _fits(state, operation) else ()


def _certain(state: State) -> bool:
    """Say whether the view is as new as the ledger, so that something may grow on it."""
    return not state.stale and not len(state.behind)


def _promises_fit(state: State, operation: Operation) -> bool:
    """Say whether all that is promised to anybody fits, nothing that is to be released being free yet."""
    return state.rules.budget.excess(state.view.totals) <= operation.excess


def _fits(state: State, operation: Operation) -> bool:
    """Say whether the GPUs that the waiting steps of *operation* need are really free.

    They are when all that is promised to anybody fits. Else its own releases must be seen, and what is in use now,
    without what waits to be written, must leave the room. Where it began above the ceiling, it may end no higher.
    While the GPUs of something are not known, nobody can tell.
    """
    snapshot, budget = state.view, state.rules.budget
    if (budget.ceiling is not None and len(snapshot.unknown)) or not _all_shown(state, operation):
        return False
    if _promises_fit(state, operation):
        return True
    if operation.holding(snapshot):
        return False
    waiting = sum((promised(one, snapshot) for other in state.operations.values() for one in other.waiting), Totals())
    return budget.excess(snapshot.totals - waiting + needed(operation.waiting, snapshot)) <= operation.excess


def _all_shown(state: State, operation: Operation) -> bool:
    """Say whether every pool that *operation* writes to or has written to is in the view, or is known to be gone."""
    return not any(
        state.view.pool(change.pool) is None
        and state.ledger.entry(ObjectKey(step.participant, step.authority.name)) is not None
        for step in (*operation.waiting, *operation.done)
        for change in step.changes
    )


def _reserving(state: State, operation: Operation, steps: tuple[Step, ...]) -> State:
    """Return *state* with *steps* of *operation* reserved in the draft, each behind a new fence."""
    if not steps:
        return state
    ledger, mint = state.ledger, state.mint
    for at, leg in enumerate(operation.legs):
        if leg.stage is not Stage.WAITING or leg.step not in steps:
            continue
        entry = ledger.entry(ObjectKey(leg.step.participant, leg.step.authority.name))
        if entry is None or not entry.settled or not _begins(leg.step, entry.held):
            return _spoilt(state.but(mint=mint).drafting(ledger, urgent=True), operation.id, leg.step)
        fence, mint = mint.fence(entry.fence)
        try:
            ledger = reserved(ledger, operation.id, at, fence)
        except OverdrawnError:  # others have raised something meanwhile: what waits goes on waiting
            break
    return state.but(mint=mint).drafting(ledger, urgent=True)


def _begins(step: Step, held: Iterable[tuple[object, int, int | None]]) -> bool:
    """Say whether the ledger has the pools of *step* as it needs them."""
    replicas = {role: count for role, count, _ in held}
    return all(replicas.get(change.pool.role) == change.before for change in step.changes)


def _spoilt(state: State, key: str, step: Step) -> State:
    """Return *state* in which the waiting *step* of operation *key* can no more be begun."""
    operation = state.operations[key]
    problem = operation.problem or changed_meanwhile([step])
    legs = [Leg(leg.step, Stage.DROPPED) if leg.step == step else leg for leg in operation.legs]
    return state.drafting(updated(state.ledger, attrs.evolve(operation, legs=tuple(legs), problem=problem)))


_CHANGED = "was changed by somebody else meanwhile"


def changed_meanwhile(steps: Iterable[Step]) -> str:
    """Return the sentence that says why *steps* can never be written."""
    names = ", ".join(str(change.pool) for step in steps for change in step.changes)
    return f"{names} {_CHANGED}"


def overtaken(operation: Operation) -> bool:
    """Say whether *operation* cannot go on because somebody else has changed what it is about."""
    return operation.problem is not None and operation.problem.endswith(_CHANGED)

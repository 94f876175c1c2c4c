"""How an operation is carried out, and given back where it cannot be.

Rules of this file: what is done next follows from the legs of the operation, which are in the ledger, so whoever leads
can do it. An operation that gave something away and cannot go on takes it back, out of what it holds in escrow. One
of which nothing was done, because the cluster had changed since it was decided, is decided anew.
"""

from collections.abc import Iterable

import attrs

from gpcore import repeating
from gpcore.deciding import RETRIES, again
from gpcore.events import Effect, Failed, Outcome, Reply, StepApplied, StepRefused, StepUnknown, Succeeded, Tell
from gpcore.ledger import Ended, ObjectKey, abandoned, closed, settled, updated
from gpcore.operations import Leg, Operation, Stage
from gpcore.plans import Change, Plan, Step
from gpcore.pools import Snapshot
from gpcore.reconciling import due, mark, reconciled
from gpcore.reserving import changed_meanwhile, going_on, overtaken
from gpcore.states import Drive, State, Transition, recarried


def advanced(state: State, keys: Iterable[str]) -> Transition:
    """Let the operations *keys* go on as far as they can now."""
    effects: list[Effect] = []
    for key in keys:
        if key in state.operations:
            one = _advanced(state, state.operations[key])
            state = one.state
            effects += one.effects
    return Transition(state, tuple(effects))


def _advanced(state: State, operation: Operation) -> Transition:
    if not state.leading:
        return Transition(state)
    if operation.problem is None and operation.at(Stage.DROPPED):
        operation = attrs.evolve(operation, problem=changed_meanwhile(operation.at(Stage.DROPPED)))
        state = state.drafting(updated(state.ledger, operation))
    if operation.problem is not None and operation.waiting and not operation.returning:
        operation = _dropping(operation)
        state = state.drafting(updated(state.ledger, operation))
    if operation.open:
        return Transition(going_on(state, operation))
    if operation.problem is None:
        return ended(state, operation, Succeeded(operation.plan))
    untouched = not operation.done and not operation.returning
    if untouched and operation.retries < RETRIES and (overtaken(operation) or _outdated(state, operation)):
        drive = state.drives.get(operation.id, Drive(state.now))
        return again(_let_go(state, operation), operation, drive, retries=operation.retries + 1)
    back = () if operation.returning else _way_back(state, operation)
    if back:
        state = _returning(state, operation, back)
        return _advanced(state, state.operations[operation.id])
    return ended(state, operation, _failure(operation))


def _dropping(operation: Operation) -> Operation:
    """Return *operation* without what it has not begun."""
    legs = [Leg(leg.step, Stage.DROPPED) if leg.stage is Stage.WAITING else leg for leg in operation.legs]
    return attrs.evolve(operation, legs=tuple(legs))


def _failure(operation: Operation) -> Failed:
    """Return how *operation* ended, which could not be done as a whole."""
    problem = operation.problem or ""
    if not operation.returning:
        return Failed(problem, _plain(operation.done))
    dropped = [leg.step for leg in operation.legs if leg.stage is not Stage.DONE]
    returned = _plain(operation.done)
    if dropped:
        named = ", ".join(str(change.pool) for step in dropped for change in step.changes)
        problem = f"{problem}; and {named} could not be given back"
    return Failed(problem, returned=returned)


def _plain(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple([Step(step.changes) for step in steps])


def _way_back(state: State, operation: Operation) -> tuple[Step, ...]:
    """Return the steps that undo what *operation* has done, where it gave something away; else what is done stands."""
    done = [change for step in operation.done for change in step.changes]
    if not any(change.releases for change in done):
        return ()
    return Plan.of([_undoing(state.view, change) for change in done if change.before != change.after]).steps


def _undoing(snapshot: Snapshot, change: Change) -> Change:
    """Return the change that takes back *change*."""
    pool = snapshot.pool(change.pool)
    back = Change(change.pool, change.after, change.before, change.gpus_per_replica, change.authority)
    if pool is None or pool.replicas != change.after:
        return back
    return attrs.evolve(back, charged=pool.reserving(None).shift(change.before).charged)


def _returning(state: State, operation: Operation, back: tuple[Step, ...]) -> State:
    """Return *state* in which *operation* goes the way *back*."""
    operation = attrs.evolve(operation, legs=tuple([Leg(step) for step in back]), returning=True)
    state = state.drafting(updated(state.ledger, operation), urgent=True)
    return recarried(state, {change.pool.participant for change in operation.plan.changes})


def ended(state: State, operation: Operation, outcome: Outcome) -> Transition:
    """Return *state* without *operation*, which ended so, and the answers to all who wait for it."""
    drive = state.drives.get(operation.id, Drive(state.now))
    record = Ended(
        operation.id,
        operation.began_at,
        state.now + state.wall_offset,
        "success" if isinstance(outcome, Succeeded) else "error",
        operation.problem or "",
        str(operation.request.caller),
        str(operation.request.participant),
        _written(operation),
        operation.before.charged,
        state.view.totals.charged,
    )
    ledger = repeating.answered(state.ledger, operation.id, *_for_repeats(outcome))
    state = _let_go(state.drafting(closed(ledger, record)), operation)
    state = state.but(telling=state.telling | {record.id})
    return Transition(state, (*[Reply(waiter, outcome) for waiter in drive.waiters], Tell(record)))


def _for_repeats(outcome: Outcome) -> tuple[str, str]:
    """Return what a request that is sent again will be answered."""
    return ("failed", outcome.problem) if isinstance(outcome, Failed) else ("success", "")


def _written(operation: Operation) -> str:
    """Return what was written, for the record; what was undone stands before what undid it."""
    legs = "; ".join([_told(leg) for leg in operation.legs])
    if not operation.returning:
        return legs
    undone = [Change(one.pool, one.after, one.before, None) for leg in operation.legs for one in leg.step.changes]
    return f"{'; '.join([_told(Leg(Step((one,)), Stage.DONE)) for one in undone])}; and back: {legs}"


def _told(leg: Leg) -> str:
    """Return what was written by *leg*, and through which fence, for the record."""
    changes = ", ".join([f"{one.pool} {one.before} to {one.after}" for one in leg.step.changes])
    fence = "" if leg.step.fence is None else f" ({leg.step.fence.old or '-'} to {leg.step.fence.new})"
    return f"{changes}: {leg.stage.value}{fence}"


def _let_go(state: State, operation: Operation) -> State:
    """Return *state* in which *operation* is no more, and its pools are nobody's."""
    changes = operation.plan.changes
    keys = [change.pool for change in changes]
    state = state.drafting(abandoned(state.ledger, operation.id)).driving(operation.id, None)
    state = state.but(busy=state.busy.replaced(dict.fromkeys(keys)))
    state = recarried(state, {key.participant for key in keys})
    return state.but(intents=state.intents.follow(state.view, keys))


def _outdated(state: State, operation: Operation) -> bool:
    """Say whether a pool of *operation* is no longer as the decision saw it."""
    pools = [(state.view.pool(change.pool), change) for change in operation.plan.changes]
    return any(
        pool is None or pool.replicas != change.before or pool.authority != change.authority for pool, change in pools
    )


def step_applied(state: State, event: StepApplied) -> Transition:
    """Take the step for done: its new fence was in the answer."""
    state = _answered(state, event)
    key = ObjectKey(event.step.participant, event.step.authority.name)
    entry = state.ledger.entry(key)
    if entry is not None and entry.reservation is not None and entry.reservation.fence == event.step.fence:
        state = state.drafting(settled(state.ledger, key))
    state, concerned = observed_again(state, key)
    return advanced(state, {event.operation, *concerned})


def observed_again(state: State, key: ObjectKey) -> tuple[State, set[str]]:
    """Return *state* with the deployment of *key*, as it was last seen, held against the ledger again."""
    deployment = state.view.deployment(key.participant)
    state, concerned = reconciled(state, [] if deployment is None else [deployment])
    return recarried(state, [key.participant]), concerned


def step_refused(state: State, event: StepRefused) -> Transition:
    """Make sure that the step never lands, unless it has landed already."""
    state = _answered(state, event)
    operation = state.operations.get(event.operation)
    if operation is None or event.step not in operation.reserved or event.step.fence is None:
        return Transition(state)
    operation = attrs.evolve(operation, problem=operation.problem or event.detail)
    state = state.drafting(updated(state.ledger, operation))
    drive = state.drives.get(operation.id, Drive(state.now))
    state = state.driving(operation.id, attrs.evolve(drive, killing=(*drive.killing, event.step)))
    return Transition(*kill(state, event.step))


def kill(state: State, step: Step) -> tuple[State, tuple[Effect, ...]]:
    """Return *state* in which the write of *step* is being made impossible."""
    key = ObjectKey(step.participant, step.authority.name)
    if step.fence is None or state.marking.get(key) == step.fence.kill:
        return state, ()
    order = mark(state, key, step.fence, step.fence.kill)
    return state.but(marking=state.marking.put(key, order.new)), (attrs.evolve(order, authority=step.authority),)


def step_unknown(state: State, event: StepUnknown) -> Transition:
    """Ask again later: what has landed will be refused then, and its fence seen."""
    operation = state.operations.get(event.operation)
    if operation is None or event.step not in operation.reserved:
        return Transition(_answered(state, event))
    state = _answered(state, event)
    drive = state.drives.get(event.operation, Drive(state.now))
    return Transition(state.driving(event.operation, attrs.evolve(drive, unsure=(*drive.unsure, event.step))))


def _answered(state: State, event: StepApplied | StepRefused | StepUnknown) -> State:
    """Return *state* in which the step of *event* is under way no more."""
    drive = state.drives.get(event.operation)
    return state if drive is None else state.driving(event.operation, drive.without(event.step))


def retried(state: State) -> Transition:
    """Ask again for what may or may not have landed, and for what must never land."""
    effects: list[Effect] = []
    if state.resting:
        state = state.but(marking=state.marking.replaced(dict.fromkeys(state.resting)), resting=frozenset())
    for key, drive in state.drives.items():
        if not drive.unsure and not drive.killing:
            continue
        open_steps = state.operations[key].reserved
        killing = tuple([one for one in drive.killing if one in open_steps])
        state = state.driving(key, attrs.evolve(drive, unsure=(), killing=killing))
        for step in killing:
            state, orders = kill(state, step)
            effects += orders
    state, orders = due(state)
    return Transition(state, (*effects, *orders))


def given_up(state: State) -> State:
    """Return *state* in which operations that have waited too long for GPUs go no further.

    What another deadline later cannot be given back either, because others took the room, is not: no one waits for it.
    """
    for key, drive in state.drives.items():
        operation, waited_s = state.operations[key], state.now - drive.started_at
        if not operation.waiting:
            continue
        if operation.returning and waited_s > 2 * state.rules.deadline_s:
            state = state.drafting(updated(state.ledger, _dropping(operation)))
        elif operation.problem is None and waited_s > state.rules.deadline_s:
            still = ", ".join(str(change.pool) for change in operation.holding(state.view)) or "others"
            problem = f"the GPUs did not come free within {state.rules.deadline_s:g} s; still held by {still}"
            state = state.drafting(updated(state.ledger, attrs.evolve(operation, problem=problem)))
    return state

"""The planner's brain: one state, and what each event makes of it.

Rules of this file: everything that happens goes through `step`, and everything that is to happen leaves it as an
effect. An event that is refused changes no pool and no reservation. Ids and the time come in with the events.

A pool that an operation has not finished with carries a reservation: what the operation has written or will write.
It is made in the same step as the decision, so of two requests between two observations the second sees the first.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from attrs.validators import gt

from gpcore.budgets import Budget
from gpcore.decisions import Approved, Busy, Decision, NotReady, PolicyBroken, Rejected, ViewStale
from gpcore.events import (
    Apply,
    Decided,
    Effect,
    Event,
    Failed,
    Gone,
    Listed,
    Outcome,
    Reply,
    Seen,
    Stale,
    StepApplied,
    StepRefused,
    StepUnknown,
    Submitted,
    Succeeded,
    Ticked,
)
from gpcore.indexes import Index
from gpcore.intents import Intent, Intents
from gpcore.management import Management
from gpcore.operations import Operation, needed, outdated, overtaken, promised, shown
from gpcore.plans import Step
from gpcore.policy import Policy, decide, resolve, violation
from gpcore.pools import Deployment, PoolKey, Snapshot, Totals
from gpcore.requests import ScaleRequest

RETRIES = 3
"""How often a request is decided anew because the cluster changed between the decision and the write."""

Asked = dict[PoolKey, int]
"""The replicas that a request asks of each pool."""

_NOTHING = Snapshot()


@attrs.frozen
class Rules:
    """Hold what does not change while the planner runs.

    *intent_ttl_s* is how long a wish stays fresh; *deadline_s* how long an operation waits for GPUs to come free
    before what it has not begun is dropped.
    """

    management: Management = attrs.field(factory=Management)
    budget: Budget = attrs.field(factory=Budget)
    intent_ttl_s: float = attrs.field(default=360.0, validator=gt(0))
    deadline_s: float = attrs.field(default=1800.0, validator=gt(0))
    policy: Policy = decide


@attrs.frozen
class State:
    """Hold all that the planner knows. *snapshot* None: the cluster was never read as a whole."""

    rules: Rules = attrs.field(factory=Rules)
    snapshot: Snapshot | None = None
    stale: bool = False
    intents: Intents = attrs.field(factory=Intents)
    operations: Mapping[str, Operation] = attrs.field(factory=dict, hash=False)
    busy: Index[PoolKey, str] = attrs.field(factory=Index)

    @property
    def ready(self) -> bool:
        """Say whether requests can be decided on a current view."""
        return self.snapshot is not None and not self.stale

    def but(
        self,
        *,
        snapshot: Snapshot | None = None,
        intents: Intents | None = None,
        operations: Mapping[str, Operation] | None = None,
        busy: Index[PoolKey, str] | None = None,
    ) -> "State":
        """Return this state with what is given in the place of what was; a third of the cost of `attrs.evolve`."""
        return State(
            self.rules,
            self.snapshot if snapshot is None else snapshot,
            self.stale,
            self.intents if intents is None else intents,
            self.operations if operations is None else operations,
            self.busy if busy is None else busy,
        )


@attrs.frozen
class Transition:
    """The next state, and what to do now, in this order."""

    state: State
    effects: tuple[Effect, ...] = ()


def step(state: State, event: Event) -> Transition:
    """Return what *event* makes of *state*."""
    return TRANSITIONS[type(event)](state, event)


def preview(state: State, request: ScaleRequest, *, now: float) -> Decision:
    """Return how *request* would be decided at *now*, and change nothing."""
    asked = _asked(state, request)
    if isinstance(asked, Rejected):
        return asked
    busy = _busy(state, asked)
    if busy is None:
        return _decide(state, request, asked, state.intents.fresh(now, ttl_s=state.rules.intent_ttl_s))
    operation = state.operations[busy.operation]
    return Approved(operation.plan, operation.totals) if operation.fulfils(asked) else Rejected(busy)


def _submitted(state: State, event: Submitted) -> Transition:
    asked = _asked(state, event.request)
    if isinstance(asked, Rejected):
        return _answer(state, event, asked)
    intents = state.intents.fresh(event.now, ttl_s=state.rules.intent_ttl_s)
    busy = _busy(state, asked)
    if busy is not None:
        return _join(_remembering(state, intents, asked, event.now), event, asked, busy)
    return _begin(state, event, asked, intents)


def _asked(state: State, request: ScaleRequest) -> Asked | Rejected:
    """Return the replicas that *request* asks of each pool, or why it is not looked at.

    Not looked at: nothing is known yet, the caller may not ask for this, or it makes no sense for this fleet.
    """
    if state.snapshot is None:
        return Rejected(NotReady())
    refusal = state.rules.management.refusal(request, state.snapshot)
    if refusal is not None:
        return refusal
    pools = resolve(request, state.snapshot)
    if isinstance(pools, Rejected):
        return pools
    return {pool.key: target.replicas for pool, target in zip(pools, request.targets, strict=True)}


def _wishes(asked: Asked, now: float) -> list[Intent]:
    """Return what is remembered of a valid request."""
    return [Intent(key, replicas, now) for key, replicas in asked.items()]


def _remembering(state: State, intents: Intents, asked: Asked, now: float) -> State:
    """Return the state with what is *asked* among the *intents*."""
    return state.but(intents=intents.follow(_view(state), (), _wishes(asked, now)))


def _busy(state: State, asked: Asked) -> Busy | None:
    """Return the operation that has not finished with a pool that is *asked* for."""
    for key in asked:
        operation = state.busy.get(key)
        if operation is not None:
            return Busy(key, operation)
    return None


def _join(state: State, event: Submitted, asked: Asked, busy: Busy) -> Transition:
    """Let the same wish share the operation that fulfils it already; refuse another one."""
    operation = state.operations[busy.operation]
    if not operation.fulfils(asked):
        return _answer(state, event, Rejected(busy))
    joined = attrs.evolve(operation, waiters=(*operation.waiters, event.id))
    decided = Decided(event.id, event.request, Approved(operation.plan, operation.totals), operation.id)
    return Transition(_with_operation(state, joined), (decided,))


def _answer(state: State, event: Submitted, refusal: Rejected) -> Transition:
    return Transition(state, (Decided(event.id, event.request, refusal), Reply(event.id, refusal)))


def _begin(state: State, event: Submitted, asked: Asked, intents: Intents, *, retries: int = 0) -> Transition:
    """Decide, and begin to carry out what was approved."""
    decision = _decide(state, event.request, asked, intents)
    if isinstance(decision, Rejected):
        return _answer(_remembering(state, intents, asked, event.now), event, decision)
    plan = decision.plan
    if not plan.steps:
        state = _remembering(state, intents, asked, event.now)
        return Transition(state, (Decided(event.id, event.request, decision), Reply(event.id, Succeeded(plan))))
    snapshot = _view(state).promising(plan.afters)
    partners = [change.pool for change in plan.changes if change.pool not in asked]
    wishes = intents.follow(snapshot, partners, _wishes(asked, event.now))
    operation = Operation(
        event.id,
        event.request,
        plan,
        event.now,
        plan.steps,
        excess=state.rules.budget.excess(_view(state).totals),
        totals=decision.totals,
        retries=retries,
        waiters=(event.id,),
    )
    state = state.but(snapshot=snapshot, intents=wishes)
    begun = _sent(state, operation, _sendable(state, operation))
    return Transition(begun.state, (Decided(event.id, event.request, decision, operation.id), *begun.effects))


def _decide(state: State, request: ScaleRequest, asked: Asked, intents: Intents) -> Decision:
    """Return the policy's decision, unless it breaks a rule that no policy may break."""
    snapshot, budget = _view(state), state.rules.budget
    decision = state.rules.policy(request, snapshot=snapshot, intents=intents, budget=budget)
    if isinstance(decision, Rejected):
        return decision
    problem = violation(decision.plan, asked, snapshot=snapshot, budget=budget)
    if problem is not None:
        return Rejected(PolicyBroken(problem))
    if state.stale and not all(change.releases for change in decision.plan.changes):
        return Rejected(ViewStale())
    return decision


def _view(state: State) -> Snapshot:
    """Return what is deployed; nothing, where nothing was ever read."""
    return _NOTHING if state.snapshot is None else state.snapshot


def _released(state: State, operation: Operation) -> State:
    """Return the state in which *operation* has ended and its pools are nobody's."""
    keys = [change.pool for change in operation.plan.changes]
    busy = state.busy.replaced(dict.fromkeys(keys))
    snapshot = _view(state).promising(dict.fromkeys(keys))
    operations = {key: other for key, other in state.operations.items() if key != operation.id}
    intents = state.intents.follow(snapshot, keys)
    return state.but(snapshot=snapshot, intents=intents, operations=operations, busy=busy)


def _with_operation(state: State, operation: Operation) -> State:
    busy = state.busy
    if operation.id not in state.operations:
        busy = busy.replaced({change.pool: operation.id for change in operation.plan.changes})
    operations = {**state.operations, operation.id: operation}
    return state.but(operations=operations, busy=busy)


def _advance(state: State, key: str) -> Transition:
    """Send what of the operation *key* can be sent now, or end it."""
    operation = state.operations[key]
    if not operation.waiting and not operation.unfinished:
        failed = operation.problem is not None
        outcome = Failed(operation.problem or "", operation.done) if failed else Succeeded(operation.plan)
        return _end(state, operation, outcome)
    ready = _sendable(state, operation) if operation.waiting else ()
    return _sent(state, operation, ready) if ready else Transition(state)


def _sent(state: State, operation: Operation, ready: tuple[Step, ...]) -> Transition:
    return Transition(
        _with_operation(state, operation.sending(ready)), tuple([Apply(operation.id, one) for one in ready])
    )


def _sendable(state: State, operation: Operation) -> tuple[Step, ...]:
    """Return the waiting steps that may be written now: releases at once, the others when there is room."""
    releases = tuple([one for one in operation.waiting if not one.acquires])
    if releases:
        return releases
    released = all(one.acquires for one in (*operation.sent, *operation.unsure, *operation.landed))
    return operation.waiting if released and not state.stale and _fits(state, operation) else ()


def _fits(state: State, operation: Operation) -> bool:
    """Say whether the GPUs that the waiting steps of *operation* need are really free.

    They are when all that is promised to anybody fits. Else its own releases must be seen, and what is in use now,
    without what waits to be written, must leave the room. Where it began above the ceiling, it may end no higher.
    While the GPUs of something are not known, nobody can tell.
    """
    snapshot, budget = _view(state), state.rules.budget
    if budget.ceiling is not None and len(snapshot.unknown):
        return False
    if budget.excess(snapshot.totals) <= operation.excess:
        return True
    if operation.holding(snapshot):
        return False
    waiting = sum((promised(one, snapshot) for other in state.operations.values() for one in other.waiting), Totals())
    return budget.excess(snapshot.totals - waiting + needed(operation.waiting, snapshot)) <= operation.excess


def _end(state: State, operation: Operation, outcome: Outcome) -> Transition:
    return Transition(_released(state, operation), tuple(Reply(waiter, outcome) for waiter in operation.waiters))


def _settle(state: State, event: StepApplied | StepRefused | StepUnknown) -> Operation | None:
    """Return the operation of *event* without its step among those under way, or None where it is not under way."""
    operation = state.operations.get(event.operation)
    if operation is None or event.step not in (*operation.sent, *operation.unsure):
        return None
    sent = tuple(one for one in operation.sent if one != event.step)
    unsure = tuple(one for one in operation.unsure if one != event.step)
    return attrs.evolve(operation, sent=sent, unsure=unsure)


def _step_applied(state: State, event: StepApplied) -> Transition:
    operation = _settle(state, event)
    if operation is None:
        return Transition(state)
    if event.step in operation.noticed:
        operation = attrs.evolve(operation, done=(*operation.done, event.step))
    else:
        operation = attrs.evolve(operation, landed=(*operation.landed, event.step))
    return _look(_with_operation(state, operation), [operation.id])


def _step_refused(state: State, event: StepRefused) -> Transition:
    operation = _settle(state, event)
    if operation is None:
        return Transition(state)
    if event.step in operation.noticed or shown(event.step, _view(state)):  # an earlier try of it has landed
        return _step_applied(state, StepApplied(event.operation, event.step))
    begun = operation.unfinished or operation.done
    if not begun and operation.retries < RETRIES and outdated(event.step, _view(state)):
        return _again(state, operation)
    operation = attrs.evolve(operation, problem=operation.problem or event.detail, waiting=())
    return _advance(_with_operation(state, operation), operation.id)


def _again(state: State, operation: Operation) -> Transition:
    """Decide the request of *operation* anew on what the cluster shows now; those who wait keep waiting."""
    state = _released(state, operation)
    event = Submitted(operation.id, operation.request, operation.started_at)
    asked = _asked(state, operation.request)
    if isinstance(asked, Rejected):
        return _shared(_answer(state, event, asked), operation.waiters)
    return _shared(_begin(state, event, asked, state.intents, retries=operation.retries + 1), operation.waiters)


def _shared(again: Transition, waiters: tuple[str, ...]) -> Transition:
    """Return *again* with its reply, or its operation, shared by all *waiters*."""
    effects: list[Effect] = []
    for effect in again.effects:
        many = waiters if isinstance(effect, Reply) else ()
        effects += [Reply(waiter, effect.outcome) for waiter in many if isinstance(effect, Reply)] or [effect]
    operation = again.state.operations.get(waiters[0])
    if operation is None:
        return Transition(again.state, tuple(effects))
    return Transition(_with_operation(again.state, attrs.evolve(operation, waiters=waiters)), tuple(effects))


def _step_unknown(state: State, event: StepUnknown) -> Transition:
    operation = _settle(state, event)
    if operation is None:
        return Transition(state)
    if event.step in operation.noticed:
        return _step_applied(state, StepApplied(event.operation, event.step))
    operation = attrs.evolve(operation, unsure=(*operation.unsure, event.step))
    return Transition(_with_operation(state, operation))


def _listed(state: State, event: Listed) -> Transition:
    managed = [one for one in event.deployments if state.rules.management.manages(one.id)]
    snapshot = Snapshot.of(_carried(state, one) for one in managed)
    intents = Intents.of(state.intents, snapshot)
    operations = {key: one.seen_landing() for key, one in state.operations.items()}
    state = attrs.evolve(state, snapshot=snapshot, stale=False, intents=intents, operations=operations)
    return _look(state, operations)


def _seen(state: State, event: Seen) -> Transition:
    snapshot, deployment = state.snapshot, event.deployment
    if snapshot is None or not state.rules.management.manages(deployment.id):
        return Transition(state)
    before = snapshot.deployment(deployment.id)
    deployment = _carried(state, deployment)
    if deployment == before:
        return Transition(state)
    keys = {pool.key for pool in deployment.pools} | {pool.key for pool in (before.pools if before else ())}
    return _observed(state, snapshot.with_deployment(deployment), keys)


def _gone(state: State, event: Gone) -> Transition:
    before = None if state.snapshot is None else state.snapshot.deployment(event.participant)
    if state.snapshot is None or before is None:
        return Transition(state)
    return _observed(state, state.snapshot.without(event.participant), {pool.key for pool in before.pools})


def _observed(state: State, snapshot: Snapshot, keys: set[PoolKey]) -> Transition:
    """Take *snapshot* for what is deployed; only the pools *keys* differ from what was known."""
    freed = snapshot.totals.charged < _view(state).totals.charged
    state = state.but(snapshot=snapshot, intents=state.intents.follow(snapshot, keys))
    concerned = {operation for key in keys if (operation := state.busy.get(key)) is not None}
    concerned |= {one.id for one in state.operations.values() if freed and one.waiting}
    return _look(state, [key for key in state.operations if key in concerned])


def _carried(state: State, deployment: Deployment) -> Deployment:
    """Return *deployment* with the reservations that operations hold on its pools."""
    for pool in deployment.pools:
        operation = state.busy.get(pool.key)
        if operation is not None:
            after = state.operations[operation].plan.afters[pool.key]
            deployment = deployment.with_pool(pool.reserving(after))
    return deployment


def _look(state: State, operations: Iterable[str]) -> Transition:
    """Let *operations*, the oldest first, see whether something that they wait for has happened."""
    effects: list[Effect] = []
    for key in list(operations):
        looked = _advance(_confirmed(state, key), key)
        state = looked.state
        effects += looked.effects
    return Transition(state, tuple(effects))


def _confirmed(state: State, key: str) -> State:
    """Take for done what the cluster shows: landed steps, and those of unknown outcome that have landed."""
    operation = state.operations[key]
    if not operation.unfinished:
        return state
    snapshot = _view(state)
    noticed = tuple(one for one in operation.sent if one in operation.noticed or shown(one, snapshot))
    unsure = tuple(one for one in operation.unsure if not shown(one, snapshot))
    landed = tuple(one for one in operation.landed if not overtaken(one, snapshot))
    seen = tuple(one for one in (*operation.landed, *operation.unsure) if one not in (*landed, *unsure))
    confirmed = attrs.evolve(operation, unsure=unsure, landed=landed, done=(*operation.done, *seen), noticed=noticed)
    return _with_operation(state, confirmed) if seen or noticed != operation.noticed else state


def _went_stale(state: State, _: Stale) -> Transition:
    return Transition(attrs.evolve(state, stale=True))


def _ticked(state: State, event: Ticked) -> Transition:
    """Forget old wishes, ask again for steps of unknown outcome, and give up what waited too long."""
    state = state.but(intents=state.intents.fresh(event.now, ttl_s=state.rules.intent_ttl_s))
    effects: list[Effect] = []
    for operation in state.operations.values():
        if operation.unsure:
            effects += [Apply(operation.id, one) for one in operation.unsure]
            state = _with_operation(state, attrs.evolve(operation, sent=operation.sent + operation.unsure, unsure=()))
        elif operation.waiting and event.now - operation.started_at > state.rules.deadline_s:
            state = _with_operation(state, _given_up(operation, state))
    looked = _look(state, state.operations)
    return Transition(looked.state, (*effects, *looked.effects))


def _given_up(operation: Operation, state: State) -> Operation:
    held = ", ".join(str(change.pool) for change in operation.holding(_view(state))) or "others"
    problem = f"the GPUs did not come free within {state.rules.deadline_s:g} s; still held by {held}"
    return attrs.evolve(operation, waiting=(), problem=problem)


TRANSITIONS: Mapping[type[Any], Callable[[State, Any], Transition]] = {
    Submitted: _submitted,
    StepApplied: _step_applied,
    StepRefused: _step_refused,
    StepUnknown: _step_unknown,
    Listed: _listed,
    Seen: _seen,
    Gone: _gone,
    Stale: _went_stale,
    Ticked: _ticked,
}
"""What each kind of event does; every member of `Event` has its line."""

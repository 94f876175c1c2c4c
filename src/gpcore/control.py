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
from gpcore.decisions import (
    AmbiguousName,
    Approved,
    Busy,
    CallerRefused,
    Decision,
    NotReady,
    NotYours,
    PolicyBroken,
    Rejected,
    UnknownDeployment,
    ViewStale,
)
from gpcore.indexes import Index
from gpcore.intents import Intent, Intents
from gpcore.plans import Change, Plan, Step
from gpcore.policy import Policy, decide, resolve
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Snapshot, totals_of
from gpcore.requests import ScaleRequest

RETRIES = 3
"""How often a request is decided anew because the cluster changed between the decision and the write."""




@attrs.frozen
class Management:
    """Say which deployments count (*managed*) and who may ask (*callers*); both are Dynamo namespaces.

    *managed* None: every deployment that is observed counts. An empty set: none. *callers* None: with *managed* None
    everybody may ask for everything, else each managed name for itself only. With *callers* given, just those may
    ask, each for every managed deployment.
    """

    managed: frozenset[str] | None = None
    callers: frozenset[str] | None = None

    def manages(self, participant: ParticipantId) -> bool:
        """Say whether the deployment *participant* counts."""
        return self.managed is None or participant.dynamo_namespace in self.managed

    def refusal(self, request: ScaleRequest, snapshot: Snapshot) -> Rejected | None:
        """Return why *request* may not be asked, or None where it may."""
        caller, participant = request.caller.caller, request.participant
        name = participant.dynamo_namespace
        askers = self.managed if self.callers is None else self.callers
        if askers is not None and caller not in askers:
            return Rejected(CallerRefused(caller))
        itself_only = self.managed is not None and self.callers is None
        if not self.manages(participant) or (itself_only and caller != name):
            return Rejected(NotYours(caller, participant))
        if snapshot.deployment(participant) is None:
            return Rejected(UnknownDeployment(participant))
        same_name = snapshot.named(name)
        if self.managed is not None and len(same_name) > 1:
            return Rejected(AmbiguousName(name, tuple(sorted(same_name, key=str))))
        return None


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
class Succeeded:
    """Every step of *plan* is applied, and every release that an increase waited for was seen."""

    plan: Plan


@attrs.frozen
class Failed:
    """*problem* ended the operation; of its plan just *done* was applied."""

    problem: str
    done: tuple[Step, ...] = ()


Outcome = Succeeded | Rejected | Failed




@attrs.frozen
class Listed:
    """The cluster was read as a whole: *deployments* are all there are, managed or not."""

    deployments: tuple[Deployment, ...]


@attrs.frozen
class Seen:
    """One deployment appeared or changed."""

    deployment: Deployment


@attrs.frozen
class Gone:
    """One deployment was deleted."""

    participant: ParticipantId


@attrs.frozen
class Stale:
    """The cluster is not being followed until it is listed again."""


@attrs.frozen
class Submitted:
    """A request arrived at *now* (seconds, monotonic); *id* names it and its operation for ever."""

    id: str
    request: ScaleRequest
    now: float


@attrs.frozen
class StepApplied:
    """The cluster accepted a step; what it made of it was observed before."""

    operation: str
    step: Step


@attrs.frozen
class StepRefused:
    """The cluster refused a step, and it will never land."""

    operation: str
    step: Step
    detail: str


@attrs.frozen
class StepUnknown:
    """Nobody can say whether a step has landed or will."""

    operation: str
    step: Step
    detail: str


@attrs.frozen
class Ticked:
    """Time has passed; it is *now* (seconds, monotonic)."""

    now: float


Event = Listed | Seen | Gone | Stale | Submitted | StepApplied | StepRefused | StepUnknown | Ticked




@attrs.frozen
class Decided:
    """Record *decision* on request *id*; *operation* carries it out, where there is something to do."""

    id: str
    request: ScaleRequest
    decision: Decision
    operation: str | None = None


@attrs.frozen
class Apply:
    """Write one step to the cluster."""

    operation: str
    step: Step


@attrs.frozen
class Reply:
    """Tell whoever sent request *id* how it ended."""

    id: str
    outcome: Outcome


Effect = Decided | Apply | Reply




@attrs.frozen
class Operation:
    """An approved plan on its way: what was not begun, what is sent, what nobody knows of, what is applied."""

    id: str
    request: ScaleRequest
    plan: Plan
    started_at: float
    waiting: tuple[Step, ...]
    sent: tuple[Step, ...] = ()
    unsure: tuple[Step, ...] = ()
    done: tuple[Step, ...] = ()
    problem: str | None = None
    retries: int = 0
    waiters: tuple[str, ...] = ()

    @property
    def unfinished(self) -> bool:
        """Say whether something that was begun may still land."""
        return bool(self.sent or self.unsure)

    def holding(self, snapshot: Snapshot) -> tuple[Change, ...]:
        """Return the applied releases whose GPUs are still seen in use."""
        return tuple(
            change
            for step in self.done
            for change in step.changes
            if change.releases
            and (pool := snapshot.pool(change.pool)) is not None
            and pool.authority == change.authority
            and not pool.seen_at_most(change.after)
        )


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


@attrs.frozen
class Transition:
    """The next state, and what to do now, in this order."""

    state: State
    effects: tuple[Effect, ...] = ()

    def then(self, change: Callable[[State], "Transition"]) -> "Transition":
        """Return this transition followed by *change*."""
        after = change(self.state)
        return Transition(after.state, self.effects + after.effects)




def step(state: State, event: Event) -> Transition:
    """Return what *event* makes of *state*."""
    return TRANSITIONS[type(event)](state, event)


def preview(state: State, request: ScaleRequest, *, now: float) -> Decision:
    """Return how *request* would be decided at *now*, and change nothing."""
    refusal = _refusal(state, request)
    if refusal is not None or state.snapshot is None:
        return refusal or Rejected(NotReady())
    busy = _busy(state, request, state.snapshot)
    if busy is not None:
        return Rejected(busy)
    intents = state.intents.fresh(now, ttl_s=state.rules.intent_ttl_s)
    return _decide(state, request, state.snapshot, intents)




def _submitted(state: State, event: Submitted) -> Transition:
    refusal = _refusal(state, event.request)
    if refusal is not None or state.snapshot is None:
        return _answer(state, event, refusal or Rejected(NotReady()))
    state = _wished(state, event, state.snapshot)
    busy = _busy(state, event.request, state.snapshot)
    if busy is not None:
        return _join(state, event, busy)
    return _begin(state, event, retries=0)


def _refusal(state: State, request: ScaleRequest) -> Rejected | None:
    """Return why *request* is not looked at: nothing is known, it may not be asked, or it makes no sense here."""
    if state.snapshot is None:
        return Rejected(NotReady())
    refusal = state.rules.management.refusal(request, state.snapshot)
    if refusal is not None:
        return refusal
    resolved = resolve(request, state.snapshot)
    return resolved if isinstance(resolved, Rejected) else None


def _wished(state: State, event: Submitted, snapshot: Snapshot) -> State:
    """Return the state with the wishes of a valid request remembered, and the old ones forgotten."""
    intents = state.intents.fresh(event.now, ttl_s=state.rules.intent_ttl_s)
    for key, replicas in _asked(event.request, snapshot).items():
        intents = intents.record(Intent(key, replicas, event.now))
    return attrs.evolve(state, intents=intents)


def _asked(request: ScaleRequest, snapshot: Snapshot) -> dict[PoolKey, int]:
    """Return the replicas that *request* asks of each pool."""
    answering = ((snapshot.answering(request.participant, target.role), target) for target in request.targets)
    return {pool.key: target.replicas for pool, target in answering if pool is not None}


def _busy(state: State, request: ScaleRequest, snapshot: Snapshot) -> Busy | None:
    """Return the operation that has not finished with a pool of *request*."""
    for key in _asked(request, snapshot):
        operation = state.busy.get(key)
        if operation is not None:
            return Busy(key, operation)
    return None


def _join(state: State, event: Submitted, busy: Busy) -> Transition:
    """Let the same wish share the operation that fulfils it already; refuse another one."""
    operation = state.operations[busy.operation]
    asked = _asked(event.request, state.snapshot or Snapshot())
    promised = operation.plan.afters
    if operation.problem is not None or any(promised.get(key) != replicas for key, replicas in asked.items()):
        return _answer(state, event, Rejected(busy))
    joined = attrs.evolve(operation, waiters=(*operation.waiters, event.id))
    totals = (state.snapshot or Snapshot()).totals
    decided = Decided(event.id, event.request, Approved(operation.plan, totals), operation.id)
    return Transition(_with_operation(state, joined), (decided,))


def _answer(state: State, event: Submitted, refusal: Rejected) -> Transition:
    return Transition(state, (Decided(event.id, event.request, refusal), Reply(event.id, refusal)))


def _begin(state: State, event: Submitted, *, retries: int) -> Transition:
    """Decide, and begin to carry out what was approved."""
    snapshot = state.snapshot or Snapshot()
    decision = _decide(state, event.request, snapshot, state.intents)
    if isinstance(decision, Rejected):
        return _answer(state, event, decision)
    plan = decision.plan
    if not plan.steps:
        decided = Decided(event.id, event.request, decision)
        return Transition(state, (decided, Reply(event.id, Succeeded(plan))))
    operation = Operation(event.id, event.request, plan, event.now, plan.steps, retries=retries, waiters=(event.id,))
    state = _with_operation(_reserved(state, plan), operation)
    decided = Decided(event.id, event.request, decision, operation.id)
    return Transition(state, (decided,)).then(lambda current: _advance(current, operation.id))


def _decide(state: State, request: ScaleRequest, snapshot: Snapshot, intents: Intents) -> Decision:
    """Return the policy's decision, unless it breaks a rule that no policy may break."""
    decision = state.rules.policy(request, snapshot=snapshot, intents=intents, budget=state.rules.budget)
    if isinstance(decision, Rejected):
        return decision
    problem = _broken(decision.plan, request, snapshot, state.rules.budget)
    if problem is not None:
        return Rejected(PolicyBroken(problem))
    if state.stale and not all(change.releases for change in decision.plan.changes):
        return Rejected(ViewStale())
    return decision


def _broken(plan: Plan, request: ScaleRequest, snapshot: Snapshot, budget: Budget) -> str | None:
    """Return what is wrong with *plan*, whatever policy made it: a bound, a pool that is not as it says, a gap."""
    changes = plan.changes
    afters = plan.afters
    if len(afters) != len(changes):
        return "it changes one pool twice"
    for key, replicas in _asked(request, snapshot).items():
        pool = snapshot.pool(key)
        if pool is not None and afters.get(key, pool.replicas) != replicas:
            return f"it does not do what was asked of {key}"
    totals = most = snapshot.totals
    for planned in plan.steps:
        for change in planned.changes:
            pool = snapshot.pool(change.pool)
            if pool is None or pool.reserved is not None or Change.of(pool, change.after) != change or change.after < 0:
                return f"it changes {change.pool} from what it is not"
            totals = totals - totals_of(pool) + totals_of(pool.if_scaled(change.after))
        if budget.excess(totals) > budget.excess(most):
            return f"after {planned.authority.name or planned.changes[0].pool} the total is {totals.charged} GPUs"
    tolerance = max((change.gpus_per_replica or 0 for change in changes), default=0)
    if budget.shortfall(totals) > max(tolerance, budget.shortfall(snapshot.totals)):
        return f"it ends with {totals.least} GPUs, below the floor ({budget.floor})"
    return None




def _reserved(state: State, plan: Plan) -> State:
    """Return the state in which every pool of *plan* carries what the plan will write."""
    snapshot = state.snapshot or Snapshot()
    pools = [(snapshot.pool(change.pool), change.after) for change in plan.changes]
    return _changed(state, (attrs.evolve(pool, reserved=after) for pool, after in pools if pool is not None))


def _released(state: State, operation: Operation) -> State:
    """Return the state in which *operation* has ended and its pools are nobody's."""
    operations = {key: other for key, other in state.operations.items() if key != operation.id}
    busy = state.busy
    for change in operation.plan.changes:
        busy = busy.drop(change.pool)
    snapshot = state.snapshot or Snapshot()
    pools = [snapshot.pool(change.pool) for change in operation.plan.changes]
    state = attrs.evolve(state, operations=operations, busy=busy)
    return _changed(state, (attrs.evolve(pool, reserved=None) for pool in pools if pool is not None))


def _changed(state: State, pools: Iterable[Pool]) -> State:
    """Return the state with *pools* in the place of those of their keys."""
    snapshot = state.snapshot or Snapshot()
    keys = []
    for pool in pools:
        snapshot = snapshot.with_pool(pool)
        keys.append(pool.key)
    return attrs.evolve(state, snapshot=snapshot, intents=state.intents.follow(snapshot, keys))


def _with_operation(state: State, operation: Operation) -> State:
    busy = state.busy
    if operation.id not in state.operations:
        for change in operation.plan.changes:
            busy = busy.put(change.pool, operation.id)
    return attrs.evolve(state, operations={**state.operations, operation.id: operation}, busy=busy)


def _advance(state: State, key: str) -> Transition:
    """Send what of the operation *key* can be sent now, or end it."""
    operation = state.operations.get(key)
    if operation is None or operation.unfinished and operation.problem is not None:
        return Transition(state)
    if operation.problem is not None:
        return _end(state, operation, Failed(operation.problem, operation.done))
    ready = _sendable(state, operation)
    if not ready and not operation.waiting and not operation.unfinished:
        return _end(state, operation, Succeeded(operation.plan))
    waiting = tuple(one for one in operation.waiting if one not in ready)
    sending = attrs.evolve(operation, waiting=waiting, sent=operation.sent + ready)
    state = _with_operation(state, sending) if ready else state
    return Transition(state, tuple(Apply(key, one) for one in ready))


def _sendable(state: State, operation: Operation) -> tuple[Step, ...]:
    """Return the waiting steps that may be written now: releases at once, the others when there is room."""
    releases = tuple(one for one in operation.waiting if not one.acquires)
    if releases:
        return releases
    released = all(one.acquires for one in (*operation.sent, *operation.unsure))
    if not operation.waiting or not released or state.stale:
        return ()
    snapshot, budget = state.snapshot or Snapshot(), state.rules.budget
    if not budget.excess(snapshot.totals):
        return operation.waiting
    if operation.holding(snapshot):
        return ()
    promised = sum(one.gpus for other in state.operations.values() for one in other.waiting if one.acquires)
    needed = sum(one.gpus for one in operation.waiting)
    used = snapshot.totals.charged - promised + needed
    return operation.waiting if budget.ceiling is None or used <= budget.ceiling else ()


def _end(state: State, operation: Operation, outcome: Outcome) -> Transition:
    return Transition(_released(state, operation), tuple(Reply(waiter, outcome) for waiter in operation.waiters))


def _settle(state: State, event: StepApplied | StepRefused | StepUnknown, **into: Any) -> Operation | None:  # noqa: ANN401
    """Return the operation of *event* without its step among those under way, or None where it is not under way."""
    operation = state.operations.get(event.operation)
    if operation is None or event.step not in (*operation.sent, *operation.unsure):
        return None
    sent = tuple(one for one in operation.sent if one != event.step)
    unsure = tuple(one for one in operation.unsure if one != event.step)
    return attrs.evolve(operation, sent=sent, unsure=unsure, **into)


def _step_applied(state: State, event: StepApplied) -> Transition:
    operation = _settle(state, event)
    if operation is None:
        return Transition(state)
    operation = attrs.evolve(operation, done=(*operation.done, event.step))
    return _advance(_with_operation(state, operation), operation.id)


def _step_refused(state: State, event: StepRefused) -> Transition:
    operation = _settle(state, event)
    if operation is None:
        return Transition(state)
    begun = operation.unfinished or operation.done
    if not begun and operation.retries < RETRIES and _outdated(event.step, state.snapshot or Snapshot()):
        return _again(state, operation)
    operation = attrs.evolve(operation, problem=operation.problem or event.detail, waiting=())
    return _advance(_with_operation(state, operation), operation.id)


def _outdated(refused: Step, snapshot: Snapshot) -> bool:
    """Say whether a pool of *refused* is no longer as the decision saw it."""
    pools = [(snapshot.pool(change.pool), change) for change in refused.changes]
    return any(
        pool is None or pool.replicas != change.before or pool.authority != change.authority for pool, change in pools
    )


def _again(state: State, operation: Operation) -> Transition:
    """Decide the request of *operation* anew on what the cluster shows now; those who wait keep waiting."""
    state = _released(state, operation)
    event = Submitted(operation.id, operation.request, operation.started_at)
    refusal = _refusal(state, operation.request)
    retries = operation.retries + 1
    again = _answer(state, event, refusal) if refusal is not None else _begin(state, event, retries=retries)
    return _shared(again, operation.waiters)


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
    operation = attrs.evolve(operation, unsure=(*operation.unsure, event.step))
    return Transition(_with_operation(state, operation))




def _listed(state: State, event: Listed) -> Transition:
    managed = [one for one in event.deployments if state.rules.management.manages(one.id)]
    snapshot = Snapshot.of(_carried(state, one) for one in managed)
    state = attrs.evolve(state, snapshot=snapshot, stale=False, intents=Intents.of(state.intents, snapshot))
    return _look(state, state.operations)


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
    state = attrs.evolve(state, snapshot=snapshot, intents=state.intents.follow(snapshot, keys))
    concerned = dict.fromkeys(operation for key in keys if (operation := state.busy.get(key)) is not None)
    return _look(state, concerned)


def _carried(state: State, deployment: Deployment) -> Deployment:
    """Return *deployment* with the reservations that operations hold on its pools."""
    for pool in deployment.pools:
        operation = state.busy.get(pool.key)
        if operation is not None:
            after = state.operations[operation].plan.afters[pool.key]
            deployment = deployment.with_pool(attrs.evolve(pool, reserved=after))
    return deployment


def _look(state: State, operations: Iterable[str]) -> Transition:
    """Let *operations* see whether something that they wait for has happened."""
    transition = Transition(state)
    for key in list(operations):
        transition = transition.then(lambda current, key=key: _confirm(current, key))  # type: ignore[misc]
        transition = transition.then(lambda current, key=key: _advance(current, key))  # type: ignore[misc]
    return transition


def _confirm(state: State, key: str) -> Transition:
    """Take the steps of unknown outcome that the cluster now shows for applied."""
    operation = state.operations.get(key)
    snapshot = state.snapshot or Snapshot()
    shown = tuple(one for one in (operation.unsure if operation else ()) if _shown(one, snapshot))
    if operation is None or not shown:
        return Transition(state)
    unsure = tuple(one for one in operation.unsure if one not in shown)
    return Transition(_with_operation(state, attrs.evolve(operation, unsure=unsure, done=operation.done + shown)))


def _shown(step_: Step, snapshot: Snapshot) -> bool:
    """Say whether every pool of *step_* is as it would be after it."""
    pools = [(snapshot.pool(change.pool), change) for change in step_.changes]
    return all(
        pool is not None and pool.replicas == change.after and pool.authority == change.authority
        for pool, change in pools
    )


def _went_stale(state: State, _: Stale) -> Transition:
    return Transition(attrs.evolve(state, stale=True))


def _ticked(state: State, event: Ticked) -> Transition:
    """Forget old wishes, ask again for steps of unknown outcome, and give up what waited too long."""
    state = attrs.evolve(state, intents=state.intents.fresh(event.now, ttl_s=state.rules.intent_ttl_s))
    transition = Transition(state)
    for operation in state.operations.values():
        if operation.unsure:
            transition = transition.then(lambda current, key=operation.id: _ask_again(current, key))  # type: ignore[misc]
        elif operation.waiting and event.now - operation.started_at > state.rules.deadline_s:
            transition = transition.then(lambda current, key=operation.id: _give_up(current, key))  # type: ignore[misc]
    return transition


def _ask_again(state: State, key: str) -> Transition:
    operation = state.operations[key]
    again = attrs.evolve(operation, sent=operation.sent + operation.unsure, unsure=())
    return Transition(_with_operation(state, again), tuple(Apply(key, one) for one in operation.unsure))


def _give_up(state: State, key: str) -> Transition:
    operation = state.operations[key]
    held = ", ".join(str(change.pool) for change in operation.holding(state.snapshot or Snapshot()))
    problem = f"GPUs did not come free within {state.rules.deadline_s:g} s; still held by: {held or 'others'}"
    return _advance(_with_operation(state, attrs.evolve(operation, waiting=(), problem=problem)), key)


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

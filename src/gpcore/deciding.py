"""What becomes of a request: a refusal, a place in an operation that does the same, or an operation of its own.

Rules of this file: a request that is refused changes no pool and promises nothing. What is approved is drafted into
the ledger at once, with the promises to its pools, and nothing is written before the ledger is stored.
"""

import attrs

from gpcore import repeating
from gpcore.decisions import (
    Approved,
    Busy,
    CeilingBreach,
    Decision,
    FloorBreach,
    LedgerDown,
    NotLeading,
    NotReady,
    PolicyBroken,
    Rejected,
    Unsettled,
    ViewStale,
    explain,
)
from gpcore.events import Decided, Effect, Repeated, Reply, Submitted, Succeeded
from gpcore.holding import frozen, held_back, noted
from gpcore.intents import Intent, Intents
from gpcore.ledger import ObjectKey, OverdrawnError, Repeat, object_of, opened
from gpcore.operations import Leg, Operation
from gpcore.plans import Plan
from gpcore.policy import resolve, violation
from gpcore.pools import PoolKey
from gpcore.requests import ScaleRequest
from gpcore.reserving import going_on
from gpcore.states import MAX_OPERATIONS, MAX_WAITERS, Drive, State, Transition

RETRIES = 3
"""How often a request is decided anew because the cluster changed between the decision and the write."""

_SHOWN = 3

_LASTING = (CeilingBreach, FloorBreach)
"""The refusals that are the answer to a request, and not only to its moment."""

Asked = dict[PoolKey, int]
"""The replicas that a request asks of each pool."""


def preview(state: State, request: ScaleRequest, *, now: float) -> Decision:
    """Return how *request* would be decided at *now*, and change nothing; whoever leads."""
    asked = _asked(state, request)
    if isinstance(asked, Rejected):
        return asked
    busy = _busy(state, asked)
    if busy is None:
        return _decide(state, request, asked, state.intents.fresh(now, ttl_s=state.rules.intent_ttl_s))
    operation = state.operations[busy.operation]
    return Approved(operation.plan, operation.totals) if operation.fulfils(asked) else Rejected(busy)


def submitted(state: State, event: Submitted) -> Transition:
    """Decide the request of *event*, and begin to carry out what was approved."""
    state = state.but(now=event.now)
    asked = _not_now(state) or _asked(state, event.request)
    if not isinstance(asked, Rejected):
        asked = repeating.refusal(state.ledger, event.request) or asked
    if isinstance(asked, Rejected):
        return answered(state, event, asked)
    before = repeating.earlier(state.ledger, event.request)
    if before is not None:
        return _repeated(state, event, before)
    intents = state.intents.fresh(event.now, ttl_s=state.rules.intent_ttl_s)
    busy = _busy(state, asked)
    if busy is not None:
        return _join(_remembering(state, intents, asked, event.now), event, asked, busy)
    return _begin(state, event, asked, intents)


def _repeated(state: State, event: Submitted, before: Repeat) -> Transition:
    """Answer a request as it was answered *before*, or when it will be."""
    operation, drive = state.operations.get(before.operation or ""), state.drives.get(before.operation or "")
    if operation is None or drive is None:
        decision = Approved(Plan(), state.view.totals)
        reply = Reply(event.id, Repeated(before.status, before.message, before.operation))
        return Transition(state, (Decided(event.id, event.request, decision, before.operation), reply))
    if len(drive.waiters) >= MAX_WAITERS:
        busy = Busy(operation.plan.changes[0].pool, operation.id)
        return answered(state, event, Rejected(busy))
    return _joined(state, event, operation, drive)


def redrafted(state: State, operation: Operation, drive: Drive) -> Transition:
    """Decide the request of *operation* anew, whose draft another planner's save has kept from being stored.

    What that planner was asked meanwhile counts: of one id it may be the answer, and it may have counted on.
    """
    request = operation.request
    refused = _not_now(state) or repeating.refusal(state.ledger, request)
    before = repeating.earlier(state.ledger, request)
    if refused is not None or before is None:
        event = Submitted(operation.id, request, drive.started_at)
        if refused is not None:
            return _shared(_repeatable(answered(state, event, refused), operation), drive.waiters)
        return again(state, operation, drive, retries=operation.retries)
    effects: list[Effect] = []
    for waiter in drive.waiters:
        one = _repeated(state, Submitted(waiter, request, drive.started_at), before)
        state = one.state
        effects += one.effects
    return Transition(state, tuple(effects))


def again(state: State, operation: Operation, drive: Drive, *, retries: int) -> Transition:
    """Decide the request of *operation* anew, none of which is written; those who wait keep waiting."""
    event = Submitted(operation.id, operation.request, drive.started_at)
    asked = _not_now(state) or _asked(state, operation.request)
    if isinstance(asked, Rejected):
        anew = answered(state, event, asked)
    else:
        anew = _begin(state, event, asked, state.intents, retries=retries)
    return _shared(_repeatable(anew, operation), drive.waiters)


def _repeatable(anew: Transition, operation: Operation) -> Transition:
    """Return *anew* with its reply, if it has one, on record for all requests that *operation* was to carry out."""
    state = anew.state
    for effect in anew.effects:
        if isinstance(effect, Reply):
            word, why = "success", ""
            if isinstance(effect.outcome, Rejected):
                word = effect.outcome.reason.kind
                why = explain(effect.outcome, participant=operation.request.participant)
            state = state.drafting(repeating.answered(state.ledger, operation.id, word, why))
    return Transition(state, anew.effects)


def _shared(anew: Transition, waiters: tuple[str, ...]) -> Transition:
    """Return *anew* with its reply, or its operation, shared by all *waiters*."""
    effects = [
        Reply(waiter, effect.outcome) if isinstance(effect, Reply) else effect
        for effect in anew.effects
        for waiter in (waiters if isinstance(effect, Reply) else ("",))
    ]
    state = anew.state
    for effect in anew.effects:
        key = effect.operation if isinstance(effect, Decided) else None
        if key in state.drives and key is not None:
            state = state.driving(key, attrs.evolve(state.drives[key], waiters=waiters))
    return Transition(state, tuple(effects))


def _not_now(state: State) -> Rejected | None:
    """Return why nothing can be carried out at the moment, or None."""
    if state.snapshot is None:
        return Rejected(NotReady())
    if not state.leading:
        return Rejected(NotLeading(state.leader))
    book = state.book
    if book is None or state.fault:
        return Rejected(LedgerDown(state.fault))
    if state.exclusive and book.draft.epoch != state.epoch:
        return Rejected(LedgerDown("it is being taken over"))
    if len(book.draft.operations) >= MAX_OPERATIONS:
        return Rejected(LedgerDown(f"{MAX_OPERATIONS} operations are under way, and it holds no more"))
    return None if book.draft.complete else Rejected(NotReady())


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
    return state.but(intents=intents.follow(state.view, (), _wishes(asked, now)))


def _busy(state: State, asked: Asked) -> Busy | None:
    """Return the operation that has not finished with a pool that is *asked* for."""
    for key in asked:
        operation = state.busy.get(key)
        if operation is not None:
            return Busy(key, operation)
    return None


def _join(state: State, event: Submitted, asked: Asked, busy: Busy) -> Transition:
    """Let the same wish share the operation that fulfils it already; refuse another one."""
    operation, drive = state.operations[busy.operation], state.drives[busy.operation]
    if not operation.fulfils(asked) or len(drive.waiters) >= MAX_WAITERS:
        return answered(state, event, Rejected(busy))
    joined = _joined(state, event, operation, drive)
    noted = repeating.remembered(joined.state.ledger, event.request, "scaling", "", operation.id)
    return Transition(joined.state.drafting(noted), joined.effects)


def _joined(state: State, event: Submitted, operation: Operation, drive: Drive) -> Transition:
    state = state.driving(operation.id, attrs.evolve(drive, waiters=(*drive.waiters, event.id)))
    return Transition(
        state, (Decided(event.id, event.request, Approved(operation.plan, operation.totals), operation.id),)
    )


def answered(state: State, event: Submitted, refusal: Rejected) -> Transition:
    """Return *state* with the request of *event* answered by *refusal*."""
    return Transition(state, (Decided(event.id, event.request, refusal), Reply(event.id, refusal)))


def _begin(state: State, event: Submitted, asked: Asked, intents: Intents, *, retries: int = 0) -> Transition:
    """Decide, and draft what was approved."""
    decision = _decide(state, event.request, asked, intents)
    if isinstance(decision, Approved) and decision.plan.steps:
        drafted = _drafted(state, event, decision, retries)
        if isinstance(drafted, State):
            return _promised(drafted, event, asked, intents, decision)
        decision = drafted
    state = _remembering(state, intents, asked, event.now)
    if isinstance(decision, Rejected) and isinstance(decision.reason, _LASTING):
        word, why = decision.reason.kind, explain(decision, participant=event.request.participant)
        state = state.drafting(repeating.remembered(state.ledger, event.request, word, why, None))
    if isinstance(decision, Rejected):
        return answered(state, event, decision)
    state = state.drafting(repeating.remembered(state.ledger, event.request, "success", "", None))
    return Transition(state, (Decided(event.id, event.request, decision), Reply(event.id, Succeeded(decision.plan))))


def _drafted(state: State, event: Submitted, decision: Approved, retries: int) -> State | Rejected:
    """Return *state* with the plan of *decision* under way in the ledger, or why the ledger cannot have it."""
    operation = Operation(
        event.id,
        event.request,
        decision.plan,
        _legs(state, decision.plan),
        began_at=event.now + state.wall_offset,
        before=state.view.totals,
        totals=decision.totals,
        excess=state.rules.budget.excess(state.view.totals),
        retries=retries,
    )
    wall = event.now + state.wall_offset
    ledger = noted(state.ledger, state.rules.limits, decision.plan, wall=wall)
    ledger = repeating.remembered(ledger, event.request, "scaling", "", event.id)
    try:
        return state.drafting(opened(ledger, operation), urgent=True)
    except OverdrawnError:  # it still counts what somebody else has lowered
        return Rejected(Unsettled(_unsettled(state)))


def _legs(state: State, plan: Plan) -> tuple[Leg, ...]:
    """Return what is to be written for *plan*: each step at once, where all of it fits while nothing is free yet.

    Else what a step gives to one pool of its object waits until what it takes from another is seen to be free.
    """
    steps, parts = plan.steps, [part for step in plan.steps for part in step.parts]
    if len(parts) == len(steps):
        return tuple([Leg(step) for step in steps])
    budget, before = state.rules.budget, state.view.totals
    if budget.excess(state.view.promising(plan.afters).totals) <= budget.excess(before):
        return tuple([Leg(step) for step in steps])
    return tuple([Leg(part) for part in sorted(parts, key=lambda part: part.order)])


def _promised(state: State, event: Submitted, asked: Asked, intents: Intents, decision: Approved) -> Transition:
    """Promise the pools of the plan to the operation that is drafted, and let it begin."""
    plan: Plan = decision.plan
    busy = state.busy.replaced({change.pool: event.id for change in plan.changes})
    snapshot = state.view.promising(plan.afters)
    partners = [change.pool for change in plan.changes if change.pool not in asked]
    wishes = intents.follow(snapshot, partners, _wishes(asked, event.now))
    state = state.but(snapshot=snapshot, intents=wishes, busy=busy)
    state = state.driving(event.id, Drive(event.now, (event.id,)))
    state = going_on(state, state.operations[event.id])
    return Transition(state, (Decided(event.id, event.request, decision, event.id),))


def _decide(state: State, request: ScaleRequest, asked: Asked, intents: Intents) -> Decision:
    """Return the policy's decision, unless it breaks a rule that no policy may break, or is held back."""
    snapshot = state.view
    loose = tuple([key for key in asked if (pool := snapshot.pool(key)) is not None and pool.reserved is not None])
    if loose:
        return Rejected(Unsettled(loose))
    if state.ledger.freezes:
        intents = _movable(state, intents)
    decision = state.rules.policy(request, snapshot=snapshot, intents=intents, budget=state.rules.budget)
    if isinstance(decision, Rejected):
        return decision
    problem = violation(decision.plan, asked, snapshot=snapshot, budget=state.rules.budget)
    if problem is not None:
        return Rejected(PolicyBroken(problem))
    return _hindrance(state, decision.plan) or decision


def _hindrance(state: State, plan: Plan) -> Rejected | None:
    """Return what keeps *plan*, which fits, from being carried out now, or None."""
    held = held_back(state.ledger, state.rules.limits, plan, wall=state.now + state.wall_offset)
    if held is not None:
        return Rejected(held)
    if all(change.releases for change in plan.changes):
        return None
    if state.stale:
        return Rejected(ViewStale())
    return Rejected(Unsettled(_unsettled(state))) if len(state.behind) else None


def _movable(state: State, intents: Intents) -> Intents:
    """Return *intents* without those of pools that may not move as they wish."""
    wall = state.now + state.wall_offset
    kept = [
        one
        for one in intents
        if (pool := state.view.pool(one.pool)) is None
        or frozen(state.ledger.freezes, one.pool, up=one.replicas > pool.replicas, wall=wall) is None
    ]
    return Intents.of(kept, state.view)


def _unsettled(state: State) -> tuple[PoolKey, ...]:
    """Return some of the pools that are not as the ledger has them."""
    keys: set[ObjectKey] = {*state.behind, *state.ledger.pending}
    pools = [pool.key for pool in state.view.pools() if object_of(pool) in keys]
    return tuple(sorted(pools, key=str)[:_SHOWN])

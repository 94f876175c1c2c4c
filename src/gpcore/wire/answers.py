"""The JSON form of what leaves: decisions, reasons, plans, pools, records and the peer's answer.

Rules of this file: values in, plain documents out; every sentence comes from `explain` or stands in `outcome_message`.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from cattrs import Converter

from gpcore.control import State
from gpcore.decisions import INVALID, Approved, Decision, Reason, Rejected, explain
from gpcore.events import Failed, HandedOver, Outcome, Repeated, Succeeded
from gpcore.plans import Change, Plan
from gpcore.pools import ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.records import DecisionRecord, OperationRecord, outcome_word
from gpcore.requests import ScaleRequest
from gpcore.wire.documents import Json


def _key_json(key: PoolKey) -> Json:
    return {"participant": str(key.participant), "role": key.role.value}


def change_json(change: Change) -> Json:
    """Return which pool changes, and from how many replicas to how many."""
    return {**_key_json(change.pool), "before": change.before, "after": change.after}


# The reasons are plain values of these, so their names are their form; a new reason needs nothing here.
_converter = Converter()
_converter.register_unstructure_hook(ParticipantId, str)
_converter.register_unstructure_hook(PoolKey, _key_json)
_converter.register_unstructure_hook(Change, change_json)


def status(decision: Decision) -> str:
    """Return the word for *decision*: approved, rejected, or invalid where the request makes no sense there."""
    match decision:
        case Approved():
            return "approved"
        case Rejected(reason):
            return "invalid" if isinstance(reason, INVALID) else "rejected"
        case _:
            assert_never(decision)


def reason_json(reason: Reason) -> Json:
    """Return *reason* by its kind and its numbers."""
    return {"kind": reason.kind, **_converter.unstructure(reason)}


def plan_json(plan: Plan) -> list[list[Json]]:
    """Return the steps of *plan*, each a list of its changes."""
    return [[change_json(change) for change in step.changes] for step in plan.steps]


def pool_json(pool: Pool) -> Json:
    """Return all that is known of *pool*."""
    return {
        **_key_json(pool.key),
        "replicas": pool.replicas,
        "ready": pool.ready,
        "present": pool.present,
        "relayed": pool.relayed,
        "reserved": pool.reserved,
        "gpus_per_replica": pool.gpus_per_replica,
        "charged_gpus": pool.charged_gpus,
        "component": pool.component,
        "authority": pool.authority.name,
    }


def pools_json(snapshot: Snapshot) -> Json:
    """Return every pool of *snapshot* in order, and what else of its deployments uses GPUs or is not understood."""
    deployments = sorted(snapshot.deployments(), key=lambda deployment: str(deployment.id))
    return {
        "pools": [pool_json(pool) for pool in sorted(snapshot.pools(), key=lambda pool: pool.key.order)],
        "deployments": [
            {"participant": str(one.id), "fixed_gpus": one.fixed_gpus, "problems": list(one.problems)}
            for one in deployments
        ],
    }


def budget_json(state: State) -> Json:
    """Return the bounds, what counts against them, and what keeps them from being checked."""
    budget, snapshot = state.rules.budget, state.snapshot or Snapshot()
    return {
        "floor": budget.floor,
        "ceiling": budget.ceiling,
        "charged": snapshot.totals.charged,
        "least": snapshot.totals.least,
        "headroom": budget.headroom(snapshot.totals),
        "shape_unknown": sorted(map(str, snapshot.unknown)),
        "intents": len(state.intents),
        "operations": len(state.operations),
        "escrow": state.ledger.escrow,
        "ledger": {"state": state.ledger.state, "epoch": state.ledger.epoch, "fault": state.fault},
        "leader": "this planner" if state.leading else state.leader,
    }


def decision_json(record: DecisionRecord) -> Json:
    """Return who asked for what, what was decided, and why."""
    request, decision = record.request, record.decision
    return {
        "id": record.id,
        "at": record.at,
        "caller": str(request.caller),
        **_request_json(request),
        **_decided_json(decision),
        "operation_id": record.operation,
        "message": explain(decision, participant=request.participant),
    }


def decided_json(request: ScaleRequest, decision: Decision) -> Json:
    """Return how *request* would be decided now."""
    message = explain(decision, participant=request.participant)
    return {**_request_json(request), **_decided_json(decision), "message": message}


def operation_json(record: OperationRecord) -> Json:
    """Return how far an operation is, or how it ended."""
    return {
        "id": record.id,
        "status": record.status,
        **_request_json(record.request),
        "plan": plan_json(record.plan),
        "began_at": record.began_at,
        "ended_at": record.ended_at,
        "message": outcome_message(record.outcome, record.request),
    }


def scale_request_json(request: ScaleRequest) -> Json:
    """Return *request* in the peer's form, which `scale_request` reads."""
    return {
        "caller_namespace": str(request.caller),
        "graph_deployment_name": request.participant.name,
        "k8s_namespace": request.participant.namespace,
        "target_replicas": [
            {
                "sub_component_type": target.role.value,
                "component_name": target.component,
                "desired_replicas": target.replicas,
            }
            for target in request.targets
        ],
        "blocking": request.blocking,
        **({} if request.request_id is None else {"request_id": request.request_id}),
        **({} if request.sequence is None else {"sequence": request.sequence}),
    }


def scale_response(record: DecisionRecord, outcome: Outcome | None, snapshot: Snapshot) -> Json:
    """Return the peer's answer to the request of *record*, with our fields added; *outcome* None: not ended yet."""
    decision = outcome if isinstance(outcome, Rejected) else record.decision
    word = outcome_word(outcome)
    return {
        "status": word,
        "message": outcome_message(outcome, record.request),
        "current_replicas": _current(record.request, snapshot) if word == "success" else {},
        "decision_id": record.id,
        "reason": reason_json(decision.reason) if isinstance(decision, Rejected) else None,
        "plan": plan_json(decision.plan) if isinstance(decision, Approved) else [],
        "operation_id": record.operation,
    }


def outcome_message(outcome: Outcome | None, request: ScaleRequest) -> str:
    """Return the sentence that says how it ended."""
    name = request.participant.name
    match outcome:
        case None:
            return f"Scaling {name}: approved, and not finished yet"
        case Succeeded(plan):
            return f"Scaled {name} successfully" if plan.steps else f"unchanged: {name} is as asked"
        case Rejected():
            return explain(outcome, participant=request.participant)
        case HandedOver(operation):
            return f"Scaling {name}: another planner has taken over; ask it for operation {operation}"
        case Repeated(word, message, _):
            said = {"success": f"Scaled {name} successfully", "scaling": f"Scaling {name}: not finished yet"}
            return message or said.get(word, f"Scaling {name}: {word}")
        case Failed(problem, done, unsure, returned):
            back = [f"given back: {_changes(step.changes for step in returned)}"] if returned else []
            landed = [f"applied before: {_changes(step.changes for step in done)}"] if done else []
            perhaps = [f"perhaps applied: {_changes(step.changes for step in unsure)}"] if unsure else []
            return "; ".join(
                [f"Scaling {name} failed: {problem}", *(back + landed + perhaps or ["nothing was applied"])]
            )
        case _:
            assert_never(outcome)


def _request_json(request: ScaleRequest) -> Json:
    targets = [{"role": target.role.value, "replicas": target.replicas} for target in request.targets]
    return {"participant": str(request.participant), "targets": targets}


def _decided_json(decision: Decision) -> Json:
    match decision:
        case Approved(plan, totals):
            found: Json = {"reason": None, "plan": plan_json(plan), "total_after": totals.charged}
        case Rejected(reason):
            found = {"reason": reason_json(reason), "plan": [], "total_after": None}
        case _:
            assert_never(decision)
    return {"status": status(decision), **found}


def _current(request: ScaleRequest, snapshot: Snapshot) -> dict[str, int]:
    """Return the replicas of the participant's pools, by the role that it asks by."""
    deployment = snapshot.deployment(request.participant)
    current = {pool.key.role.value: pool.replicas for pool in (deployment.pools if deployment else ())}
    for target in request.targets:
        pool = snapshot.answering(request.participant, target.role)
        if pool is not None and pool.key.role is Role.WORKER:
            current[target.role.value] = current.pop(Role.WORKER.value, pool.replicas)
    return current


def _changes(steps: Iterable[Sequence[Change]]) -> str:
    return ", ".join(f"{change.pool} {change.before} to {change.after}" for changes in steps for change in changes)

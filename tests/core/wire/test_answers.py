import json
from typing import Any, get_args

import attrs
import pytest

from gpcore import decisions, wire
from gpcore.budgets import Budget
from gpcore.control import Rules, State
from gpcore.decisions import Approved, CeilingBreach, LimitReached, Nearest, Reason, Rejected, UnknownPool
from gpcore.events import Failed, HandedOver, LeaseChanged, Repeated, Succeeded
from gpcore.plans import Change, Plan
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role, Snapshot, Totals
from gpcore.records import DecisionRecord, OperationRecord
from gpcore.requests import Claimed, ScaleRequest, Target
from tests.core.driving import Planner

A = ParticipantId("ns", "a")
PREFILL, WORKER = PoolKey(A, Role.PREFILL), PoolKey(A, Role.WORKER)
REQUEST = ScaleRequest(Claimed("ns-a"), A, (Target(Role.PREFILL, 6),))
CHANGE = Change(PREFILL, 4, 6, 2)
PLAN = Plan.of([CHANGE])
CHANGE_JSON = {"participant": "ns/a", "role": "prefill", "before": 4, "after": 6}
BREACH = Rejected(CeilingBreach(18, 17, 2, Nearest((CHANGE,))))


def snapshot() -> Snapshot:
    pools = (Pool(PREFILL, 6, 2, present=6, ready=4), Pool(WORKER, 3, 1, authority=Authority("worker")))
    return Snapshot.of([Deployment(A, pools, fixed_gpus=None, problems=("odd\n",))])


def example(kind: type[attrs.AttrsInstance]) -> Any:  # noqa: ANN401 - some reason
    values: dict[str, object] = {
        "participants": (A,), "participant": A, "pool": PREFILL, "pools": (PREFILL,), "nearest": Nearest((CHANGE,)),
    }  # fmt: skip
    fields = attrs.fields(kind)
    return kind(**{one.name: values.get(one.name, 7 if one.type is int else "x") for one in fields})


@pytest.mark.parametrize("kind", get_args(Reason), ids=lambda kind: kind.kind)
def test_every_reason_is_its_kind_and_its_numbers(kind: type[attrs.AttrsInstance]) -> None:
    reason = example(kind)
    found = wire.reason_json(reason)
    assert found["kind"] == reason.kind
    assert set(found) == {"kind", *(one.name for one in attrs.fields(kind))}
    assert json.loads(wire.dumps(found)) == found
    assert wire.status(Rejected(reason)) == ("invalid" if kind in decisions.INVALID else "rejected")


def test_a_plan_is_its_steps() -> None:
    assert wire.plan_json(PLAN) == [[CHANGE_JSON]]
    assert wire.status(Approved(PLAN, Totals(18, 18))) == "approved"


def test_pools_show_all_that_is_known() -> None:
    found = wire.pools_json(snapshot())
    assert found["deployments"] == [{"participant": "ns/a", "fixed_gpus": None, "problems": ["odd\n"]}]
    assert found["pools"][1] == {
        "participant": "ns/a",
        "role": "worker",
        "replicas": 3,
        "ready": 0,
        "present": 0,
        "relayed": None,
        "reserved": None,
        "gpus_per_replica": 1,
        "charged_gpus": 3,
        "component": "",
        "authority": "worker",
    }


def test_a_budget_shows_its_bounds_and_what_counts() -> None:
    assert wire.budget_json(State(Rules(budget=Budget(2, 20)), snapshot())) == {
        "floor": 2,
        "ceiling": 20,
        "charged": 15,
        "least": 15,
        "headroom": 5,
        "shape_unknown": ["ns/a"],
        "intents": 0,
        "operations": 0,
        "escrow": 0,
        "ledger": {"state": "Bootstrapping", "epoch": 0, "fault": "it has not been read yet"},
        "leader": "",
    }
    assert wire.budget_json(State())["headroom"] is None


def test_a_budget_shows_who_decides_and_what_is_held_back() -> None:
    planner = Planner("a/prefill 4x1", "b/prefill 4x1", floor=8, ceiling=9)
    planner.ask("b/prefill 3", name="0")
    planner.ask("a/prefill 6")
    found = wire.budget_json(planner.state)
    assert (found["charged"], found["headroom"], found["operations"], found["escrow"]) == (10, -1, 1, 1)
    assert (found["ledger"], found["leader"]) == ({"state": "Active", "epoch": 1, "fault": ""}, "this planner")
    planner.happen(LeaseChanged(leading=False, leader="http://other"))
    assert wire.budget_json(planner.state)["leader"] == "http://other"


def test_a_limit_on_all_pools_names_none() -> None:
    found = wire.reason_json(LimitReached("gpus", 4, 300.0))
    assert found == {"kind": "limit_reached", "what": "gpus", "limit": 4, "window_s": 300.0, "pool": None}


def test_a_record_says_who_asked_for_what_and_why_it_was_decided_so() -> None:
    found = wire.decision_json(DecisionRecord("d-1", 12.5, REQUEST, Approved(PLAN, Totals(18, 18)), "d-1"))
    assert found == {
        "id": "d-1",
        "at": 12.5,
        "caller": "ns-a",
        "participant": "ns/a",
        "targets": [{"role": "prefill", "replicas": 6}],
        "status": "approved",
        "reason": None,
        "plan": [[CHANGE_JSON]],
        "total_after": 18,
        "operation_id": "d-1",
        "message": "approved: ns/a/prefill 4 to 6, total 18 GPUs when done",
    }
    refused = wire.decided_json(REQUEST, BREACH)
    assert (refused["status"], refused["reason"]["kind"], refused["plan"]) == ("rejected", "above_ceiling", [])


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (None, "scaling", "Scaling a: approved, and not finished yet"),
        (Succeeded(PLAN), "success", "Scaled a successfully"),
        (Succeeded(Plan()), "success", "unchanged: a is as asked"),
        (Failed("no"), "error", "Scaling a failed: no; nothing was applied"),
        (Failed("no", PLAN.steps), "error", "Scaling a failed: no; applied before: ns/a/prefill 4 to 6"),
        (Failed("no", (), PLAN.steps), "error", "Scaling a failed: no; perhaps applied: ns/a/prefill 4 to 6"),
        (
            Failed("no", PLAN.steps, PLAN.steps),
            "error",
            "Scaling a failed: no; applied before: ns/a/prefill 4 to 6; perhaps applied: ns/a/prefill 4 to 6",
        ),
        (
            Failed("no", (), (), PLAN.steps),
            "error",
            "Scaling a failed: no; given back: ns/a/prefill 4 to 6",
        ),
        (Rejected(UnknownPool(PREFILL)), "rejected", "ns/a has no pool for role 'prefill'"),
        (HandedOver("d-1"), "scaling", "Scaling a: another planner has taken over; ask it for operation d-1"),
    ],
)
def test_an_answer_and_an_operation_say_how_it_ended(outcome: Any, status: str, message: str) -> None:  # noqa: ANN401
    record = DecisionRecord("d-1", 12.5, REQUEST, Approved(PLAN, Totals(18, 18)), "d-1")
    answer = wire.scale_response(record, outcome, snapshot())
    assert (answer["status"], answer["message"], answer["decision_id"]) == (status, message, "d-1")
    assert answer["operation_id"] == "d-1"
    assert answer["current_replicas"] == ({"prefill": 6, "worker": 3} if status == "success" else {})
    assert answer["plan"] == ([] if status == "rejected" else [[CHANGE_JSON]])
    operation = OperationRecord("d-1", REQUEST, PLAN, 12.5, None if outcome is None else 13.0, outcome)
    found = wire.operation_json(operation)
    assert (found["status"], found["message"], found["plan"]) == (status, message, [[CHANGE_JSON]])


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (Repeated("success"), "success", "Scaled a successfully"),
        (Repeated("success", "as it was"), "success", "as it was"),
        (Repeated("scaling", "", "d-1"), "scaling", "Scaling a: not finished yet"),
        (Repeated("failed", "no"), "error", "no"),
        (Repeated("above_ceiling", "total 9 exceeds ceiling (8)"), "rejected", "total 9 exceeds ceiling (8)"),
        (Repeated("above_ceiling"), "rejected", "Scaling a: above_ceiling"),
    ],
)
def test_a_request_that_is_sent_again_is_told_what_it_was_told(outcome: Repeated, status: str, message: str) -> None:
    record = DecisionRecord("d-2", 12.5, REQUEST, Approved(Plan(), Totals(18, 18)), outcome.operation)
    answer = wire.scale_response(record, outcome, snapshot())
    assert (answer["status"], answer["message"], answer["operation_id"]) == (status, message, outcome.operation)


def test_a_generic_worker_answers_by_the_role_that_it_is_asked_by() -> None:
    request = ScaleRequest(Claimed("ns-a"), A, (Target(Role.DECODE, 3),))
    record = DecisionRecord("d-1", 12.5, request, Approved(Plan(), Totals(18, 18)))
    assert wire.scale_response(record, Succeeded(Plan()), snapshot())["current_replicas"] == {"prefill": 6, "decode": 3}
    assert wire.scale_response(record, Succeeded(Plan()), Snapshot())["current_replicas"] == {}


@pytest.mark.parametrize(("request_id", "sequence"), [(None, None), ("r-1", None), ("r-1", 0), (None, 7)])
def test_a_request_is_written_as_it_is_read(request_id: str | None, sequence: int | None) -> None:
    targets = (Target(Role.DECODE, 3, "x"), Target(Role.PREFILL, 0))
    request = ScaleRequest(Claimed("ns-a"), A, targets, blocking=True, request_id=request_id, sequence=sequence)
    assert wire.scale_request(wire.loads(wire.dumps(wire.scale_request_json(request)))) == request

"""Operations of a ledger: whatever a planner must know to finish them is written, and read back."""

import attrs
import pytest
from hypothesis import given

from gpcore.errors import InvalidError
from gpcore.fences import Fence
from gpcore.ledger import Ledger
from gpcore.operations import Leg, Operation, Stage
from gpcore.plans import Change, Plan, Step
from gpcore.pools import Authority, ParticipantId, PoolKey, Role, Totals
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.testing.strategies import ledgers
from gpcore.wire.documents import Extras, Json, Reading, dumps, loads
from gpcore.wire.underway import operation_document, read_operation

OWNER = ParticipantId("ns", "a")
OBJECT = Authority("deployment/a", "u-1")
CHANGES = (
    Change(PoolKey(OWNER, Role.PREFILL), 4, 2, 8, OBJECT),
    Change(PoolKey(OWNER, Role.DECODE), 1, 2, None, OBJECT, charged=3),
)
STEP = Step(CHANGES)
REQUEST = ScaleRequest(Claimed("ns-a"), OWNER, (Target(Role.PREFILL, 2), Target(Role.DECODE, 2, "worker")))
OTHER = Step((Change(PoolKey(OWNER, Role.PREFILL), 2, 4, 8, OBJECT),), Fence("x", "y", "z"))
OPERATION = Operation(
    "op",
    REQUEST,
    Plan((STEP,)),
    (Leg(attrs.evolve(STEP, fence=Fence("o", "n", "k")), Stage.RESERVED), Leg(OTHER, Stage.WAITING)),
    before=Totals(5, -3),
)
DOCUMENT: Json = {
    "id": "op",
    "caller": "ns-a",
    "participant": "ns/a",
    "targets": ["p2", "d2 worker"],
    "plan": ["ns/a deployment/a u-1 p4:2x8d1:2=3"],
    "legs": ["reserved #0 o n k", "waiting ns/a deployment/a u-1 p2:4x8 x y z"],
    "before": [5, -3],
}


def read(document: object) -> Operation | None:
    reading = Reading(Extras.IGNORED)
    found = read_operation(reading.root(document))
    reading.finish()
    return found


def test_an_operation_is_a_few_lines() -> None:
    assert operation_document(OPERATION) == DOCUMENT
    assert read(DOCUMENT) == OPERATION


@given(ledgers())
def test_what_is_written_is_read_back_with_what_each_change_costs(ledger: Ledger) -> None:
    for operation in ledger.operations.values():
        found = read(loads(dumps(operation_document(operation))))
        assert found == operation
        costs = [[change.charged for change in leg.step.changes] for leg in operation.legs]
        assert found is not None
        assert [[change.charged for change in leg.step.changes] for leg in found.legs] == costs


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("id", "", "$.id: must not be empty"),
        ("id", None, "$.id: must be a string: null"),
        ("caller", "-", "$.caller: caller must be"),
        ("participant", "a", "$.participant: a participant is written namespace/name"),
        ("targets", [], "$.targets: a request names 1 to 32 targets: 0"),
        ("targets", ["p2", "p3"], "$.targets: role 'prefill' is named 2 times"),
        ("targets", ["p-2"], "$.targets[0]: must be a target as 'p4'"),
        ("targets", ["w2"], "$.targets[0]: role must be 'prefill' or 'decode': 'worker'"),
        ("plan", ["ns/a deployment/a u-1"], "$.plan[0]: must be a deployment, an object, its uid and changes"),
        ("plan", ["ns/a deployment/a u-1 p4:2 o n"], "$.plan[0]: must be a deployment, an object"),
        ("plan", ["ns/a deployment/a u-1 p4"], "$.plan[0]: must be a deployment, an object"),
        ("plan", ["NS/a deployment/a u-1 p4:2"], "$.plan[0]: namespace must be"),
        (
            "plan",
            ["ns/a deployment/a u-1 p4:9223372036854775808"],
            "$.plan[0]: a pool has at most 9223372036854775807 replicas",
        ),
        ("plan", ["ns/a deployment/a u-1 p4:2x1000001"], 'of 1000000 GPUs: "p4:2x1000001"'),
        ("legs", ["gone #0"], "$.legs[0]: must begin with one of waiting, reserved, done, dropped"),
        ("legs", ["done #1"], '$.legs[0]: the plan has 1 steps: "#1"'),
        ("legs", ["done #-1"], "$.legs[0]: the plan has 1 steps"),
        ("legs", ["done #0 o n"], "$.legs[0]: a fence is three marks: 2"),
        ("legs", ["done ns/a"], "$.legs[0]: must be a deployment, an object"),
        ("before", [1], "$.before: must have 2 to 2 items: 1"),
        ("before", [1, True], "$.before: must be two integers"),
        ("totals", [1, "2"], "$.totals: must be two integers"),
        ("escrow", -1, "$.escrow: must be at least 0: -1"),
        ("returning", 1, "$.returning: must be true or false: 1"),
        ("request_id", "", "$.targets: request_id must be"),
        ("request_id", 5, "$.request_id: must be a string: 5"),
        ("sequence", -1, "$.sequence: must be at least 0: -1"),
        ("began_at", "now", "$.began_at: must be a number"),
    ],
)
def test_what_cannot_be_an_operation_says_why(field: str, value: object, problem: str) -> None:
    with pytest.raises(InvalidError) as refused:
        read(DOCUMENT | {field: value})
    assert problem in str(refused.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidError) as refused:
        read({"caller": "", "targets": ["x"], "plan": ["y"], "excess": -1})
    assert len(refused.value.problems) == 6


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (Change, "pool before after gpus_per_replica authority charged"),
        (Leg, "step stage"),
        (Plan, "steps"),
        (ScaleRequest, "caller participant targets blocking request_id sequence"),
        (Step, "changes fence"),
        (Target, "role replicas component"),
        (
            Operation,
            "id request plan legs began_at before totals excess escrow dip retries problem returning",
        ),
    ],
)
def test_a_field_that_is_new_is_written_or_left_out_on_purpose(kind: type[attrs.AttrsInstance], written: str) -> None:
    assert [field.name for field in attrs.fields(kind)] == written.split()

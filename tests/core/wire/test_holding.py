"""Freezes and operations as documents: what is asked is read strictly, and what is shown can be written as JSON."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore import wire
from gpcore.conditions import Condition
from gpcore.errors import InvalidError, MalformedError
from gpcore.fences import Fence
from gpcore.ledger import Ended, Freeze
from gpcore.operations import Leg, Operation, Stage
from gpcore.plans import Change, Plan, Step
from gpcore.pools import ParticipantId, PoolKey, Role
from gpcore.records import OperationRecord
from gpcore.requests import Claimed, ScaleRequest, Target

A = PoolKey(ParticipantId("ns", "a"), Role.PREFILL)
B = PoolKey(ParticipantId("ns", "b"), Role.DECODE)
REQUEST = ScaleRequest(Claimed("ns-a"), A.participant, (Target(Role.PREFILL, 3),))
STEP = Step((Change(A, 2, 3, 1),))
OPERATION = Operation("d-1", REQUEST, Plan((STEP,)), (Leg(STEP),), began_at=5.0, escrow=1)
ENDED = Ended("d-1", 5.0, 9.0, "success", "", "ns-a", "ns/a", "ns/a/prefill 2 to 3: done (x to y)", 3, 4)
ASKED: dict[str, object] = {"direction": "up", "for_seconds": 60, "reason": "night", "by": "ann"}

pools = st.lists(st.sampled_from([A, B]), min_size=1, max_size=3)


@given(pools, st.sampled_from(["up", "down", "all"]), st.integers(1, 1000))
def test_a_freeze_that_is_asked_for_begins_as_asked(named: list[PoolKey], direction: str, seconds: int) -> None:
    document = ASKED | {"direction": direction, "for_seconds": seconds, "pools": [str(one) for one in named]}
    freeze = wire.asked_freeze(document).begun("f-1", wall=100.0)
    assert freeze == Freeze("f-1", direction, 100.0 + seconds, "night", "ann", tuple(dict.fromkeys(named)))
    assert wire.freeze_json(freeze) == {
        "id": "f-1",
        "direction": direction,
        "until": 100.0 + seconds,
        "reason": "night",
        "by": "ann",
        "pools": [str(one) for one in dict.fromkeys(named)],
    }


def test_a_freeze_that_names_no_pools_is_for_all() -> None:
    assert wire.asked_freeze(ASKED).pools == wire.asked_freeze(ASKED | {"pools": None}).pools == ()


BAD: dict[str, tuple[dict[str, object], str]] = {
    "another direction": ({"direction": "left"}, "$.direction: must be one of 'up', 'down', 'all'"),
    "no length": ({"for_seconds": 0.5}, "$.for_seconds: must be 1 to 2.592e+06 seconds: 0.5"),
    "nobody": ({"by": " "}, "$.by: must be 1 to 64 printable characters"),
    "a long name": ({"by": "x" * 65}, "$.by: must be 1 to 64 printable characters"),
    "a control character": ({"by": "a\n"}, "$.by: must be 1 to 64 printable characters"),
    "no pool": ({"pools": ["a/prefill"]}, "a participant is written namespace/name"),
    "no role": ({"pools": ["ns/a/all"]}, "$.pools[0]: a pool is written namespace/name/role"),
    "a field too many": ({"id": "f"}, "unknown field"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_with_a_freeze_is_told_by_its_place(what: str) -> None:
    changes, problem = BAD[what]
    with pytest.raises(InvalidError) as refused:
        wire.asked_freeze(ASKED | changes)
    assert any(problem in one for one in refused.value.problems), refused.value.problems


def test_every_problem_of_a_freeze_is_told_at_once() -> None:
    with pytest.raises(InvalidError) as refused:
        wire.asked_freeze({"direction": 1, "for_seconds": -1, "pools": [1]})
    assert len(refused.value.problems) >= 5


def test_a_freeze_is_an_object() -> None:
    with pytest.raises(MalformedError, match="a freeze must be a JSON object"):
        wire.asked_freeze([])


def test_a_condition_is_its_word_and_its_sentence() -> None:
    assert wire.condition_json(Condition("frozen", "why")) == {"kind": "frozen", "detail": "why"}


def test_an_operation_under_way_is_told_leg_by_leg() -> None:
    fence = Fence("old", "new", "kill")
    legs = (Leg(attrs.evolve(STEP, fence=fence), Stage.RESERVED), Leg(STEP))
    told = wire.under_way_json(attrs.evolve(OPERATION, legs=legs))
    assert [(leg["stage"], leg["fence"]) for leg in told["legs"]] == [("reserved", "new"), ("waiting", None)]
    assert (told["status"], told["caller"], told["escrow"], told["ended_at"]) == ("scaling", "ns-a", 1, None)
    assert told["message"] == "Scaling a: approved, and not finished yet"


def test_an_operation_that_cannot_go_on_says_why_and_whether_it_gives_back() -> None:
    stuck = attrs.evolve(OPERATION, problem="no room")
    assert wire.under_way_json(stuck)["message"] == "no room"
    back = wire.under_way_json(attrs.evolve(stuck, returning=True))
    assert back["message"] == "no room; what was done is being given back"


def test_all_that_is_told_of_operations_has_the_same_fields() -> None:
    record = OperationRecord("d-1", REQUEST, Plan((STEP,)), 5.0)
    told = [wire.under_way_json(OPERATION), wire.record_json(record), wire.record_json(record, ENDED)]
    told.append(wire.ended_json(ENDED))
    assert len({tuple(sorted(one)) for one in told}) == 1
    assert [one["written"] for one in told] == ["", "", ENDED.changes, ENDED.changes]
    assert (told[-1]["status"], told[-1]["participant"], told[-1]["targets"]) == ("success", "ns/a", [])

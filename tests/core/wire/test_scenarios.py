from typing import Any

import pytest

from gpcore.budgets import Budget
from gpcore.decisions import Approved, Decision
from gpcore.errors import InvalidError
from gpcore.intents import Intent, Intents
from gpcore.plans import Plan
from gpcore.pools import ParticipantId, PoolKey, Role, Snapshot, Totals
from gpcore.requests import ScaleRequest
from gpcore.wire import scenario, verdict


def pool(participant: str, role: str, replicas: int, gpus: object, **more: object) -> dict[str, Any]:
    return {"participant": participant, "role": role, "replicas": replicas, "gpus_per_replica": gpus, **more}


def intent(participant: str, role: str, replicas: int, age_s: float) -> dict[str, Any]:
    return {"participant": participant, "role": role, "replicas": replicas, "age_s": age_s}


def document(replicas: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - bad documents hold anything
    given: dict[str, Any] = {
        "pools": [pool("ns/a", "prefill", 4, 1, ready=4), pool("ns/b", "decode", 12, 1)],
        "budget": {"ceiling": 16},
        "request": {"participant": "ns/a", "targets": [{"role": "prefill", "replicas": replicas}]},
    }
    return given | changes


def test_what_fits_is_approved_with_its_plan_and_its_total() -> None:
    assert verdict(document(3)) == {
        "status": "approved",
        "plan": [[{"participant": "ns/a", "role": "prefill", "before": 4, "after": 3}]],
        "total_after": 15,
        "reason": None,
        "message": "approved: ns/a/prefill 4 to 3, total 15 GPUs when done",
    }


def test_what_does_not_fit_is_rejected_with_the_numbers_and_the_nearest_that_would() -> None:
    found = verdict(document(6, budget={"floor": 0, "ceiling": 17}))
    assert found == {
        "status": "rejected",
        "plan": [],
        "total_after": 16,
        "reason": {
            "kind": "above_ceiling",
            "total": 18,
            "ceiling": 17,
            "partners_offer": 0,
            "nearest": {"own": [{"participant": "ns/a", "role": "prefill", "before": 4, "after": 5}], "partners": []},
        },
        "message": "total 18 exceeds ceiling (17); the largest count that fits is 5",
    }


def test_fresh_intents_pair_and_releases_come_first() -> None:
    found = verdict(document(6, intents=[intent("ns/b", "decode", 8, 360)]))
    assert [[change["participant"] for change in step] for step in found["plan"]] == [["ns/b"], ["ns/a"]]
    assert found["total_after"] == 16
    assert verdict(document(6, intents=[intent("ns/b", "decode", 8, 360.01)]))["status"] == "rejected"
    assert verdict(document(6, intents=[intent("ns/b", "decode", 8, 20)], ttl_s=10))["status"] == "rejected"


def test_of_two_intents_for_one_pool_the_younger_counts() -> None:
    young, old = intent("ns/b", "decode", 8, 1), intent("ns/b", "decode", 11, 2)
    for order in ([young, old], [old, young]):
        read = scenario(document(6, intents=order))
        assert list(read.state.intents) == [Intent(PoolKey(ParticipantId("ns", "b"), Role.DECODE), 8, -1.0)]


def test_what_is_left_out_has_a_value() -> None:
    read = scenario(document(3, budget={}))
    found = (read.state.snapshot or Snapshot()).pool(PoolKey(ParticipantId("ns", "b"), Role.DECODE))
    assert found is not None
    assert (found.ready, found.present) == (12, 12)
    assert read.state.rules.budget == Budget()
    given = [pool("ns/a", "prefill", 2, None, ready=3), pool("ns/a", "decode", 2, 0, present=5)]
    read = scenario(document(3, pools=given))
    seen = {one.key.role: one.present for one in (read.state.snapshot or Snapshot()).pools()}
    assert seen == {Role.PREFILL: 3, Role.DECODE: 5}
    bare = document(3)
    del bare["budget"]
    assert scenario(bare).state.rules.budget == Budget()


def test_a_shape_that_is_not_known_refuses_what_would_grow() -> None:
    found = verdict(document(5, pools=[pool("ns/a", "prefill", 4, None)]))
    assert found["reason"] == {"kind": "shape_unknown", "participants": ["ns/a"]}


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        ([], "$.request.targets: must have 1 to 32 items: 0"),
        ([{"role": "prefill", "replicas": -5}], "$.request.targets[0].replicas: must be between 0 and 10000: -5"),
        (
            [{"role": "prefill", "replicas": 100}, {"role": "prefill", "replicas": 1}],
            "$.request.targets[1]: role 'prefill' is named before",
        ),
    ],
)
def test_a_request_that_contradicts_itself_is_invalid(targets: object, problem: str) -> None:
    found = verdict(document(3, request={"participant": "ns/a", "targets": targets}))
    assert found == {
        "status": "invalid",
        "plan": [],
        "total_after": None,
        "reason": {"kind": "invalid", "problems": [problem]},
        "message": problem,
    }


def test_a_request_for_what_does_not_exist_is_invalid() -> None:
    found = verdict(document(3, request={"participant": "ns/a", "targets": [{"role": "decode", "replicas": 1}]}))
    assert (found["status"], found["reason"]) == (
        "invalid",
        {"kind": "unknown_pool", "pool": {"participant": "ns/a", "role": "decode"}},
    )
    found = verdict(document(3, request={"participant": "ns/x", "targets": [{"role": "decode", "replicas": 1}]}))
    assert (found["status"], found["reason"]["kind"]) == ("invalid", "unknown_deployment")


def test_every_problem_of_a_scenario_is_listed() -> None:
    given = {
        "pools": [
            pool("ns/a", "gpu", -1, "8"),
            pool("nsa", "prefill", 1, 1),
            pool("ns/a", "prefill", 1, 1),
            pool("ns/a", "prefill", 1, 1, ready="x"),
        ],
        "intents": [{"participant": "ns/a", "role": "prefill", "replicas": 1}],
        "budget": {"floor": 9, "ceiling": 3},
        "ttl_s": 0,
        "request": {},
    }
    with pytest.raises(InvalidError) as caught:
        scenario(given)
    assert caught.value.problems == (
        "$.pools[0].role: must be one of 'prefill', 'decode', 'worker': \"gpu\"",
        "$.pools[0].replicas: must be at least 0: -1",
        '$.pools[0].gpus_per_replica: must be an integer: "8"',
        "$.pools[1].participant: a participant is written namespace/name: 'nsa'",
        '$.pools[3].ready: must be an integer: "x"',
        "$.intents[0]: age_s is missing",
        "$.budget: floor must be at most the ceiling (3): 9",
        "$.request: participant is missing",
        "$.request: targets is missing",
        "$.pools: ns/a/prefill is there twice",
        "$.ttl_s: must be more than 0: 0",
    )


def test_a_policy_of_ones_own_decides_the_same_scenario() -> None:
    def lazy(request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Decision:
        assert (len(intents), budget.ceiling, len(snapshot), len(request.targets)) == (0, 16, 2, 1)
        return Approved(Plan(), Totals())

    assert verdict(document(3), policy=lazy)["reason"]["kind"] == "policy_broken"

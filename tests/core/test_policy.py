"""The policy's own examples; its laws are in `testing/test_laws`, and that it pairs best in `test_oracle`."""

import attrs
import pytest

from gpcore.budgets import Budget
from gpcore.decisions import (
    CeilingBreach,
    FloorBreach,
    NotScaled,
    OnePoolTwice,
    Rejected,
    ShapeUnknown,
    UnknownDeployment,
    WrongComponent,
)
from gpcore.intents import Intents
from gpcore.plans import Change, Plan
from gpcore.policy import decide, violation
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, Role, Snapshot
from gpcore.requests import Target
from tests.core.words import Scene, fleet, key, pool, request, scene

A = ParticipantId("ns", "a")


def named(case: Scene, *components: str) -> Scene:
    """Return the scene with the components of its pools named."""
    pools = zip(case.pools, components, strict=True)
    return attrs.evolve(case, pools=tuple(attrs.evolve(one, component=name) for one, name in pools))


def test_a_generic_worker_answers_to_either_role_and_to_one_at_a_time() -> None:
    case = scene("a/worker 4x1", ceiling=8)
    assert case.plan("a/prefill 5") == case.plan("a/decode 5") == {"a/worker": 5}
    assert case.reason("a/prefill 5", "a/decode 5") == OnePoolTwice(key("a/worker"))


@pytest.mark.parametrize(("component", "refused"), [("d", True), ("p", False), ("an alias", False), (None, False)])
def test_a_pool_is_not_scaled_under_the_name_of_another(component: str | None, refused: bool) -> None:  # noqa: FBT001
    case = named(scene("a/prefill 4x1", "a/decode 4x1"), "p", "d")
    asked = attrs.evolve(request("a/prefill 5"), targets=(Target(key("a/prefill").role, 5, component),))
    snapshot = fleet().of_pools(case.pools)
    decision = decide(asked, snapshot=snapshot, intents=Intents.of((), snapshot), budget=Budget())
    assert (getattr(decision, "reason", None) == WrongComponent(key("a/prefill"), "p", "d")) is refused


def test_a_deployment_that_is_not_there_is_not_invented() -> None:
    assert scene("a/prefill 4x1").reason("b/prefill 5") == UnknownDeployment(ParticipantId("ns", "b"))


@pytest.mark.parametrize("said", [Role.DECODE, Role.WORKER])
def test_workers_that_are_not_scaled_say_why(said: Role) -> None:
    held = Deployment(A, (pool("a/prefill 4x1"),), unscaled=((said, "held back"),))
    decision = decide(request("a/decode 5"), snapshot=Snapshot.of([held]), intents=Intents(), budget=Budget())
    assert decision == Rejected(NotScaled(key("a/decode"), "held back"))


UNKNOWN = Pool(key("z/prefill"), 4, None, present=4)


def with_unknown(case: Scene) -> Scene:
    return attrs.evolve(case, pools=(*case.pools, UNKNOWN))


def test_under_a_ceiling_nothing_grows_while_something_cannot_be_counted() -> None:
    case = with_unknown(scene("a/prefill 4x1", ceiling=100))
    assert case.reason("a/prefill 5") == ShapeUnknown((ParticipantId("ns", "z"),))
    assert case.plan("a/prefill 3") == {"a/prefill": 3}
    assert case.plan("z/prefill 3") == {"z/prefill": 3}


def test_above_a_floor_what_cannot_be_counted_does_not_change() -> None:
    case = with_unknown(scene("a/prefill 4x1", floor=2))
    assert case.reason("z/prefill 3") == ShapeUnknown((ParticipantId("ns", "z"),))
    assert case.plan("a/prefill 5") == {"a/prefill": 5}


def test_without_bounds_what_cannot_be_counted_may_change() -> None:
    assert with_unknown(scene("a/prefill 4x1")).plan("z/prefill 9") == {"z/prefill": 9}


def test_of_several_targets_the_last_gives_way_first() -> None:
    reason = scene("a/prefill 4x1", "a/decode 4x1", ceiling=10).reason("a/prefill 6", "a/decode 6")
    assert isinstance(reason, CeilingBreach)
    assert [(change.pool.role.value, change.after) for change in reason.nearest.own] == [("prefill", 6)]
    reason = scene("a/prefill 4x1", "a/decode 4x1", ceiling=9).reason("a/prefill 6", "a/decode 6")
    assert [(change.pool.role.value, change.after) for change in nearest(reason)] == [("prefill", 5)]
    reason = scene("a/prefill 4x1", "a/decode 4x1", ceiling=8).reason("a/prefill 6", "a/decode 6")
    assert nearest(reason) == ()


def nearest(reason: object) -> tuple[Change, ...]:
    assert isinstance(reason, CeilingBreach | FloorBreach)
    return reason.nearest.own


def test_what_draws_still_counts_against_the_ceiling() -> None:
    draining = attrs.evolve(pool("a/prefill 4x1"), present=6)
    case = attrs.evolve(scene("b/prefill 2x1", ceiling=8), pools=(draining, pool("b/prefill 2x1")))
    assert isinstance(case.reason("b/prefill 3"), CeilingBreach)
    assert case.plan("a/prefill 6") == {"a/prefill": 6}


def test_a_pool_without_gpus_may_change_in_the_band() -> None:
    assert scene("a/prefill 4x0", "b/prefill 8x1", floor=8, ceiling=8).plan("a/prefill 9") == {"a/prefill": 9}


SNAPSHOT = fleet("a/prefill 4x1", "b/prefill 4x2")
UP, DOWN = Change.of(pool("a/prefill 4x1"), 6), Change.of(pool("b/prefill 4x2"), 3)
ASKED = {key("a/prefill"): 6}


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (Plan.of([UP, DOWN]), None),
        (Plan(Plan.of([UP, DOWN]).steps[::-1]), "the total is 14 GPUs, above the ceiling"),
        (Plan.of([DOWN]), "does not do what was asked of ns/a/prefill"),
        (Plan.of([attrs.evolve(UP, after=5)]), "does not do what was asked of ns/a/prefill"),
        (Plan(Plan.of([DOWN]).steps * 2 + Plan.of([UP]).steps), "twice"),
        (Plan.of([attrs.evolve(DOWN, before=5), UP]), "changes ns/b/prefill from what it is not"),
        (Plan.of([attrs.evolve(DOWN, after=-1), UP]), "changes ns/b/prefill from what it is not"),
        (Plan.of([attrs.evolve(DOWN, authority=Authority("b", "x")), UP]), "changes ns/b/prefill from what it is not"),
        (Plan.of([Change.of(pool("c/prefill 4x2"), 3), UP]), "changes ns/c/prefill from what it is not"),
        (Plan.of([attrs.evolve(DOWN, after=1), UP]), "ends with 8 GPUs, below the floor (11)"),
    ],
)
def test_no_policy_may_break_the_rules(plan: Plan, told: str | None) -> None:
    found = violation(plan, ASKED, snapshot=SNAPSHOT, budget=Budget(11, 12))
    assert found == told if told is None or found is None else told in found


def test_what_is_asked_and_already_so_needs_no_change() -> None:
    assert violation(Plan(), {key("a/prefill"): 4}, snapshot=SNAPSHOT, budget=Budget()) is None
    gone = violation(Plan(), {key("c/prefill"): 4}, snapshot=SNAPSHOT, budget=Budget())
    assert gone == "it does not do what was asked of ns/c/prefill"

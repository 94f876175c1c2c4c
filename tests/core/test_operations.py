import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpcore.fences import Mint
from gpcore.operations import Leg, Operation, Stage, needed, promised
from gpcore.plans import Change, Plan, Step
from gpcore.pools import Authority, Snapshot, Totals
from tests.core.words import fleet, key, pool, request

SNAPSHOT = fleet("a/prefill 4x2", "b/prefill 4x1")
DOWN = Step((Change.of(pool("a/prefill 4x2"), 3),))
UP = Step((Change.of(pool("b/prefill 4x1"), 6),))
BACK = Step((Change.of(pool("a/prefill 3x2"), 4),))
FENCE, _ = Mint("a seed").fence("")


def seeing(replicas: int, *, present: int | None = None, uid: str = "uid") -> Snapshot:
    """Return the snapshot in which a/prefill has this many replicas."""
    changed = attrs.evolve(
        pool("a/prefill 4x2"),
        replicas=replicas,
        present=replicas if present is None else present,
        authority=Authority("a", uid),
    )
    return SNAPSHOT.with_deployment(Snapshot.of_pools([changed]).deployment(changed.key.participant) or NOTHING)


NOTHING = next(fleet("z/prefill 0x0").deployments())
GONE = SNAPSHOT.without(key("a/prefill").participant)


def operation(down: Stage = Stage.WAITING, up: Stage = Stage.WAITING) -> Operation:
    """Return the operation that releases of a for b, with its legs at these stages."""
    return Operation("1", request("b/prefill 6"), Plan((DOWN, UP)), (Leg(DOWN, down), Leg(UP, up)))


@given(stages=st.tuples(st.sampled_from(Stage), st.sampled_from(Stage)))
def test_every_leg_is_at_one_stage_and_an_operation_is_open_while_one_may_be_written(
    stages: tuple[Stage, Stage],
) -> None:
    one = operation(*stages)
    assert sorted([*one.waiting, *one.reserved, *one.done, *one.at(Stage.DROPPED)], key=id) == sorted(
        one.plan.steps, key=id
    )
    assert one.open == any([*one.waiting, *one.reserved]) == any(leg.open for leg in one.legs)


def test_another_leg_takes_the_place_of_one_and_the_others_stay() -> None:
    reserved = operation().with_leg(0, Leg(attrs.evolve(DOWN, fence=FENCE), Stage.RESERVED), escrow=2)
    assert reserved.reserved == (attrs.evolve(DOWN, fence=FENCE),)
    assert (reserved.waiting, reserved.escrow) == ((UP,), 2)


def test_a_pool_is_to_have_what_the_plan_says_and_on_the_way_back_what_it_had() -> None:
    there = operation(Stage.DONE)
    assert [there.goal(key(name)) for name in ("a/prefill", "b/prefill")] == [3, 6]
    back = attrs.evolve(there, legs=(Leg(BACK),), returning=True)
    assert [back.goal(key(name)) for name in ("a/prefill", "b/prefill")] == [4, 4]


def test_a_release_holds_gpus_until_they_are_seen_free() -> None:
    begun = operation(Stage.DONE)
    assert begun.holding(seeing(3, present=4)) == DOWN.changes
    assert begun.holding(seeing(3)) == ()
    assert begun.holding(seeing(3, present=4, uid="another")) == ()
    assert begun.holding(GONE) == ()
    assert operation(up=Stage.DONE).holding(SNAPSHOT) == ()
    assert operation(Stage.RESERVED).holding(SNAPSHOT) == ()


def test_a_promise_alone_is_what_a_waiting_step_is_charged_for() -> None:
    reserved = SNAPSHOT.promising({key("b/prefill"): 6})
    assert promised(UP, reserved) == Totals(2, 0)
    assert needed((UP,), reserved) == Totals(2, 2)
    assert promised(DOWN, GONE) == needed((DOWN,), GONE) == Totals()


def test_an_operation_fulfils_what_it_does_and_has_not_failed() -> None:
    assert operation().fulfils({key("b/prefill"): 6})
    assert not operation().fulfils({key("b/prefill"): 5})
    assert not operation().fulfils({key("c/prefill"): 6})
    assert not attrs.evolve(operation(), problem="no").fulfils({key("b/prefill"): 6})

import attrs

from gpcore.operations import MAX_WAITERS, Operation, needed, outdated, overtaken, promised, shown
from gpcore.plans import Change, Plan, Step
from gpcore.pools import Authority, Snapshot, Totals
from tests.core.words import fleet, key, pool, request

SNAPSHOT = fleet("a/prefill 4x2", "b/prefill 4x1")
DOWN = Step((Change.of(pool("a/prefill 4x2"), 3),))
UP = Step((Change.of(pool("b/prefill 4x1"), 6),))


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


def operation(
    *,
    sent: tuple[Step, ...] = (),
    unsure: tuple[Step, ...] = (),
    landed: tuple[Step, ...] = (),
    done: tuple[Step, ...] = (),
) -> Operation:
    plan = Plan((DOWN, UP))
    return Operation("1", request("b/prefill 6"), plan, 0.0, (UP,), sent=sent, unsure=unsure, landed=landed, done=done)


def test_a_step_is_shown_when_its_object_is_as_it_would_be() -> None:
    assert [shown(DOWN, seeing(n)) for n in (4, 3, 2)] == [False, True, False]
    assert not shown(DOWN, seeing(3, uid="another"))
    assert not shown(DOWN, GONE)


def test_a_step_is_overtaken_when_its_object_is_not_as_it_was() -> None:
    assert [overtaken(DOWN, seeing(n)) for n in (4, 3, 2)] == [False, True, True]
    assert overtaken(DOWN, seeing(4, uid="another"))
    assert overtaken(DOWN, GONE)


def test_a_refusal_is_outdated_when_the_object_is_not_as_the_decision_saw_it() -> None:
    assert [outdated(DOWN, seeing(n)) for n in (4, 3)] == [False, True]
    assert outdated(DOWN, seeing(4, uid="another"))
    assert outdated(DOWN, GONE)


def test_a_release_holds_gpus_until_they_are_seen_free() -> None:
    begun = operation(done=(DOWN,))
    assert begun.holding(seeing(3, present=4)) == DOWN.changes
    assert begun.holding(seeing(3)) == ()
    assert begun.holding(seeing(3, present=4, uid="another")) == ()
    assert begun.holding(GONE) == ()
    assert operation(done=(UP,)).holding(SNAPSHOT) == ()


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


def test_an_operation_is_shared_by_only_so_many() -> None:
    most = attrs.evolve(operation(), waiters=tuple(f"d-{n}" for n in range(MAX_WAITERS)))
    assert not most.fulfils({key("b/prefill"): 6})
    assert attrs.evolve(most, waiters=most.waiters[1:]).fulfils({key("b/prefill"): 6})


def test_an_operation_is_unfinished_while_something_of_it_may_still_land_or_be_seen() -> None:
    assert not operation(done=(DOWN,)).unfinished
    assert operation(sent=(DOWN,)).unfinished
    assert operation(unsure=(DOWN,)).unfinished
    assert operation(landed=(DOWN,)).unfinished


def test_what_is_sent_waits_no_longer() -> None:
    assert operation().sending((UP,)) == attrs.evolve(operation(), waiting=(), sent=(UP,))


def test_a_list_shows_whatever_has_landed() -> None:
    assert operation(landed=(DOWN,)).seen_landing() == operation(done=(DOWN,))
    assert operation(sent=(DOWN,)).seen_landing() == operation(sent=(DOWN,))

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.errors import InvalidError
from gpcore.pools import (
    MAX_GPUS_PER_REPLICA,
    Authority,
    Deployment,
    ParticipantId,
    Pool,
    PoolKey,
    Role,
    Snapshot,
    Totals,
)
from gpcore.testing.strategies import deployments, participants, pools, snapshots
from tests.core.words import fleet, key, pool

COUNTS = st.integers(0, 12)


@given(before=pools(), after=COUNTS)
def test_a_pool_counts_the_most_against_the_ceiling_and_the_least_toward_the_floor(before: Pool, after: int) -> None:
    gpus = before.gpus_per_replica or 0
    assert before.totals == Totals(before.most * gpus, before.least * gpus)
    assert before.least <= before.replicas <= before.most
    assert before.charged_gpus == (None if before.gpus_per_replica is None else before.most * gpus)
    del after


@given(before=pools(known=True), after=COUNTS)
def test_a_change_shifts_the_totals_to_what_they_are_when_it_is_done(before: Pool, after: int) -> None:
    free = before.reserving(None)
    released = after < free.replicas
    done = attrs.evolve(
        free,
        replicas=after,
        present=min(free.present, after) if released else free.present,
        relayed=None if free.relayed is None or released else max(free.relayed, after),
    )
    assert before.totals + before.shift(after) == done.totals


@given(before=pools(), promised=COUNTS)
def test_a_promise_is_charged_at_once_and_counts_for_the_floor_when_it_is_written(before: Pool, promised: int) -> None:
    reserved = before.reserving(promised)
    assert reserved == attrs.evolve(before, reserved=promised)
    assert reserved.most >= promised >= reserved.least
    assert reserved.reserving(None).reserved is None


@given(one=pools(), replicas=COUNTS)
def test_what_is_seen_at_most_does_not_count_what_is_only_promised(one: Pool, replicas: int) -> None:
    assert one.seen_at_most(replicas) == (one.reserving(None).most <= replicas)


@given(snapshot=snapshots(), changes=st.lists(deployments() | participants(), max_size=6))
def test_a_snapshot_is_always_as_if_made_anew(snapshot: Snapshot, changes: list[Deployment | ParticipantId]) -> None:
    for change in changes:
        snapshot = snapshot.with_deployment(change) if isinstance(change, Deployment) else snapshot.without(change)
        anew = Snapshot.of(snapshot.deployments())
        assert (snapshot, snapshot.totals, snapshot.unknown) == (anew, anew.totals, anew.unknown)
        assert {one.id for one in snapshot.deployments()} == {
            one for name in {one.id.dynamo_namespace for one in snapshot.deployments()} for one in snapshot.named(name)
        }


@given(snapshot=snapshots(), data=st.data())
def test_promises_are_kept_in_the_totals(snapshot: Snapshot, data: st.DataObject) -> None:
    every = sorted((one.key for one in snapshot.pools()), key=lambda one: one.order)
    afters = data.draw(st.dictionaries(st.sampled_from(every), st.none() | COUNTS)) | {key("z/prefill"): 1}
    promised = snapshot.promising(afters)
    anew = Snapshot.of(promised.deployments())
    assert (promised, promised.totals, promised.unknown) == (anew, anew.totals, anew.unknown)
    for one in snapshot.pools():
        assert promised.pool(one.key) == one.reserving(afters.get(one.key, one.reserved))


@given(snapshot=snapshots())
def test_an_older_snapshot_stays_as_it_was(snapshot: Snapshot) -> None:
    before = (list(snapshot.deployments()), snapshot.totals)
    for one in list(snapshot.deployments()):
        snapshot.without(one.id)
        snapshot.with_deployment(attrs.evolve(one, fixed_gpus=9))
    assert (list(snapshot.deployments()), snapshot.totals) == before


def test_a_role_is_answered_by_its_pool_or_else_by_the_generic_worker() -> None:
    snapshot = fleet("a/prefill 1x1", "a/worker 2x1")
    a = ParticipantId("ns", "a")
    assert snapshot.answering(a, Role.PREFILL) == pool("a/prefill 1x1")
    assert snapshot.answering(a, Role.DECODE) == pool("a/worker 2x1")
    assert snapshot.answering(ParticipantId("ns", "b"), Role.DECODE) is None
    assert snapshot.pool(key("b/decode")) is None
    assert fleet("a/prefill 1x1").answering(a, Role.DECODE) is None


def test_deployments_that_derive_one_name_are_found_together() -> None:
    first, second = ParticipantId("a-b", "c"), ParticipantId("a", "b-c")
    snapshot = Snapshot.of([Deployment(first), Deployment(second)])
    assert snapshot.named("a-b-c") == {first, second}
    assert snapshot.without(first).named("a-b-c") == {second}
    assert snapshot.without(first).without(second).named("a-b-c") == frozenset()
    assert len(snapshot) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"replicas": -1}, "replicas of ns/a/prefill must be an integer of at least 0: -1"),
        ({"present": True}, "present of ns/a/prefill must be an integer of at least 0: True"),
        ({"reserved": "x" * 99}, "reserved of ns/a/prefill must be an integer of at least 0: 'x"),
        ({"gpus_per_replica": MAX_GPUS_PER_REPLICA + 1}, "must be an integer between 0 and 1000000: 1000001"),
    ],
)
def test_a_pool_is_made_of_counts(changes: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidError, match=told) as caught:
        attrs.evolve(pool("a/prefill 4x1"), **changes)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


def test_a_deployment_holds_its_own_pools_each_role_once() -> None:
    one = pool("a/prefill 1x1")
    with pytest.raises(InvalidError) as caught:
        Deployment(ParticipantId("ns", "b"), (one, one), fixed_gpus=-1)
    assert caught.value.problems == (
        "fixed GPUs must be at least 0: -1",
        "ns/b cannot hold the pool ns/a/prefill",
        "ns/b cannot hold the pool ns/a/prefill",
        "ns/b has two pools of role prefill",
    )


@pytest.mark.parametrize("text", ["ns/a", "a/b.c-d", f"{'n' * 63}/{'x' * 253}"])
def test_a_participant_is_a_namespace_and_a_name(text: str) -> None:
    assert str(ParticipantId.parse(text)) == text


@pytest.mark.parametrize("text", ["a", "NS/a", "ns/A", "ns/", "/a", "ns/a/b", f"ns/{'x' * 254}", "-n/a", "ns/a..b"])
def test_what_is_no_participant_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        ParticipantId.parse(text)


def test_every_problem_of_a_participant_is_told() -> None:
    with pytest.raises(InvalidError) as caught:
        ParticipantId("N", "")
    assert len(caught.value.problems) == 2


def test_names_are_written_as_people_write_them() -> None:
    assert str(key("a/prefill")) == "ns/a/prefill"
    assert key("a/prefill").order == ("ns/a", "prefill")
    assert ParticipantId("ns", "a").dynamo_namespace == "ns-a"
    assert Authority() == Authority("", "")
    assert PoolKey(ParticipantId("ns", "a"), Role.PREFILL) == key("a/prefill")
    assert key("a/prefill") != key("a/decode")

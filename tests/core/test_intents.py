import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpcore.intents import ACQUIRE, RELEASE, Candidate, Intent, Intents, Shelf
from gpcore.pools import Deployment, PoolKey, Snapshot
from gpcore.testing.strategies import deployments, pool_keys, snapshots
from tests.core.words import fleet, key, pool, wishes

WISHES = st.lists(st.builds(Intent, pool_keys(), st.integers(0, 9), st.integers(0, 9).map(float)), max_size=8)
CANDIDATES = st.lists(
    st.builds(
        lambda order, replicas, seen: Candidate(seen, (order, "prefill"), replicas, key(f"{order}/prefill"), 1),
        st.sampled_from("abcdefgh"),
        st.integers(0, 40),
        st.integers(0, 3).map(float),
    ),
    max_size=8,
    unique_by=lambda one: one.order,
)


ODD = -1
"""In the place of a GPU size: the pools of which something is on its way."""


def shelved(intents: Intents, snapshot: Snapshot) -> dict[tuple[int, int], list[Candidate]]:
    """Return every candidate by direction and GPU size, or as an odd one; the oldest first."""
    ways = [(way, intents.shelves(snapshot, way), intents.odd(snapshot, way)) for way in (RELEASE, ACQUIRE)]
    settled = {(way, gpus): sorted(shelf) for way, shelves, _ in ways for gpus, shelf in shelves.items()}
    return settled | {(way, ODD): odd for way, _, odd in ways if odd}


@given(intents=WISHES, snapshot=snapshots())
def test_candidates_are_the_wishes_of_free_pools_of_known_gpus(intents: list[Intent], snapshot: Snapshot) -> None:
    newest = {one.pool: one for one in sorted(intents, key=lambda one: one.seen_at)}
    expected: dict[tuple[int, int], set[PoolKey]] = {}
    for wish in newest.values():
        one = snapshot.pool(wish.pool)
        if one is not None and one.reserved is None and one.gpus_per_replica and one.replicas != wish.replicas:
            settled = one.most == one.least == one.replicas
            place = (ACQUIRE if wish.replicas > one.replicas else RELEASE, one.gpus_per_replica if settled else ODD)
            expected.setdefault(place, set()).add(wish.pool)
    filed = Intents.of(intents, snapshot)
    found = {place: {one.pool for one in shelf} for place, shelf in shelved(filed, snapshot).items()}
    assert found == expected
    for way in (RELEASE, ACQUIRE):
        named = {name for (one, size), names in expected.items() if one == way and size != ODD for name in names}
        assert {one for one in newest if filed.candidate(snapshot, one, way) is not None} == named


@given(first=WISHES, second=WISHES, before=snapshots(), data=st.data())
def test_following_changes_is_filing_anew(
    first: list[Intent], second: list[Intent], before: Snapshot, data: st.DataObject
) -> None:
    changed = data.draw(st.lists(deployments(), max_size=2))
    after = before
    for one in changed:
        after = after.with_deployment(one)
    keys = {pool.key for one in changed for pool in one.pools}
    keys |= {pool.key for one in changed for pool in (before.deployment(one.id) or Deployment(one.id)).pools}
    followed = Intents.of(first, before).follow(after, keys, second)
    anew = Intents.of(followed, after)
    assert shelved(followed, after) == shelved(anew, after)
    assert {*followed} == {*anew}
    assert len(followed) == len({one.pool for one in followed})


@given(intents=WISHES, snapshot=snapshots(), now=st.integers(0, 20).map(float), ttl_s=st.integers(1, 9).map(float))
def test_what_stays_fresh_is_at_most_as_old_as_its_ttl(
    intents: list[Intent], snapshot: Snapshot, now: float, ttl_s: float
) -> None:
    filed = Intents.of(intents, snapshot)
    fresh = filed.fresh(now, ttl_s=ttl_s)
    assert {*fresh} == {one for one in filed if now - one.seen_at <= ttl_s}
    assert shelved(fresh, snapshot) == shelved(Intents.of(fresh, snapshot), snapshot)


@given(intents=WISHES, snapshot=snapshots(), dropped=pool_keys())
def test_what_is_dropped_is_gone_from_every_shelf(intents: list[Intent], snapshot: Snapshot, dropped: PoolKey) -> None:
    filed = Intents.of(intents, snapshot).drop(dropped)
    assert filed.get(dropped) is None
    assert all(one.pool != dropped for shelf in shelved(filed, snapshot).values() for one in shelf)


@given(candidates=CANDIDATES, leaving=st.integers(0, 7))
def test_a_shelf_keeps_the_oldest_first_on_each_level(candidates: list[Candidate], leaving: int) -> None:
    shelf = Shelf()
    for one in candidates:
        shelf = shelf.with_one(one)
    for one in candidates[leaving:]:
        shelf = shelf.without(one)
    kept = candidates[:leaving]
    assert sorted(shelf) == sorted(kept)
    assert shelf.units == sum(one.replicas for one in kept)
    assert all(list(level) == sorted(level) and level for level in shelf.levels.values())
    assert all(one.replicas.bit_length() == digits for digits, level in shelf.levels.items() for one in level)


def test_a_newer_wish_takes_the_place_of_an_older_one_and_never_the_other_way() -> None:
    snapshot = fleet("a/prefill 4x1")
    new, old = Intent(key("a/prefill"), 6, 9.0), Intent(key("a/prefill"), 2, 1.0)
    for order in ((new, old), (old, new)):
        assert [*Intents.of(order, snapshot)] == [new]


def test_a_wish_that_is_met_is_dropped_and_one_whose_pool_is_gone_waits() -> None:
    snapshot = fleet("a/prefill 4x1")
    assert len(Intents.of(wishes("a/prefill 4"), snapshot)) == 0
    waiting = Intents.of(wishes("a/prefill 6"), Snapshot())
    assert len(waiting) == 1
    back = waiting.follow(snapshot, [key("a/prefill")])
    assert [one.replicas for one in back.shelves(snapshot, ACQUIRE)[1]] == [2]


def test_a_wish_that_is_only_promised_is_kept_and_helps_nobody() -> None:
    busy = attrs.evolve(pool("a/prefill 4x1"), reserved=6)
    snapshot = Snapshot.of_pools([busy])
    kept = Intents.of(wishes("a/prefill 6"), snapshot).record(Intent(key("a/prefill"), 4, 5.0))
    assert [one.replicas for one in kept] == [4]
    assert kept.shelves(snapshot, ACQUIRE) == kept.shelves(snapshot, RELEASE) == {}

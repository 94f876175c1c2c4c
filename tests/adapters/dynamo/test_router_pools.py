from hypothesis import given
from hypothesis import strategies as st

from gpadapters.dynamo.router_faults import Kind
from gpadapters.dynamo.router_pools import (
    Bounds,
    Instance,
    Pool,
    RetryBudget,
    Standing,
    advertised,
    again,
    first,
    hopeful,
)
from gpadapters.router.fleet import Condition

BOUNDS = Bounds()
NUMBERS = st.lists(st.integers(0, 9), max_size=5, unique=True)
SERVING, DENIED = Standing.SERVING, Standing.DENIED


def pool(*numbers: int, planned: Standing | None = SERVING, name: str = "a") -> Pool:
    made = Pool("agg", name, BOUNDS, planned=planned)
    made.see(numbers)
    return made


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    made = pool(*draw(NUMBERS), planned=draw(st.none() | st.sampled_from(Standing)))
    for instance in made.instances:
        for _ in range(draw(st.integers(0, 6))):
            instance.failed(draw(st.sampled_from([Kind.FAILED, Kind.UNREACHABLE])), 0.0)
    if draw(st.booleans()):
        made.nobody(0.0)
    return made


@given(st.lists(pools(), min_size=1, max_size=4), st.floats(0, 100))
def test_a_request_begins_in_the_first_pool_that_serves_and_nowhere_else(order: list[Pool], now: float) -> None:
    serving = [one for one in order if one.standing(now) is SERVING]
    place = first(order, now)
    assert (place is None) == (not serving)
    if place is not None:
        assert place.pool is serving[0]
        assert place.instance.usable(now)
        assert not hopeful(order, now)


@given(pools(), st.lists(pools(), max_size=3), st.floats(0, 100), st.data())
def test_what_was_tried_is_not_tried_again(own: Pool, faster: list[Pool], now: float, data: st.DataObject) -> None:
    everybody = [one for each in (own, *faster) for one in each.instances]
    tried = data.draw(st.lists(st.sampled_from(everybody), unique_by=id)) if everybody else []
    place = again(own, faster, tried, now=now)
    if place is not None:
        assert place.instance not in tried
        assert place.pool.standing(now) is SERVING
        assert place.pool is own or own.pick(now, tried) is None


@given(NUMBERS, NUMBERS)
def test_whoever_stays_in_discovery_keeps_what_is_known_of_it(before: list[int], after: list[int]) -> None:
    made = pool(*before)
    known = {one.number: one for one in made.instances}
    made.see(after)
    assert sorted(one.number for one in made.instances) == sorted(after)
    assert all(one is known[one.number] for one in made.instances if one.number in known)


def test_requests_take_turns_and_go_to_whoever_has_less_to_do() -> None:
    made = pool(1, 2, 3)
    picked = [made.pick(0.0) for _ in range(6)]
    assert {one.number for one in picked if one is not None} == {1, 2, 3}
    busy, free = made.instances[0], made.instances[1]
    busy.outstanding = made.instances[2].outstanding = 1
    assert made.pick(0.0) is free


def test_whoever_cannot_be_reached_is_left_alone_at_once_and_twice_as_long_the_next_time() -> None:
    one = Instance(1, BOUNDS)
    one.failed(Kind.UNREACHABLE, 10.0)
    assert not one.usable(14.9)
    assert one.usable(15.0)
    one.failed(Kind.UNREACHABLE, 15.0)
    assert not one.usable(24.9)
    assert one.usable(25.0)
    for _ in range(9):
        one.failed(Kind.UNREACHABLE, one.alone_until)
    before = one.alone_until
    one.failed(Kind.UNREACHABLE, before)
    assert one.alone_until == before + BOUNDS.alone_max_s


def test_whoever_fails_is_left_alone_after_several_failures_in_a_row() -> None:
    one = Instance(1, BOUNDS)
    for _ in range(BOUNDS.failures - 1):
        one.failed(Kind.FAILED, 0.0)
    assert one.usable(0.0)
    one.succeeded()
    for _ in range(BOUNDS.failures):
        assert one.usable(0.0)
        one.failed(Kind.FAILED, 0.0)
    assert not one.usable(0.0)


def test_after_its_time_alone_one_request_tries_it_and_a_good_answer_brings_it_back() -> None:
    one = Instance(1, BOUNDS)
    one.failed(Kind.UNREACHABLE, 0.0)
    one.outstanding = 1
    assert not one.usable(6.0)
    one.succeeded()
    assert one.usable(6.0)


def test_a_pool_whose_router_has_nobody_counts_as_empty_for_a_while() -> None:
    made = pool(1)
    made.nobody(0.0)
    assert made.standing(0.5) is Standing.EMPTY
    assert made.standing(BOUNDS.without_worker_s) is SERVING


def test_waiting_helps_where_replicas_are_missing_and_not_where_they_are_unwell() -> None:
    unwell = pool(1)
    unwell.instances[0].failed(Kind.UNREACHABLE, 0.0)
    cold = pool(1, planned=Standing.COLD)
    assert hopeful([pool(), cold], 0.0)
    assert not hopeful([pool(), unwell], 0.0)


def test_the_model_is_listed_when_each_phase_has_a_pool_that_serves_or_may_be_scaled_up() -> None:
    empty, denied, unheard = pool(), pool(planned=DENIED), pool(planned=None)
    assert advertised([[denied, empty], [empty]], before=False)
    assert not advertised([[empty], [denied]], before=False)
    assert not advertised([[unheard]], before=False)
    assert advertised([[pool(1, planned=None)]], before=False)


@given(st.lists(st.lists(pools(), max_size=3), max_size=2))
def test_a_model_that_was_listed_stays_so_when_its_last_replica_goes(phases: list[list[Pool]]) -> None:
    assert advertised(phases, before=True)


@given(st.integers(0, 200), st.integers(0, 200))
def test_retries_are_a_share_of_requests_and_a_burst(requests: int, more: int) -> None:
    budget = RetryBudget(BOUNDS)
    retries = 0
    for _ in range(requests):
        budget.request()
        retries += budget.spend()
    for _ in range(more):
        retries += budget.spend()
    assert retries <= BOUNDS.retry_burst + requests * BOUNDS.retry_share + 1e-6


def test_the_words_for_the_standing_of_a_pool_are_those_of_the_other_transport() -> None:
    assert [Standing(one) for one in Condition] == [*Standing]

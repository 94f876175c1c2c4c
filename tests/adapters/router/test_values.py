"""The pure parts of the data path: counting, breaking, budgets, choosing, reading bodies."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpadapters.router.asking import Ask, Defaults, read, wish
from gpadapters.router.choose import Chosen, Ways, first_serving
from gpadapters.router.fleet import Address, Condition, Pool, RetryBudget
from gpadapters.router.measures import Histogram, PoolMeasures
from gpadapters.router.planned import conditions
from gpadapters.router.refusals import Refusal
from gpadapters.router.settings import Admission, Breaking, Retries
from gpadapters.router.sources import read_endpoints, read_pools
from gpadapters.router.stream import Tap
from gpcore.errors import ConfigError, InvalidError
from gpcore.wire.routing import routing_config
from tests.routerworld.behave import EVENTS, stream
from tests.routerworld.routers import aggregated

A, B = Address("a", 1), Address("b", 1)


def _pool(*addresses: Address, name: str = "ns", breaking: Breaking | None = None) -> Pool:
    measures = PoolMeasures(name, "backend", "0")
    pool = Pool(name, "agg", measures, admission=Admission(in_flight=10), breaking=breaking or Breaking())
    pool.serve_from(addresses)
    return pool


@given(st.lists(st.integers(1, 400), max_size=200))
def test_events_and_tokens_of_a_stream_are_counted_wherever_it_is_cut(sizes: list[int]) -> None:
    tap, data = Tap(), stream()
    for size in [*sizes, len(data)]:
        tap.passed(data[:size])
        data = data[size:]
    assert tap.events == EVENTS + 2
    assert tap.tokens() == (7, 3)


def test_tokens_that_the_engine_does_not_tell_are_one_an_event() -> None:
    tap = Tap()
    tap.passed(b'data: {"choices":[]}\n\n' * 5 + b"data: [DONE]\n\n")
    assert tap.tokens() == (None, 5)


def test_an_endpoint_is_left_alone_after_failures_in_a_row_and_then_tried_once() -> None:
    (endpoint,) = (pool := _pool(A)).endpoints
    for _ in range(4):
        endpoint.failed(0.0)
    assert pool.condition(0.0) is Condition.SERVING
    endpoint.failed(0.0)
    assert (pool.condition(4.9), pool.pick(4.9), endpoint.state) == (Condition.UNHEALTHY, None, "open")
    assert pool.pick(5.0) is endpoint
    endpoint.begin()
    assert (pool.pick(5.0), endpoint.state) == (None, "half-open")
    endpoint.end()
    endpoint.failed(5.0)
    assert (pool.pick(14.9), pool.pick(15.0)) == (None, endpoint)
    endpoint.succeeded()
    assert (pool.pick(15.0), endpoint.state) == (endpoint, "closed")


def test_an_endpoint_that_fails_more_often_than_not_is_ejected_but_never_most_of_a_pool() -> None:
    pool = _pool(A, B, breaking=Breaking(failures=100, outlier_weight=0.2))
    for endpoint in pool.endpoints:
        for _ in range(20):
            endpoint.failed(0.0)
            endpoint.failed(0.0)
            if endpoint.state == "closed":
                endpoint.succeeded()
    assert [endpoint.state for endpoint in pool.endpoints] == ["open", "closed"]


def test_the_least_outstanding_endpoint_is_chosen_and_equals_take_turns() -> None:
    pool = _pool(A, B)
    first, second = pool.endpoints
    assert {pool.pick(0.0) for _ in range(2)} == {first, second}
    first.begin()
    assert [pool.pick(0.0) for _ in range(4)] == [second] * 4
    assert pool.pick(0.0, [second]) is first


def test_endpoints_that_stay_keep_what_is_known_of_them() -> None:
    pool = _pool(A, B)
    kept = pool.endpoints[0]
    gone = pool.serve_from([A])
    assert pool.endpoints == (kept,)
    assert [(one.address, one.removed) for one in gone] == [(B, True)]


@given(st.integers(0, 2000), st.floats(0, 1), st.integers(0, 50))
def test_retries_are_never_more_than_their_share_and_the_burst(requests: int, share: float, burst: int) -> None:
    budget = RetryBudget(Retries(share=share, burst=burst))
    spent = 0
    for _ in range(requests):
        budget.request()
        spent += budget.spend()
    assert spent <= share * requests + burst + 1e-6


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)
    assert list(histogram.lines("n", 'a="b"')) == [
        'n_bucket{a="b",le="1.0"} 2',
        'n_bucket{a="b",le="2.0"} 3',
        'n_bucket{a="b",le="+Inf"} 4',
        'n_sum{a="b"} 102.0',
        'n_count{a="b"} 4',
    ]


def _ways(pools: dict[str, Pool]) -> Ways:
    table = routing_config(json.dumps(aggregated(*pools)).encode()).table
    return Ways(table, {("agg", name): pool for name, pool in pools.items()})


@pytest.mark.parametrize(
    ("conditions_", "expected"),
    [
        ({}, "slow"),
        ({"slow": Condition.COLD}, "middle"),
        ({"slow": Condition.DENIED, "middle": Condition.DRAINING}, "fast"),
    ],
)
def test_a_pool_that_cannot_serve_is_passed_over_towards_the_faster_ones(
    conditions_: dict[str, Condition], expected: str
) -> None:
    pools = {name: _pool(A, name=name) for name in ("fast", "middle", "slow")}
    for name, condition in conditions_.items():
        pools[name].planned = condition
    way = _ways(pools).for_serving(Defaults().wish(), 10)
    assert not isinstance(way, Refusal)
    chosen = first_serving(way, 0.0)
    assert isinstance(chosen, Chosen)
    assert chosen.pool.name == expected
    assert {pool.name: condition for pool, condition in chosen.left_out} == conditions_
    assert way.order[0].name == "slow", "the grid's own result stays as it is"


def test_pools_without_replicas_are_waited_for_and_sick_ones_are_not() -> None:
    pools = {name: _pool(name=name) for name in ("fast", "slow")}
    way = _ways(pools).for_serving(Defaults().wish(), 10)
    assert not isinstance(way, Refusal)
    assert first_serving(way, 0.0) is None
    pools["fast"].serve_from([A])
    for _ in range(5):
        pools["fast"].endpoints[0].failed(0.0)
    assert isinstance(first_serving(way, 0.0), Refusal)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_ask_or_a_refusal(data: bytes) -> None:
    assert isinstance(read(data), Ask | Refusal)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(json_values, json_values, json_values, st.none() | st.binary(max_size=10))
def test_any_targets_give_a_pool_or_a_refusal(
    ttft: object, itl: object, priority: object, header: bytes | None
) -> None:
    extension = {"router": {"ttft_target": ttft, "itl_target": itl}, "agent_hints": {"priority": priority}}
    ask = read(json.dumps({"model": "m", "nvext": extension}).encode())
    if isinstance(ask, Refusal):
        return
    wanted = wish(ask, header, None, defaults=Defaults())
    way = _ways({"fast": _pool(name="fast"), "slow": _pool(name="slow")}).for_serving(wanted, 10)
    assert isinstance(way, Refusal) or way.order[0].name in {"fast", "slow"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://h",
        "https://h:1",
        "http://h:1/path",
        "http://u:p@h:1",
        "http://h:99999",
        "h:x",
        "ftp://h:1",
    ],
)
def test_an_endpoint_is_a_host_and_a_port_and_nothing_else(url: str) -> None:
    with pytest.raises(InvalidError):
        Address.parse(url)


def test_endpoints_are_read_from_arguments_and_files() -> None:
    assert read_pools(["p=http://a:1", "p=b:1", "q=http://[::1]:2/"]) == {"p": (A, B), "q": (Address("::1", 2),)}
    assert read_endpoints(b'{"p": ["http://a:1", "http://a:1"], "q": []}') == {"p": (A,), "q": ()}


def test_everything_that_is_wrong_with_endpoints_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_pools(["nothing", "p=https://a:1", "=x"])
    assert len(caught.value.problems) == 3
    for data in (b"", b"[]", b'{"p": "x"}', b'{"p": [1]}', b"\xff", b"[" * 100_000):
        with pytest.raises(ConfigError):
            read_endpoints(data)


def test_what_the_planner_says_becomes_a_condition_of_each_pool() -> None:
    pools = [
        {"participant": "ns/a", "role": "prefill", "replicas": 1, "ready": 1},
        {"participant": "ns/a", "role": "decode", "replicas": 0, "gpus_per_replica": 4},
        {"participant": "ns/b", "role": "worker", "replicas": 0, "present": 2},
    ]
    found = conditions(json.dumps({"pools": pools}).encode(), b'{"headroom": 2}')
    assert found == {
        ("prefill", "ns-a"): Condition.SERVING,
        ("decode", "ns-a"): Condition.DENIED,
        ("agg", "ns-a"): Condition.DENIED,
        ("worker", "ns-b"): Condition.DRAINING,
        ("agg", "ns-b"): Condition.DRAINING,
    }

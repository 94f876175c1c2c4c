"""The router between real clients and pools that behave badly."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.waiting import eventually
from tests.routerworld import FakePool, Raw, RouterProcess, aggregated, chat, disaggregated
from tests.routerworld.answers import ask, took
from tests.routerworld.behave import JSON, stream

Start = Callable[..., RouterProcess]
StartPool = Callable[..., FakePool]
Connect = Callable[..., Raw]


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Callable[..., FakePool]]:
    started: list[FakePool] = []
    folder = tmp_path / "pools"
    folder.mkdir()

    def start(name: str, manner: str = "json") -> FakePool:
        started.append(FakePool(name, folder, manner))
        return started[-1]

    yield start
    for pool in started:
        pool.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[RouterProcess] = []

    def run(*pools: FakePool, config: dict[str, object] | None = None, flags: tuple[str, ...] = ()) -> RouterProcess:
        names = list(dict.fromkeys(pool.name for pool in pools)) or ["slow"]
        folder = tmp_path / f"router-{len(started)}"
        folder.mkdir()
        named = [f"{pool.name}={pool.url}" for pool in pools] or ["slow=http://127.0.0.1:1"]
        started.append(RouterProcess(folder, config or aggregated(*names), pools=named, flags=flags))
        return started[-1]

    yield run
    for router in started:
        router.__exit__()


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda router, **how: stack.enter_context(Raw(router.port, **how))


def test_an_answer_comes_as_it_was_sent_and_says_how_it_was_routed(pools: StartPool, start: Start) -> None:
    pool = pools("slow")
    answer = ask(start(pool).port, chat())
    assert (answer.status, answer.body) == (200, JSON)
    assert answer.headers["x-gp-pool"] == "slow"
    assert answer.headers["x-gp-cell"] == "1,1"
    assert answer.headers["x-gp-attempts"] == "1"
    assert answer.headers["x-gp-targets"] == "ttft=middle, itl=middle"


def test_a_stream_comes_byte_for_byte(pools: StartPool, start: Start) -> None:
    answer = ask(start(pools("slow", "stream")).port, chat(stream=True))
    assert answer.body == stream()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_tokens_and_times_are_counted_in_the_series_of_the_peer(pools: StartPool, start: Start) -> None:
    router = start(pools("slow-pool", "stream"))
    ask(router.port, chat(stream=True))
    namespace = {"dynamo_namespace": "slow_pool"}
    peer = "dynamo_component_router_"
    assert router.measure(f"{peer}requests_total", **namespace) == 1
    assert router.measure(f"{peer}requests_started_total", **namespace) == 1
    assert router.measure(f"{peer}input_sequence_tokens_sum", **namespace) == 7
    assert router.measure(f"{peer}output_sequence_tokens_sum", **namespace) == 3
    assert router.measure(f"{peer}time_to_first_token_seconds_count", **namespace) == 1
    assert router.measure(f"{peer}inter_token_latency_seconds_count", **namespace) >= 49


def test_targets_of_a_request_choose_its_pool_and_the_header_wins(pools: StartPool, start: Start) -> None:
    fast, slow = pools("fast"), pools("slow")
    router = start(fast, slow)
    by_body = ask(router.port, chat(nvext={"router": {"ttft_target": 0, "itl_target": 1}}))
    assert (by_body.headers["x-gp-pool"], by_body.headers["x-gp-targets"]) == ("fast", "ttft=nvext, itl=nvext")
    by_header = ask(router.port, chat(headers="x-slo-ttft-ms: 900\r\n", nvext={"router": {"ttft_target": 0}}))
    assert (by_header.headers["x-gp-pool"], by_header.headers["x-gp-targets"]) == ("slow", "ttft=header, itl=middle")


@pytest.mark.parametrize("target", ["200", True, [1], {}])
def test_a_target_that_is_no_number_is_refused(target: object, pools: StartPool, start: Start) -> None:
    pool = pools("slow")
    answer = ask(start(pool).port, chat(nvext={"router": {"ttft_target": target}}))
    assert answer.status == 400
    assert "ttft_target" in answer.error["message"]
    assert not pool.requests


def test_what_a_client_may_not_say_does_not_go_on(pools: StartPool, start: Start) -> None:
    pool = pools("slow")
    headers = (
        "Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\n"
        "X-Prefiller-Host-Port: evil:1\r\nx-gp-pool: evil\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1\r\n"
        "Accept-Encoding: gzip\r\nAuthorization: Bearer secret\r\nX-Mine: yes\r\n"
    )
    ask(start(pool).port, chat(headers=headers))
    (request,) = pool.requests
    names = [line.partition(":")[0].lower() for line in request.split("\r\n")[1:] if line]
    assert sorted(names) == ["authorization", "content-length", "content-type", "host", "x-mine"]
    assert f"host: 127.0.0.1:{pool.port}\r\n" in request


def test_what_is_for_one_hop_does_not_come_back(pools: StartPool, start: Start) -> None:
    answer = ask(start(pools("slow", "named")).port, chat())
    assert answer.headers["x-gp-pool"] == "slow"
    assert not {"x-secret", "keep-alive", "connection"} & set(answer.headers)


def test_a_disaggregated_request_goes_to_the_decode_pool_with_the_prefill_endpoint(
    pools: StartPool, start: Start
) -> None:
    prefill, decode = pools("p"), pools("d")
    router = start(prefill, decode, config=disaggregated(["p"], ["d"]))
    answer = ask(router.port, chat())
    assert (answer.headers["x-gp-pool"], answer.headers["x-gp-prefill-pool"]) == ("d", "p")
    assert f"x-prefiller-host-port: 127.0.0.1:{prefill.port}\r\n" in decode.requests[0]
    assert not prefill.requests
    assert router.measure("gp_router_in_flight") == 0
    peer = "dynamo_component_router_"
    for name in ("requests_started_total", "requests_total", "time_to_first_token_seconds_count"):
        assert router.measure(peer + name, dynamo_namespace="p", dynamo_component="prefill") == 1
        assert router.measure(peer + name, dynamo_namespace="d", dynamo_component="decode") == 1
    assert router.measure(f"{peer}input_sequence_tokens_sum", dynamo_namespace="p") == 7


def test_two_calls_hand_on_what_the_prefill_endpoint_says(pools: StartPool, start: Start) -> None:
    prefill, decode = pools("p", "prefill"), pools("d", "stream")
    router = start(prefill, decode, config=disaggregated(["p"], ["d"]), flags=("--prefill", "call"))
    answer = ask(router.port, chat(stream=True, max_tokens=50, stream_options={"include_usage": True}))
    assert answer.body == stream()
    (first,), (second,) = map(json.loads, prefill.told("body")), map(json.loads, decode.told("body"))
    assert (first["max_tokens"], first["stream"], "stream_options" in first) == (1, False, False)
    assert first["kv_transfer_params"]["do_remote_decode"] is True
    assert (second["max_tokens"], second["stream"]) == (50, True)
    assert second["kv_transfer_params"] == {"remote_engine_id": "e", "remote_block_ids": [1, 2]}
    assert "x-prefiller-host-port" not in decode.requests[0]
    assert router.measure("gp_router_in_flight") == router.measure("gp_router_outstanding") == 0


@pytest.mark.parametrize("manner", ["die-first", "garbage", "error", "json", "silent"])
def test_a_prefill_that_fails_leaves_the_prompt_to_the_decode_endpoint(
    manner: str, pools: StartPool, start: Start
) -> None:
    prefill, decode = pools("p", manner), pools("d")
    flags = ("--prefill", "call", "--first-byte-timeout", "0.5")
    router = start(prefill, decode, config=disaggregated(["p"], ["d"]), flags=flags)
    assert ask(router.port, chat()).body == JSON
    assert json.loads(decode.told("body")[0]) == {"model": "m", "messages": []}
    assert router.measure("gp_router_in_flight") == router.measure("gp_router_outstanding") == 0


def test_a_client_that_leaves_during_the_prefill_ends_it(pools: StartPool, start: Start, connect: Connect) -> None:
    prefill, decode = pools("p", "silent"), pools("d")
    router = start(prefill, decode, config=disaggregated(["p"], ["d"]), flags=("--prefill", "call"))
    raw = connect(router).send(chat())
    eventually(lambda: prefill.requests)
    raw.close()
    eventually(lambda: prefill.told("closed"), within_s=1.0)
    eventually(lambda: router.measure("gp_router_outstanding") == 0)
    assert not decode.requests


@pytest.mark.parametrize("manner", ["die-first", "garbage", "unavailable", "large-head"])
def test_a_failure_before_the_first_byte_is_tried_again_in_a_faster_pool(
    manner: str, pools: StartPool, start: Start
) -> None:
    fast, slow = pools("fast"), pools("slow", manner)
    router = start(fast, slow, config=aggregated("fast", "slow", retry=True))
    answer = ask(router.port, chat())
    assert (answer.status, answer.body) == (200, JSON)
    assert (answer.headers["x-gp-pool"], answer.headers["x-gp-attempts"]) == ("fast", "2")
    assert len(fast.requests) == len(slow.requests) == 1


def test_an_endpoint_that_refuses_is_left_for_another_of_its_pool(pools: StartPool, start: Start) -> None:
    alive, dead = pools("slow"), pools("slow")
    dead.kill()
    router = start(alive, dead)
    answers = [ask(router.port, chat()) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 6


def test_nothing_is_tried_again_in_a_slower_pool_or_without_being_configured(pools: StartPool, start: Start) -> None:
    fast, slow = pools("fast", "unavailable"), pools("slow")
    router = start(fast, slow, config=aggregated("fast", "slow", mapping=[[0, 0], [0, 0]], retry=True))
    assert ask(router.port, chat()).status == 503
    assert not slow.requests
    plain = start(pools("fast"), pools("slow", "die-first"))
    assert ask(plain.port, chat()).status == 502


def test_retries_are_a_share_of_the_requests(pools: StartPool, start: Start) -> None:
    fast, slow = pools("fast"), pools("slow", "unavailable")
    config = aggregated("fast", "slow", retry=True)
    router = start(fast, slow, config=config, flags=("--retry-burst", "1", "--retry-share", "0.1"))
    with Raw(router.port) as raw:
        statuses = [raw.send(chat()).answer().status for _ in range(4)]
    assert statuses == [200, 503, 503, 503]
    assert router.measure("gp_router_retries_denied_total") == 3


def test_an_endpoint_that_keeps_failing_is_left_alone_and_its_pool_passed_over(pools: StartPool, start: Start) -> None:
    fast, slow = pools("fast"), pools("slow", "die-first")
    router = start(fast, slow, flags=("--retry-burst", "0"))
    statuses = [ask(router.port, chat()).status for _ in range(5)]
    assert statuses == [502] * 5
    answer = ask(router.port, chat())
    assert answer.status == 200
    assert (answer.headers["x-gp-pool"], answer.headers["x-gp-left-out"]) == ("fast", "slow=unhealthy")
    assert router.measure("gp_router_breaker_open", dynamo_namespace="slow") == 1
    assert len(slow.requests) == 5


def test_all_endpoints_failing_is_an_answer_at_once(pools: StartPool, start: Start) -> None:
    router = start(pools("slow", "die-first"), flags=("--retry-burst", "0"))
    for _ in range(5):
        ask(router.port, chat())
    answer = ask(router.port, chat())
    assert (answer.status, answer.error["type"]) == (503, "no_healthy_endpoint")
    assert answer.headers["retry-after"] == "1"


def test_a_connection_that_was_closed_while_idle_is_nobody_s_failure(pools: StartPool, start: Start) -> None:
    pool = pools("slow", "once")
    router = start(pool)
    with Raw(router.port) as raw:
        answers = [raw.send(chat()).answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert router.measure("gp_router_breaker_open") == router.measure("gp_router_retries_total") == 0


def test_a_silent_pool_is_given_up_after_its_time(pools: StartPool, start: Start) -> None:
    pool = pools("slow", "silent")
    began = time.monotonic()
    answer = ask(start(pool, flags=("--first-byte-timeout", "0.3")).port, chat())
    assert (answer.status, answer.error["type"]) == (504, "upstream_timeout")
    assert 0.25 < took(began) < 5
    eventually(lambda: pool.told("closed"))


@pytest.mark.parametrize("manner", ["die", "garbage-midway"])
def test_a_stream_that_dies_ends_with_one_event_that_says_so_and_is_not_tried_again(
    manner: str, pools: StartPool, start: Start
) -> None:
    fast, slow = pools("fast", "stream"), pools("slow", manner)
    router = start(fast, slow, config=aggregated("fast", "slow", retry=True))
    with Raw(router.port) as raw:
        answer = raw.send(chat(stream=True)).answer()
        assert raw.closed()
    *before, last = [event for event in answer.body.split(b"\n\n") if event]
    assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "upstream_error"
    assert before
    assert b"[DONE]" not in answer.body
    assert not fast.requests


def test_a_stream_that_stalls_is_ended_after_its_time(pools: StartPool, start: Start) -> None:
    router = start(pools("slow", "stall"), flags=("--between-bytes-timeout", "0.3"))
    answer = ask(router.port, chat(stream=True))
    assert b"upstream_timeout" in answer.body
    assert b"[DONE]" not in answer.body


def test_an_answer_that_is_not_whole_is_not_passed_off_as_whole(pools: StartPool, start: Start) -> None:
    router = start(pools("slow", "die-json"))
    with Raw(router.port) as raw, pytest.raises((EOFError, ConnectionError)):
        raw.send(chat()).answer()


def test_a_pool_that_sends_a_byte_at_a_time_is_waited_for(pools: StartPool, start: Start) -> None:
    assert ask(start(pools("slow", "drip")).port, chat()).body == JSON


@pytest.mark.parametrize("manner", ["until-closed", "continue"])
def test_every_way_to_end_or_begin_an_answer_is_understood(manner: str, pools: StartPool, start: Start) -> None:
    with Raw(start(pools("slow", manner)).port) as raw:
        assert [raw.send(chat()).answer().body for _ in range(3)] == [JSON] * 3


def test_an_answer_that_nobody_asked_for_goes_to_nobody(pools: StartPool, start: Start) -> None:
    with Raw(start(pools("slow", "extra")).port) as raw:
        assert [raw.send(chat()).answer().body for _ in range(4)] == [JSON] * 4
        assert not raw.rest


@pytest.mark.parametrize("manner", ["silent", "slow-stream", "late"])
@pytest.mark.parametrize("leave", ["close", "reset", "half"])
def test_a_client_that_leaves_ends_its_upstream_within_a_second(
    manner: str, leave: str, pools: StartPool, start: Start
) -> None:
    pool = pools("slow", manner)
    router = start(pool)
    raw = Raw(router.port).send(chat(stream=True))
    eventually(lambda: pool.requests)
    if leave == "half":
        raw.socket.shutdown(1)
    else:
        getattr(raw, leave)()
    eventually(lambda: pool.told("closed"), within_s=1.0)
    eventually(lambda: router.measure("gp_router_in_flight") == 0)
    raw.close()


def test_a_client_that_does_not_read_holds_little_and_loses_nothing(pools: StartPool, start: Start) -> None:
    router = start(pools("slow", "endless"))
    before = router.resident_kib()
    raw = Raw(router.port, receive_bytes=4096).send(chat(stream=True))
    time.sleep(1.5)
    assert router.resident_kib() - before < 4096
    assert ask(router.port, b"GET /v1/models HTTP/1.1\r\nHost: r\r\n\r\n").status == 200
    for _ in range(20):
        assert len(raw.chunk() if raw.rest else (raw.head(), raw.chunk())[1]) > 0
    raw.close()
    eventually(lambda: router.measure("gp_router_in_flight") == 0)


def test_a_full_pool_turns_away_the_least_important_first(pools: StartPool, start: Start) -> None:
    pool = pools("slow", "silent")
    router = start(pool, flags=("--max-in-flight", "20"))
    held = [Raw(router.port).send(chat()) for _ in range(16)]
    eventually(lambda: len(pool.requests) == 16)
    low = ask(router.port, chat(nvext={"agent_hints": {"priority": -1}}))
    assert (low.status, low.headers["retry-after"]) == (429, "1")
    held += [Raw(router.port).send(chat()) for _ in range(3)]
    eventually(lambda: len(pool.requests) == 19)
    assert ask(router.port, chat()).status == 429
    high = Raw(router.port).send(chat(nvext={"agent_hints": {"priority": 5}}))
    eventually(lambda: len(pool.requests) == 20)
    assert ask(router.port, chat(nvext={"agent_hints": {"priority": 5}})).status == 429
    for raw in [*held, high]:
        raw.close()
    eventually(lambda: router.measure("gp_router_in_flight") == 0)
    assert router.measure("gp_router_shed_total") == 3


def _pools_file(tmp_path: Path, **pools: list[str]) -> Path:
    path = tmp_path / "endpoints.json"
    path.write_text(json.dumps(pools))
    return path


def test_a_request_waits_for_the_first_replica_and_counts_as_demand(
    tmp_path: Path, pools: StartPool, connect: Connect
) -> None:
    path = _pools_file(tmp_path, slow=[])
    with RouterProcess(tmp_path, aggregated("slow"), flags=("--pools-file", str(path))) as router:
        raw = connect(router).send(chat())
        eventually(lambda: router.measure("gp_router_waiting") == 1)
        assert router.measure("dynamo_component_router_requests_started_total") == 1
        models = json.loads(ask(router.port, b"GET /v1/models HTTP/1.1\r\nHost: r\r\n\r\n").body)
        assert [(one["id"], one["cold"]) for one in models["data"]] == [("m", True)]
        _pools_file(tmp_path, slow=[pools("slow").url])
        assert raw.answer().body == JSON
        assert router.measure("gp_router_waiting") == 0


def test_a_request_waits_for_a_replica_only_so_long(tmp_path: Path) -> None:
    path = _pools_file(tmp_path, slow=[])
    flags = ("--pools-file", str(path), "--wait-for-replica", "0.3")
    with RouterProcess(tmp_path, aggregated("slow"), flags=flags) as router:
        answer = ask(router.port, chat())
        assert (answer.status, answer.error["type"]) == (503, "no_replica")
        assert "retry-after" in answer.headers


def test_an_empty_pool_is_passed_over_towards_a_faster_one(pools: StartPool, start: Start) -> None:
    router = start(pools("fast"), config=aggregated("fast", "slow"))
    answer = ask(router.port, chat())
    assert (answer.headers["x-gp-pool"], answer.headers["x-gp-left-out"]) == ("fast", "slow=empty")


def _failed_more_than(router: RouterProcess, times: float) -> bool:
    return router.measure("gp_router_reloads_total", result="failed") > times


def test_a_bad_configuration_leaves_the_old_one_serving_and_a_good_one_takes_over(
    pools: StartPool, start: Start
) -> None:
    router = start(pools("fast"), pools("slow"))
    for bad in ("", "{", '{"mode": "agg"}', json.dumps(aggregated("slow"))[:-20]):
        failed = router.measure("gp_router_reloads_total", result="failed")
        router.reconfigure(bad)
        eventually(partial(_failed_more_than, router, failed))
        assert ask(router.port, chat()).headers["x-gp-pool"] == "slow"
    router.config.unlink()
    eventually(lambda: "cannot be read" in router.log)
    assert ask(router.port, chat()).headers["x-gp-pool"] == "slow"
    router.reconfigure(json.dumps(aggregated("fast", "slow", mapping=[[0, 0], [0, 0]])))
    eventually(lambda: ask(router.port, chat()).headers["x-gp-pool"] == "fast")


def test_a_router_that_is_told_to_stop_ends_what_is_under_way(pools: StartPool, start: Start, connect: Connect) -> None:
    pool = pools("slow", "slow-stream")
    router = start(pool, flags=("--drain-linger", "0.5", "--drain-grace", "20"))
    raw = connect(router).send(chat(stream=True))
    raw.head()
    router.stop()
    eventually(lambda: router.ask_admin("/readyz")[0] == 503)
    assert router.ask_admin("/healthz")[0] == 200
    assert ask(router.port, b"GET /v1/models HTTP/1.1\r\nHost: r\r\n\r\n").status == 200
    parts = []
    while part := raw.chunk():
        parts.append(part)
    assert b"".join(parts).endswith(b"data: [DONE]\n\n")
    assert raw.closed()
    eventually(lambda: not router.running)


def test_what_does_not_end_within_the_grace_is_told_so(pools: StartPool, start: Start, connect: Connect) -> None:
    router = start(pools("slow", "stall"), flags=("--drain-grace", "0.3"))
    raw = connect(router).send(chat(stream=True))
    raw.head()
    router.stop()
    assert raw.closed()
    assert b'"type":"stopping"' in raw.rest
    eventually(lambda: not router.running)


def test_requests_that_come_together_are_answered_in_order(pools: StartPool, start: Start) -> None:
    with Raw(start(pools("slow")).port) as raw:
        raw.send(chat() + b"GET /v1/models HTTP/1.1\r\nHost: r\r\n\r\n" + chat(path="/v1/nothing") + chat())
        answers = [raw.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 404, 200]
    assert answers[0].body == answers[3].body == JSON


def test_a_thousand_requests_at_once_on_one_connection_are_answered(start: Start) -> None:
    with Raw(start().port) as raw:
        raw.send(b"GET /v1/models HTTP/1.1\r\nHost: r\r\n\r\n" * 1000)
        assert {raw.answer().status for _ in range(1000)} == {200}


def test_requests_that_wait_for_their_turn_are_bounded(pools: StartPool, start: Start) -> None:
    pool = pools("slow")
    with Raw(start(pool).port) as raw:
        raw.send(chat() * 200)
        assert raw.closed()
        statuses = [int(part[:3]) for part in raw.rest.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200] * 17 + [503]
    assert len(pool.requests) == 17

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpadapters.dynamo.router_requests import Defaults, asked, finishes, forwarded, told
from gpcore.routing import Phase, Route, RouteRequest, Unroutable, route
from gpcore.wire import dumps, routing_config
from tests.routerworld.routers import aggregated, disaggregated

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
NAMES = ("token_ids", "router", "routing", "extra_args")
TARGETS = st.dictionaries(st.sampled_from(["ttft_target", "itl_target", "priority"]), JSON, max_size=3)
PAYLOADS = st.one_of(JSON, st.dictionaries(st.sampled_from(NAMES), st.one_of(JSON, TARGETS), max_size=4))
PHASES = st.sampled_from(Phase)
IDS = st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=20)
TABLES = [routing_config(dumps(one)).table for one in (aggregated("a", "b"), disaggregated(["p", "q"], ["d", "e"]))]


def packed(ids: list[int]) -> bytes:
    return struct.pack(f"<{len(ids)}i", *ids)


@given(PAYLOADS, PHASES)
def test_any_payload_is_routed_or_refused_by_name(payload: object, phase: Phase) -> None:
    for table in TABLES:
        assert isinstance(route(table, asked(payload, phase)), Route | Unroutable)


@given(IDS, PHASES)
def test_ids_that_come_packed_are_as_many_as_in_a_list(ids: list[int], phase: Phase) -> None:
    assert asked({"token_ids": packed(ids)}, phase) == asked({"token_ids": ids}, phase)
    assert asked({"token_ids": ids}, phase).length == len(ids)


@given(IDS, st.dictionaries(st.sampled_from(["model", "router", "x"]), JSON, max_size=3))
def test_a_request_goes_on_as_it_came_with_its_ids_in_a_list(ids: list[int], rest: dict[str, Any]) -> None:
    whole = {**rest, "token_ids": ids}
    assert forwarded(whole) is whole
    assert forwarded({**rest, "token_ids": packed(ids)}) == whole


def test_ids_that_are_cut_off_are_refused_and_not_counted() -> None:
    refused = route(TABLES[1], asked({"token_ids": b"12345"}, Phase.PREFILL))
    assert isinstance(refused, Unroutable)
    assert "isl must be a number" in str(refused)
    missing = route(TABLES[1], asked({}, Phase.PREFILL))
    assert str(missing) == "isl is needed"


def test_targets_and_priority_are_read_where_the_frontend_puts_them() -> None:
    payload = {"token_ids": [1, 2], "router": {"ttft_target": 100.0, "itl_target": 0}, "routing": {"priority": 3}}
    assert asked(payload, Phase.AGG, defaults=Defaults(7.0, 8.0)) == RouteRequest(Phase.AGG, 2, 100.0, 0, 3)


def test_older_frontends_put_targets_elsewhere_and_the_newer_place_wins() -> None:
    older: dict[str, object] = {"token_ids": [], "extra_args": {"ttft_target": 1.0, "itl_target": 2.0}, "routing": None}
    assert asked(older, Phase.AGG)[2:4] == (1.0, 2.0)
    assert asked({**older, "router": {"ttft_target": 3.0}}, Phase.AGG)[2:4] == (3.0, 2.0)


def test_what_a_request_does_not_say_is_what_the_router_was_started_with() -> None:
    assert asked({"token_ids": []}, Phase.AGG, defaults=Defaults(7.0, None))[2:4] == (7.0, None)


def test_what_is_logged_begins_as_the_peers_log_does() -> None:
    request = RouteRequest(Phase.AGG, 3, 900.0, None, 7)
    found = route(TABLES[0], request)
    assert isinstance(found, Route)
    assert told(request, found) == (
        "Routing agg request: ISL=3, TTFT_target=900.0ms, ITL_target=Nonems, priority=7 -> pool 1 (b); retry_order=[1]"
    )
    for phase, begins in ((Phase.PREFILL, "prefill request: ISL=3, TTFT"), (Phase.DECODE, "decode request: context_l")):
        other = RouteRequest(phase, 3, 900.0, 5)
        found = route(TABLES[1], other)
        assert isinstance(found, Route)
        assert told(other, found).startswith(f"Routing {begins}")


@given(JSON)
def test_only_a_reason_to_finish_completes_an_answer(item: object) -> None:
    assert finishes(item) == (isinstance(item, dict) and item.get("finish_reason") is not None)
    assert finishes({"token_ids": [], "finish_reason": "stop"})
    assert not finishes({"token_ids": [1], "finish_reason": None})

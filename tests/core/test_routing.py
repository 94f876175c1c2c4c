import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gpcore.errors import InvalidError
from gpcore.grids import Axis, RoutingGrid
from gpcore.routing import (
    MAX_POOLS,
    REFUSED,
    Aggregated,
    BadValue,
    ByPriority,
    Destination,
    Disaggregated,
    Fault,
    InCell,
    Override,
    Phase,
    Route,
    RouteRequest,
    RoutingTable,
    Selection,
    Unroutable,
    route,
    route_batch,
)
from gpcore.wire import dumps, routing_config
from tests.core.routing_oracle import selected
from tests.core.routing_worlds import Document, chosen_phase, configurations, requests

CORPUS = Path(__file__).parents[1] / "corpus" / "router_targets"
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


def table_of(document: Document) -> RoutingTable:
    return routing_config(dumps(document)).table


def asked(phase: str, request: Document) -> RouteRequest:
    length = request.get("context_length" if phase == "decode" else "isl")
    return RouteRequest(phase, length, request.get("ttft"), request.get("itl"), request.get("priority"))


def pools(*priorities: int) -> tuple[Destination, ...]:
    return tuple(Destination(at, f"ns-{at}", priority) for at, priority in enumerate(priorities))


def agg(*cells: int, priorities: tuple[int, ...] = (0, 1, 2), retry: bool = False, **more: Any) -> Aggregated:  # noqa: ANN401
    axes = (Axis("ttft", 0, 100, len(cells)), Axis("itl", 0, 100, 1))
    return Aggregated(Selection(Phase.AGG, RoutingGrid(axes, cells), pools(*priorities), retry=retry, **more))


PREFILL = Selection(Phase.PREFILL, RoutingGrid((Axis("isl", 0, 100, 1), Axis("ttft", 0, 100, 2)), (0, 1)), pools(0, 1))
DECODE = Selection(
    Phase.DECODE, RoutingGrid((Axis("context_length", 0, 100, 1), Axis("itl", 0, 100, 2)), (0, 1)), pools(0, 1)
)
BOTH = Disaggregated(PREFILL, DECODE)


@settings(max_examples=200)
@given(st.data())
def test_the_pool_the_order_of_retries_and_the_cell_are_those_of_the_formula(data: st.DataObject) -> None:
    document = data.draw(configurations())
    phase = data.draw(chosen_phase(document))
    table = table_of(document)
    for _ in range(3):
        request = data.draw(requests(document, phase))
        pool, order, cell = selected(document, phase, request)
        found = route(table, asked(phase, request))
        assert isinstance(found, Route)
        assert found.pool.index == pool
        assert [found.pool.index, *(one.index for one in found.fallbacks)] == order
        selection = table.selection(phase)
        assert selection is not None
        assert list(selection.cell(asked(phase, request))) == cell
        assert found.cell in {tuple(cell or ()), None}


@given(configurations(), JSON, JSON, JSON, JSON, JSON)
def test_whatever_a_request_holds_it_gets_a_route_or_a_refusal(
    document: Document, phase: object, length: object, ttft: object, itl: object, priority: object
) -> None:
    table = table_of(document)
    for known in (phase, "prefill", "decode", "agg"):
        found = route(table, RouteRequest(known, length, ttft, itl, priority))
        match found:
            case Route():
                assert found.pool in [pool for selection in table.selections for pool in selection.pools]
            case Unroutable(reasons):
                assert reasons
                assert str(found).isprintable()


@settings(max_examples=200)
@given(st.data())
def test_many_requests_at_once_get_the_pools_that_each_gets_alone(data: st.DataObject) -> None:
    document = data.draw(configurations())
    phase = Phase(data.draw(chosen_phase(document)))
    table = table_of(document)
    size = data.draw(st.integers(1, 8))
    targets = st.one_of(st.floats(), st.none())
    lengths = data.draw(
        st.one_of(
            st.none(), st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.none()), min_size=size, max_size=size)
        )
    )
    ttfts = data.draw(st.one_of(st.none(), st.lists(targets, min_size=size, max_size=size)))
    itls = data.draw(st.lists(targets, min_size=size, max_size=size))
    priorities = data.draw(st.lists(st.one_of(st.integers(-5, 20), st.none()), min_size=size, max_size=size))
    batch = route_batch(
        table,
        phase,
        lengths=None if lengths is None else masked(lengths, np.int64),
        ttft_ms=None if ttfts is None else masked(ttfts, np.float64),
        itl_ms=masked(itls, np.float64),
        priorities=masked(priorities, np.int64),
    )
    rows = zip(lengths or [None] * size, ttfts or [None] * size, itls, priorities, strict=True)
    assert batch.tolist() == [index(route(table, RouteRequest(phase, *row))) for row in rows]


def masked(values: list[Any], dtype: type[np.generic]) -> np.ma.MaskedArray[Any, Any]:
    """Return *values* with None masked."""
    return np.ma.masked_array(
        np.array([0 if value is None else value for value in values], dtype), [value is None for value in values]
    )


def index(found: Route | Unroutable) -> int:
    return found.pool.index if isinstance(found, Route) else REFUSED


def eight_by_eight(phase: str, lengths: str, targets: str) -> Document:
    return {
        f"num_{phase}_pools": 3,
        f"{phase}_pool_dynamo_namespaces": ["a", "b", "c"],
        f"{phase}_pool_selection_strategy": {
            f"{lengths}_min": 0,
            f"{lengths}_max": 32_001,
            f"{lengths}_resolution": 8,
            f"{targets}_min_ms": 10.1,
            f"{targets}_max_ms": 3_000,
            f"{targets}_resolution": 8,
            f"{phase}_pool_mapping": [[(row * 5 + column * 3) % 7 % 3 for column in range(8)] for row in range(8)],
            "priority_overrides": [
                {"min_priority": 3, "max_priority": 4, "target_pool": 2},
                {"min_priority": 4, "max_priority": 5, "target_pool": 0},
            ],
        },
    }


def test_a_million_random_requests_at_once_get_the_pools_of_the_formula() -> None:
    document = eight_by_eight("prefill", "isl", "ttft") | eight_by_eight("decode", "context_length", "itl")
    random = np.random.default_rng(20)
    size = 1_000_000
    lengths = random.integers(-1_000, 40_000, size)
    itls = random.uniform(-100, 3_500, size)
    step = (3_000 - 10.1) / 8
    itls[::3] = 10.1 + random.integers(0, 9, len(itls[::3])) * step  # a third exactly where the formula puts an edge
    priorities = random.integers(0, 9, size)
    batch = route_batch(table_of(document), Phase.DECODE, lengths=lengths, itl_ms=itls, priorities=priorities)
    asked_of_it = zip(lengths.tolist(), itls.tolist(), priorities.tolist(), strict=True)
    cells = document["decode_pool_selection_strategy"]["decode_pool_mapping"]
    expected = [
        (2 if priority in {3, 4} else 0)
        if 3 <= priority <= 5
        else cells[max(0, min(int((length - 0) / (32_001 / 8)), 7))][max(0, min(int((itl - 10.1) / step), 7))]
        for length, itl, priority in asked_of_it
    ]
    assert batch.tolist() == expected


def test_numbers_that_only_look_different_are_the_same_number() -> None:
    plain = route(BOTH, RouteRequest("prefill", 5, 70.0, None, 3))
    assert route(BOTH, RouteRequest(Phase.PREFILL, np.float64(5), np.float64(70), None, 3.0)) is plain
    assert route(BOTH, RouteRequest("prefill", Number.FIVE, 70, None, Number.FIVE)) is plain


class Number(int):
    """An integer by inheritance, as an IntEnum is one."""

    FIVE: "Number"


Number.FIVE = Number(5)


def test_of_two_priorities_the_lower_number_is_faster_and_equals_do_not_help_each_other() -> None:
    found = route(agg(2, priorities=(4, 0, 4, 2, 2), retry=True), RouteRequest("agg"))
    assert isinstance(found, Route)
    assert [pool.index for pool in found.fallbacks] == [3, 4, 1]
    assert found.faster == found.fallbacks


def test_without_retrying_there_are_no_fallbacks_but_it_is_known_which_pools_are_faster() -> None:
    found = route(agg(2), RouteRequest("agg"))
    assert isinstance(found, Route)
    assert (found.fallbacks, [pool.index for pool in found.faster]) == ((), [1, 0])


def test_a_route_says_why_it_is_this_one() -> None:
    table = agg(2, 1, overrides=(Override(5, 9, 0),))
    in_cell = route(table, RouteRequest("agg", None, 60))
    by_priority = route(table, RouteRequest("agg", None, 60, None, 7))
    assert isinstance(in_cell, Route)
    assert isinstance(by_priority, Route)
    assert (in_cell.why, in_cell.cell) == (InCell((1, 0), ("ttft", "itl")), (1, 0))
    assert (by_priority.why, by_priority.cell) == (ByPriority(0, Override(5, 9, 0)), None)
    assert str(in_cell.why) == "ttft bin 1, itl bin 0"
    assert str(by_priority.why) == "priority_overrides[0]: priority 5 to 9"


def test_the_first_rule_that_matches_wins() -> None:
    table = agg(2, overrides=(Override(1, 3, 0), Override(3, 5, 1)))
    found = [route(table, RouteRequest("agg", None, None, None, priority)) for priority in (0, 1, 3, 4, 5, 6, None)]
    assert list(map(index, found)) == [2, 0, 0, 1, 1, 2, 2]


def test_a_length_is_needed_and_every_fault_of_a_request_is_said() -> None:
    found = route(BOTH, RouteRequest("prefill", None, "fast", [], priority=True))
    assert found == Unroutable(
        (
            BadValue("isl", Fault.MISSING),
            BadValue("ttft_target", Fault.NOT_A_NUMBER),
            BadValue("priority", Fault.NOT_A_NUMBER),
        )
    )
    assert str(found) == "isl is needed; ttft_target must be a number: 'fast'; priority must be a number: True"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.inf, "must be a finite number: inf"),
        ({}, "must be a number: an object"),
        ([], "must be a number: a list"),
        ("x" * 100, f"must be a number: {'x' * 79!r}"[:-1] + "..."),
    ],
)
def test_what_is_refused_is_shown_in_one_short_line(value: object, said: str) -> None:
    assert str(route(BOTH, RouteRequest("prefill", 1, value))) == f"ttft_target {said}"


@pytest.mark.parametrize("phase", ["agg", "PREFILL", None, [], 10**400])
def test_a_phase_that_the_table_does_not_know_is_refused(phase: object) -> None:
    found = route(BOTH, RouteRequest(phase, 1))
    assert isinstance(found, Unroutable)
    assert found.reasons == (BadValue("phase", Fault.NO_SUCH_PHASE),)
    assert str(found).startswith("phase must be a phase of this table: ")
    assert route(agg(0), RouteRequest("prefill", 1)) != route(agg(0), RouteRequest("agg"))


def test_every_choice_belongs_to_its_phase() -> None:
    assert BOTH.selections == (PREFILL, DECODE)
    assert agg(0).selections == (agg(0).agg,)
    with pytest.raises(InvalidError, match="prefill must select for 'prefill'"):
        Disaggregated(DECODE, PREFILL)
    with pytest.raises(InvalidError, match="agg must select for 'agg'"):
        Aggregated(PREFILL)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"grid": RoutingGrid((Axis("isl", 0, 1, 1),), (0,))}, "the axes of prefill must be isl x ttft: isl"),
        ({"pools": ()}, f"there must be 1 to {MAX_POOLS} pools: 0"),
        ({"pools": pools(0)}, "there is no pool 1: 1 pools"),
        ({"overrides": (Override(1, 2, -1),)}, "there is no pool -1"),
        ({"pools": pools(0, 1)[::-1]}, "in the order of their indices"),
    ],
)
def test_a_choice_that_leads_nowhere_cannot_be_made(change: dict[str, Any], problem: str) -> None:
    given_values: dict[str, Any] = {"grid": PREFILL.grid, "pools": PREFILL.pools} | change
    with pytest.raises(InvalidError, match=problem):
        Selection(Phase.PREFILL, **given_values)


def test_an_override_begins_before_it_ends() -> None:
    with pytest.raises(InvalidError, match=r"min_priority \(5\) must be <= max_priority \(4\)"):
        Override(5, 4, 0)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({}, r"of one length: \[\]"),
        ({"lengths": [1, 2], "ttft_ms": [1.0]}, r"of one length: \[1, 2\]"),
        ({"lengths": ["a"]}, "length must be a row of numbers"),
        ({"lengths": [True]}, "length must be a row of numbers"),
        ({"lengths": [[1]]}, "length must be a row of numbers: 2 dimensions"),
        ({"lengths": [1], "priorities": [1.5]}, "priority must be a row of numbers"),
    ],
)
def test_arrays_that_are_no_requests_are_refused(arrays: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidError, match=problem):
        route_batch(BOTH, Phase.PREFILL, **arrays)


def test_a_batch_is_of_a_phase_that_the_table_knows_and_may_be_empty() -> None:
    with pytest.raises(InvalidError, match="phase must be a phase of this table: 'agg'"):
        route_batch(BOTH, Phase.AGG, lengths=[1])
    assert route_batch(BOTH, Phase.PREFILL, lengths=np.array([], int)).tolist() == []


def test_a_chunk_of_a_batch_is_like_every_other() -> None:
    lengths = np.full(50_000, 5)
    targets = np.linspace(0, 99, 50_000)
    targets[40_000] = math.nan
    found = route_batch(BOTH, Phase.PREFILL, lengths=lengths, ttft_ms=targets)
    assert np.flatnonzero(found == REFUSED).tolist() == [40_000]
    assert found[targets < 50].max() == 0
    assert found[targets >= 50].min() == 1


def cases() -> list[Any]:
    rows = [(file, yaml.safe_load(file.read_text())["cases"]) for file in sorted(CORPUS.glob("t*.yaml"))]
    return [
        pytest.param(case, id=f"{file.stem}-{case['name']}".replace(" ", "_")) for file, row in rows for case in row
    ]


@pytest.mark.parametrize("case", cases())
def test_hostile_targets_have_the_answers_that_are_written_down(case: Document) -> None:
    table = table_of(json.loads((CORPUS / "table.json").read_text()))
    found = route(table, asked(case["ask"]["phase"], case["ask"]))
    match found:
        case Route(pool):
            assert {"pool": pool.index, "cell": list(found.cell or ()) or None} == {"cell": None} | answer(case)
        case Unroutable():
            assert {"refused": str(found)} == answer(case)


def answer(case: Document) -> Document:
    return {name: value for name, value in case.items() if name not in {"name", "ask"}}


def test_every_row_of_hostile_targets_has_its_file() -> None:
    assert [file.stem for file in sorted(CORPUS.glob("t*.yaml"))] == [f"t{at:02}" for at in range(1, 13)]

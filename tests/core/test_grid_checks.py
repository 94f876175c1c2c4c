from typing import Any

import numpy as np
from hypothesis import given

from gpcore.grid_checks import Kind, check, dead_bins
from gpcore.grids import Axis, RoutingGrid
from gpcore.routing import Aggregated, Destination, Disaggregated, Override, Phase, RoutingTable, Selection, route_batch
from gpcore.wire import dumps, routing_config
from tests.core.routing_worlds import Document, configurations


def table(
    cells: tuple[int, ...],
    *,
    pools: int = 2,
    priorities: tuple[int, ...] = (0, 1, 2, 3),
    **more: Any,  # noqa: ANN401 - the parts of a selection
) -> RoutingTable:
    axes = more.pop("axes", (Axis("isl", 0, 8_000, 2), Axis("ttft", 0, 100, len(cells) // 2)))
    choices = tuple(Destination(at, f"p-{at}", priorities[at]) for at in range(pools))
    prefill = Selection(Phase.PREFILL, RoutingGrid(axes, cells), choices, **more)
    decode_axes = (Axis("context_length", 0, 8_000, 1), Axis("itl", 0, 100, 1))
    return Disaggregated(prefill, Selection(Phase.DECODE, RoutingGrid(decode_axes, (0,)), (Destination(0, "d-0", 0),)))


def kinds(found: RoutingTable) -> list[Kind]:
    return [finding.kind for finding in check(found)]


def sentences(found: RoutingTable) -> list[str]:
    return [finding.sentence for finding in check(found)]


def test_a_table_that_says_what_it_means_has_no_findings() -> None:
    assert check(table((0, 1, 0, 1))) == ()
    assert check(table((0, 1, 0, 1), overrides=(Override(1, 3, 1), Override(4, 9, 0)), retry=True)) == ()


@given(configurations())
def test_a_bin_is_dead_when_no_whole_length_and_no_target_from_zero_on_is_in_it(document: Document) -> None:
    for selection in routing_config(dumps(document)).table.selections:
        for axis in selection.grid.axes:
            dead = {*dead_bins(axis)}
            edges = [0, axis.low, axis.high, *axis.edges, *axis.whole_edges]
            values = [*edges, *(np.ceil(edge) for edge in edges), *(np.nextafter(edge, -np.inf) for edge in edges)]
            if axis.name in {"isl", "context_length"}:
                values = [value for edge in edges for value in (np.floor(edge), np.ceil(edge), np.ceil(edge) - 1)]
            live = {axis.bin(float(value)) for value in values if value >= 0}
            assert dead == {*range(axis.bins)} - live


@given(configurations())
def test_a_pool_that_is_never_chosen_is_chosen_by_no_request(document: Document) -> None:
    found = routing_config(dumps(document)).table
    never = {
        (finding.where, int(finding.sentence.split()[1]))
        for finding in check(found)
        if finding.kind in {Kind.NEVER_CHOSEN, Kind.ONLY_FALLBACK}
    }
    random = np.random.default_rng(5)
    for selection in found.selections:
        columns = {
            "lengths": random.integers(0, 60_000, 300),
            "ttft_ms": random.uniform(0, 50_000, 300),
            "itl_ms": random.uniform(0, 50_000, 300),
            "priorities": random.integers(-5, 20, 300),
        }
        chosen = {(selection.phase.value, int(pool)) for pool in route_batch(found, selection.phase, **columns)}
        assert not chosen & never


def test_cells_that_hold_no_whole_number_are_dead() -> None:
    narrow = (Axis("isl", 0, 2, 4), Axis("ttft", -100, 100, 4))
    (first, second, *_) = check(table((0,) * 16, axes=narrow, pools=1))
    assert (
        str(first) == "prefill: dead cells: no whole number from 0 on is in isl bins 1, 3"
        or first.kind is Kind.DEAD_CELLS
    )
    assert second.sentence == "no value from 0 on is in ttft bins 0, 1"


def test_a_pool_behind_a_dead_cell_is_never_chosen() -> None:
    below = (Axis("isl", -8_000, 8_000, 2), Axis("ttft", 0, 100, 1))
    assert kinds(table((1, 0), axes=below)) == [Kind.DEAD_CELLS, Kind.NEVER_CHOSEN]


def test_a_pool_that_only_catches_what_others_drop_is_only_noted() -> None:
    (finding,) = check(table((1, 1, 1, 1), retry=True))
    assert (finding.kind, finding.serious) == (Kind.ONLY_FALLBACK, False)
    assert finding.sentence == "pool 0 (p-0, priority 0) serves only what a slower pool failed at"
    (finding,) = check(table((1, 1, 1, 1)))
    assert (finding.kind, finding.serious) == (Kind.NEVER_CHOSEN, True)


def test_an_override_that_others_hide_together_never_matches() -> None:
    rules = (Override(5, 9, 0), Override(1, 4, 1), Override(3, 7, 0), Override(9, 10, 0))
    assert sentences(table((0, 1, 0, 1), overrides=rules)) == [
        "priority_overrides[2] (3 to 7) comes after priority_overrides 0, 1, which match all of it",
        "priority_overrides[3] (9 to 10) gets only what priority_overrides 0 leave of it",
    ]


def test_the_target_of_a_hidden_override_is_not_chosen_by_it() -> None:
    rules = (Override(1, 9, 0), Override(3, 4, 1))
    assert kinds(table((0, 0, 0, 0), overrides=rules)) == [Kind.NEVER_CHOSEN, Kind.NEVER_MATCHES]


def test_the_easier_request_should_not_get_the_faster_pool() -> None:
    columns = (Axis("isl", 0, 8_000, 2), Axis("ttft", 0, 100, 4))
    fast, slow = "pool 0 (p-0, priority 0)", "pool 1 (p-1, priority 1)"
    along_isl = f"along isl: cell [0, 1] has {fast}, and cell [1, 1] has {slow}"
    along_ttft = f"along ttft: cell [1, 2] has {fast}, and cell [1, 1] has {slow}"
    assert sentences(table((0, 0, 1, 2, 0, 1, 0, 2), axes=columns, pools=3)) == [
        f"a shorter request gets a faster pool at 1 places {along_isl}",
        f"a laxer target gets a faster pool at 1 places {along_ttft}",
    ]


def test_priorities_the_wrong_way_round_are_seen() -> None:
    upside_down = table((2, 0, 2, 1), pools=3)
    (finding,) = check(upside_down)
    assert finding.kind is Kind.PRIORITIES
    assert finding.sentence.startswith("a lower number is a faster pool, yet 3 neighbouring cells")
    assert check(table((2, 0, 2, 1), pools=3, priorities=(2, 1, 0))) == ()


def test_priorities_may_be_larger_than_any_machine_number() -> None:
    assert check(table((0, 1, 0, 1), priorities=(-(10**30), 10**30))) == ()


def test_retrying_needs_a_faster_pool() -> None:
    assert kinds(table((0, 1, 0, 1), priorities=(5, 5), retry=True)) == [Kind.NO_FALLBACK]
    assert kinds(table((0, 0, 0, 0), pools=1, retry=True)) == []


def test_a_namespace_is_one_pool() -> None:
    axes = (Axis("ttft", 0, 1, 1), Axis("itl", 0, 1, 2))
    twice = (Destination(0, "a", 0), Destination(1, "a", 1))
    (finding,) = check(Aggregated(Selection(Phase.AGG, RoutingGrid(axes, (0, 1)), twice)))
    assert str(finding) == "pools: namespace listed twice: a is the namespace of 2 pools"


def test_long_lists_are_cut() -> None:
    axes = (Axis("isl", -1_000, 10, 20), Axis("ttft", 0, 1, 1))
    (finding,) = check(table((0,) * 20, axes=axes, pools=1))
    assert finding.sentence == "no whole number from 0 on is in isl bins 0, 1, 2, 3, 4, 5, 6, 7 and 11 more"

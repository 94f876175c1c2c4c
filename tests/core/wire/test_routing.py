import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from gpcore.errors import ConfigError
from gpcore.grid_checks import check
from gpcore.routing import Aggregated, Disaggregated, Override, Phase
from gpcore.wire import RoutingConfig, dumps, routing_config
from tests.core.routing_worlds import Document, configurations

TESTS = Path(__file__).parents[2]
CORPUS = TESTS / "corpus" / "router_config"
BASE = json.loads((CORPUS / "base.json").read_text())
AGG: Document = {
    "mode": "agg",
    "num_agg_pools": 2,
    "agg_pool_dynamo_namespaces": ["agg_pool_0", "agg_pool_1"],
    "agg_pool_selection_strategy": {
        "ttft_min_ms": 0,
        "ttft_max_ms": 1000,
        "ttft_resolution": 2,
        "itl_min_ms": 0,
        "itl_max_ms": 1000,
        "itl_resolution": 2,
        "agg_pool_mapping": [[0, 1], [0, 1]],
    },
}


def merged(document: Document, change: Document) -> Document:
    """Return *document* with *change*, object by object."""
    made = copy.deepcopy(document)
    for name, value in change.items():
        made[name] = merged(made.get(name, {}), value) if isinstance(value, dict) else value
    return made


WAYS: Mapping[str, Callable[[Any], bytes]] = {
    "text": str.encode,
    "hex": bytes.fromhex,
    "size": lambda size: dumps(BASE).ljust(size),
    "rows": lambda rows: dumps(merged(BASE, {"prefill_pool_selection_strategy": {"prefill_pool_mapping": [1] * rows}})),
    "nested": lambda depth: dumps(BASE)[:-1] + b',"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}",
    "cut": lambda end: dumps(BASE)[:end],
}


def data(case: Document) -> bytes:
    """Return the file that *case* describes."""
    for way, made in WAYS.items():
        if way in case:
            return made(case[way])
    return dumps(dropped(changed(case), case.get("drop")))


def changed(case: Document) -> Document:
    if "agg" in case:
        return merged(AGG, {"agg_pool_selection_strategy": case["agg"]})
    return merged(BASE, case.get("change", {}))


def dropped(document: Document, path: list[str] | None) -> Document:
    if path:
        del document[path[0]][path[1]]
    return document


def cases() -> list[Any]:
    rows = [(file, yaml.safe_load(file.read_text())["cases"]) for file in sorted(CORPUS.glob("c*.yaml"))]
    named = [(f"{file.stem}-{case['name']}".replace(" ", "_"), case) for file, row in rows for case in row]
    return [pytest.param(case, id=name) for name, case in named if "path" not in case]  # files are the command line's


@pytest.mark.parametrize("case", cases())
def test_a_bad_configuration_gets_the_answer_that_is_written_down(case: Document) -> None:
    if "problem" in case:
        with pytest.raises(ConfigError) as caught:
            routing_config(data(case))
        assert [problem for problem in caught.value.problems if case["problem"] in problem], caught.value.problems
        return
    config = routing_config(data(case))
    assert config.warnings == ((case["warning"],) if "warning" in case else ())
    found = {finding.kind.value for finding in check(config.table)}
    if "finding" in case:
        assert case["finding"] in found if case["finding"] else not found


def test_every_row_of_bad_configurations_has_its_file() -> None:
    assert [file.stem for file in sorted(CORPUS.glob("c*.yaml"))] == [f"c{at:02}" for at in range(1, 27)]


@given(configurations())
def test_what_the_peer_serves_is_read_without_a_word(document: Document) -> None:
    config = routing_config(dumps(document))
    assert config.warnings == ()
    for selection in config.table.selections:
        name = selection.phase.value
        namespaces = document[f"{name}_pool_dynamo_namespaces"]
        assert [pool.namespace for pool in selection.pools] == namespaces
        priorities = document.get(f"{name}_pool_priorities", list(range(len(namespaces))))
        assert [pool.priority for pool in selection.pools] == priorities


@given(configurations())
def test_the_old_names_mean_the_same_and_are_told_of_once(document: Document) -> None:
    new = dumps(document)
    old = new
    for name in ("ttft_min", "ttft_max", "itl_min", "itl_max"):
        old = old.replace(f'"{name}_ms"'.encode(), f'"{name}"'.encode())
    config = routing_config(old)
    assert config.table == routing_config(new).table
    (warning,) = config.warnings
    assert warning.startswith("old names: $.")
    assert warning.count("_ms") == 4


def test_the_mode_is_disagg_where_nothing_is_said() -> None:
    document = {name: value for name, value in BASE.items() if name != "mode"}
    config = routing_config(dumps(document))
    assert config == RoutingConfig(routing_config(dumps(BASE)).table)
    assert isinstance(config.table, Disaggregated)
    assert config.table.prefill.overrides == (Override(1, 5, 0),)
    assert config.table.prefill.retry


def test_an_aggregated_table_may_have_the_length_as_its_first_axis() -> None:
    flat = routing_config(dumps(AGG)).table
    strategy = {"isl_min": 0, "isl_max": 8, "isl_resolution": 1, "agg_pool_mapping": [[[0, 1], [1, 0]]]}
    deep = routing_config(dumps(merged(AGG, {"agg_pool_selection_strategy": strategy}))).table
    assert isinstance(flat, Aggregated)
    assert isinstance(deep, Aggregated)
    assert (flat.agg.axes, flat.agg.phase, flat.agg.retry) == (("ttft", "itl"), Phase.AGG, False)
    assert (deep.agg.axes, deep.agg.grid.cells) == (("isl", "ttft", "itl"), (0, 1, 1, 0))


def test_every_problem_of_a_file_is_listed_with_its_path() -> None:
    change: Document = {
        "enable_priority_retry": "yes",
        "prefill_pool_priorities": [0, True, 2],
        "prefill_pool_selection_strategy": {
            "isl_min": 40_000,
            "ttft_resolution": 0,
            "prefill_pool_maping": [],
            "prefill_pool_mapping": [[0, 7], [0, 1]],
        },
        "decode_pool_selection_strategy": [],
    }
    strategy = "$.prefill_pool_selection_strategy"
    with pytest.raises(ConfigError) as caught:
        routing_config(dumps(BASE | merged(BASE, change)))
    assert caught.value.problems == (
        '$.enable_priority_retry: enable_priority_retry must be a boolean: "yes"',
        "$.prefill_pool_priorities[1]: prefill_pool_priorities[1] must be an integer: true",
        "$.prefill_pool_priorities: prefill_pool_priorities length (3) does not match number of pools (2)",
        '$.prefill_pool_selection_strategy: unknown field "prefill_pool_maping"; did you mean "prefill_pool_mapping"?',
        "$.prefill_pool_selection_strategy.ttft_resolution: ttft_resolution must be positive, got 0",
        "$.prefill_pool_selection_strategy.isl_min: isl_min (40000) must be less than isl_max (32000)",
        f"{strategy}.prefill_pool_mapping[0][1]: Invalid prefill pool index 7 in mapping (must be 0 to 1)",
        "$.decode_pool_selection_strategy: must be an object: a list of 0",
    )


@pytest.mark.parametrize("file", sorted((TESTS / "fixtures" / "topologies").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_configurations_that_the_peer_ships_are_read(file: Path) -> None:
    for manifest in yaml.safe_load_all(file.read_text()):
        text = (manifest or {}).get("data", {}).get("global_router_config.json")
        if text is not None:
            config = routing_config(text.replace("${K8S_NAMESPACE}", "ns").encode())
            assert isinstance(config.table, Disaggregated)
            assert check(config.table) == ()

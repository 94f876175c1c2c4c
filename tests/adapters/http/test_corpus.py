"""The corpus of bad scale requests: each file is a row of the table, each case a request and how it is answered."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpadapters.http.codes import CODES
from gpcore.budgets import Budget
from tests.adapters.http.world import FLEET, World, document, until, world_of

CORPUS = Path(__file__).parents[2] / "corpus" / "scale"
DECIDED = {"success", "above_ceiling", "below_floor"}
Case = dict[str, Any]


def cases() -> Iterator[Any]:
    for file in sorted(CORPUS.iterdir()):
        for case in yaml.safe_load(file.read_text())["cases"]:
            yield pytest.param(case, id=f"{file.stem}-{case['name']}".replace(" ", "_"))


def body(case: Case) -> bytes:
    """Return the body that *case* describes."""
    way = next((way for way in BODIES if way in case), "change")
    return BODIES[way](case.get(way, {}))


def _with_text(field: str, text: str) -> bytes:
    """Return a request in which *field* is written as *text*, whatever that is."""
    mark = "mark"
    given = document(**({} if field == "desired_replicas" else {field: mark}))
    if field == "desired_replicas":
        given["target_replicas"][0][field] = mark
    return json.dumps(given).replace(f'"{mark}"', text).encode()


def _with_target(changes: Case) -> bytes:
    return _written(target_replicas=[document()["target_replicas"][0] | changes])


def _written(**changes: Any) -> bytes:  # noqa: ANN401 - any document
    return json.dumps(document(**changes)).encode()


BODIES: Mapping[str, Callable[[Any], bytes]] = {
    "text": str.encode,
    "hex": bytes.fromhex,
    "digits": lambda count: _with_text("desired_replicas", "9" * count),
    "replicas": lambda text: _with_text("desired_replicas", text),
    "timestamp": lambda text: _with_text("timestamp", text),
    "nested": lambda depth: _with_text("predicted_load", '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)),
    "targets": lambda count: _written(target_replicas=document()["target_replicas"] * count),
    "size": lambda size: _written().ljust(size),
    "repeat": lambda counts: _written(**{name: "x" * count for name, count in counts.items()}),
    "target": _with_target,
    "change": lambda changes: _written(**changes),
}
"""The ways in which a case may describe its body."""


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 4096):
        yield content[start : start + 4096]


async def view(world: World, case: Case) -> None:
    await until(lambda: world.planner.state.ready)
    if case.get("view") == "stale":
        world.cluster.go_stale()
        await until(lambda: world.planner.state.stale)


@pytest.mark.parametrize("case", list(cases()))
async def test_a_bad_request_is_answered_by_the_table_and_changes_nothing(case: Case) -> None:
    budget = Budget(**case.get("budget", {"floor": 0, "ceiling": 20}))
    async with world_of(case.get("fleet", FLEET), budget) as world:
        if case.get("view") == "none":
            await judge(world, case)
        else:
            async with world.planner.running(grace_s=0.1):
                await view(world, case)
                await judge(world, case)


async def judge(world: World, case: Case) -> None:
    deployments, before = world.cluster.deployments, world.planner.state
    content = body(case)
    headers = {"Content-Type": "application/json"} | case.get("headers", {})
    sent = chunks(content) if case.get("chunked") else content
    response = await world.client.post("/v1/scale", content=sent, headers=headers)
    kind, code = case["expect"], CODES[case["expect"]]
    answer = response.json()
    assert (response.status_code, answer["status"]) == (code.http, code.status), answer
    assert answer["reason"] is None if kind == "success" else answer["reason"]["kind"] == kind
    assert case.get("problem", "") in answer["message"]
    assert len(answer.get("problems", [])) == case.get("problems", len(answer.get("problems", [])))
    assert "Traceback" not in response.text
    assert response.text.isascii()
    assert response.text.isprintable()
    if kind != "success" or not case.get("writes", True):
        assert world.cluster.deployments == deployments
        assert world.planner.state.snapshot == before.snapshot
        assert not world.planner.state.operations
    if kind not in DECIDED | {"shape_unknown", "view_stale"}:
        assert world.planner.state.intents == before.intents
    for _, message in world.refused:
        assert message.isascii()
        assert len(message) < 4096


def test_each_row_of_the_table_that_is_not_about_identity_has_its_file() -> None:
    rows = {f"s{n:02}" for n in (*range(1, 30), *range(37, 47))}
    assert {file.stem for file in CORPUS.iterdir()} == rows


def test_every_refusal_that_a_request_can_meet_has_a_case() -> None:
    met = {case["expect"] for file in CORPUS.iterdir() for case in yaml.safe_load(file.read_text())["cases"]}
    elsewhere = {
        *("scaling", "busy", "failed", "internal", "policy_broken", "overloaded", "stopping"),  # test_server.py
        *("not_found", "method_not_allowed", "body_timeout"),  # test_server.py, test_hostile.py
        *("ambiguous_name", "not_scaled"),  # of the fleet, not of a request
        *("unsettled", "not_leading", "ledger_down", "frozen", "limit_reached"),  # of the moment: test_several.py
        *("another_body", "old_sequence"),  # of two requests: test_several.py
    }
    assert met == set(CODES) - elsewhere

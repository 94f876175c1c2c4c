"""Every row of the corpus of bad HTTP: the typed answer, the connection closed where it must be, nothing forwarded."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.waiting import eventually
from tests.routerworld import FakePool, Raw, RouterProcess, aggregated, chat
from tests.routerworld.answers import ask

CORPUS = Path(__file__).parents[2] / "corpus" / "router_http"
ROWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CORPUS.glob("h*.yaml"))}
CASES = [(row, case) for row, content in ROWS.items() for case in content.get("cases", ())]
TIMES = ("--head-timeout", "0.4", "--body-timeout", "0.4")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePool]:
    with FakePool("slow", tmp_path_factory.mktemp("pool")) as started:
        yield started


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, pool: FakePool) -> Iterator[RouterProcess]:
    folder = tmp_path_factory.mktemp("router")
    with RouterProcess(folder, aggregated("slow"), pools=[f"slow={pool.url}"], flags=TIMES) as started:
        yield started


def _bytes(part: Any) -> bytes:  # noqa: ANN401 - what YAML has
    if isinstance(part, str):
        return part.encode("latin-1")
    if isinstance(part, list):
        return b"".join(map(_bytes, part))
    return _bytes(part["repeat"]) * int(part["times"])


@pytest.mark.parametrize(("row", "case"), CASES, ids=[f"{row}-{case['name'].replace(' ', '-')}" for row, case in CASES])
def test_what_must_be_refused_is_refused_and_goes_nowhere(
    row: str, case: dict[str, Any], pool: FakePool, router: RouterProcess
) -> None:
    assert ROWS[row]["about"]
    before = len(pool.requests)
    with Raw(router.port) as raw:
        raw.offer(_bytes(case["send"]))
        answer = raw.answer()
        assert answer.status == case["answer"]["status"], answer
        if answer.status != 200:
            assert answer.error["type"] == case["answer"]["type"]
        if case["closed"]:
            assert answer.headers["connection"] == "close"
            assert raw.closed()
            assert not raw.rest
        else:
            assert "connection" not in answer.headers
            assert raw.send(b"GET /v1/models HTTP/1.1\r\nHost: r\r\n\r\n").answer().status == 200
    assert len(pool.requests) - before == case["forwarded"]
    assert not any("evil" in request for request in pool.requests)


def test_rows_without_a_case_name_the_test_that_proves_them() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = [content["proved_by"] for content in ROWS.values() if "proved_by" in content]
    assert len(ROWS) == 56
    assert [name for name in named if not re.search(rf"def {name}\(", tests)] == []


def test_a_connection_on_which_nothing_comes_is_closed(tmp_path: Path) -> None:
    flags = ("--idle-timeout", "0.3")
    with RouterProcess(tmp_path, aggregated("slow"), pools=["slow=127.0.0.1:1"], flags=flags) as router:
        with Raw(router.port) as raw:
            assert raw.closed(within_s=3)
            assert not raw.rest
        with Raw(router.port) as raw:
            assert raw.send(b"GET /v1/models HTTP/1.1\r\nHost: r\r\n\r\n").answer().status == 200
            assert raw.closed(within_s=3)


def test_more_connections_than_there_may_be_are_told_so(tmp_path: Path, pool: FakePool) -> None:
    flags = ("--max-connections", "10")
    with RouterProcess(tmp_path, aggregated("slow"), pools=[f"slow={pool.url}"], flags=flags) as router:
        held = [Raw(router.port) for _ in range(10)]
        assert [raw.send(chat()).answer().status for raw in held] == [200] * 10
        with Raw(router.port) as raw:
            answer = raw.answer()
            assert (answer.status, answer.error["type"]) == (503, "overloaded")
            assert raw.closed()
        for raw in held:
            raw.close()
        eventually(lambda: router.measure("gp_router_clients") == 0)
        assert ask(router.port, chat()).status == 200


def test_a_reset_in_the_middle_of_a_body_leaves_nothing_behind(pool: FakePool, router: RouterProcess) -> None:
    before = len(pool.requests)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nContent-Length: 4000000\r\n\r\n"
    raw = Raw(router.port).send(head + b"a" * 2_000_000)
    eventually(lambda: router.measure("gp_router_held_bytes") > 1_000_000, within_s=3)
    raw.reset()
    eventually(lambda: router.measure("gp_router_held_bytes") == 0)
    assert len(pool.requests) == before

"""Freezes, waiting for operations, and requests with an id, against real planner processes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpadapters.cli import main
from tests.adapters.cli.running import Daemon, started

FLEET = """
release_lag_s: 1000
pools:
  - {participant: llm/chat, role: prefill, replicas: 2, gpus_per_replica: 1}
  - {participant: llm/code, role: prefill, replicas: 2, gpus_per_replica: 1}
"""
FLAGS = ("--max-total-gpus", "4", "--listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    path.write_text(FLEET)
    return str(path)


@pytest.fixture
def planner(fleet: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with started("--environment", "memory", "--fleet", fleet, *FLAGS) as running:
        monkeypatch.setenv("GPCTL_SERVER", running.url)
        yield running


@pytest.mark.usefixtures("planner")
def test_a_freeze_holds_until_it_is_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["freeze", "down", "--pool", "llm/chat/prefill", "--for", "30m", "--reason", "night", "--by", "a"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("success: held until ")
    assert first.endswith(": changes down of llm/chat/prefill")
    assert second.endswith(", asked for by a: night")
    key = second.split()[1].rstrip(",")
    assert main(["scale", "llm/chat", "prefill=1"]) == 1
    assert "may not go down until the freeze ends: night" in capsys.readouterr().out
    assert main(["get", "freezes"]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]] == [
        [key, "down", "llm/chat/prefill"]
    ]
    assert main(["get", "conditions", "-o", "json"]) == 0
    assert [one["kind"] for one in json.loads(capsys.readouterr().out)["conditions"]] == ["frozen"]
    assert main(["thaw", key]) == 0
    assert capsys.readouterr().out.startswith("success: no longer held: changes down of llm/chat/prefill")
    assert main(["scale", "llm/chat", "prefill=1", "--request-id", "r-1"]) == 0
    assert main(["scale", "llm/chat", "prefill=1", "--request-id", "r-1"]) == 0
    assert main(["scale", "llm/chat", "prefill=2", "--request-id", "r-1"]) == 1
    assert "request r-1 was sent before" in capsys.readouterr().out


def test_waiting_tells_how_an_operation_ends_and_whether_it_did_in_time(
    fleet: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--environment", "memory", "--fleet", fleet, *FLAGS, "--min-total-gpus", "4", "--deadline-seconds", "5")
    with started(*flags) as running:
        monkeypatch.setenv("GPCTL_SERVER", running.url)
        waits(capsys)


def waits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "llm/chat", "prefill=1"]) == 1, "it is below the floor, and remembered"
    capsys.readouterr()
    assert main(["scale", "llm/code", "prefill=3", "-o", "json"]) == 0
    key = json.loads(capsys.readouterr().out)["operation_id"]
    assert main(["wait", key, "--timeout", "0.3"]) == 3
    assert "has not ended within 0.3 s" in capsys.readouterr().err
    assert main(["get", "operations", "-o", "wide"]) == 0
    assert "llm/code/prefill 2 to 3: waiting (-)" in capsys.readouterr().out
    assert main(["wait", key]) == 1
    told = capsys.readouterr().out
    assert told.startswith("error: ")
    assert "the GPUs did not come free within 5 s" in told


@pytest.mark.usefixtures("planner")
def test_waiting_for_what_succeeds_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "llm/chat", "prefill=1", "-o", "json"]) == 0
    key = json.loads(capsys.readouterr().out)["operation_id"]
    assert main(["wait", key, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "success"


def test_a_planner_that_cannot_be_asked_is_asked_until_the_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wait", "d-1", "--timeout", "0.6", "--server", "http://127.0.0.1:1"]) == 3
    assert "has not ended" in capsys.readouterr().err


def test_a_request_to_a_follower_reaches_the_leader(fleet: str, tmp_path: Path) -> None:
    flags = ("--environment", "memory", "--fleet", fleet, *FLAGS, "--ledger", f"sqlite:{tmp_path / 'ledger'}")
    # Each has a fleet of its own in its memory; who leads is all that matters here.
    with started(*flags) as leader, started(*flags) as follower:
        assert main(["get", "budget", "--server", follower.url]) == 0
        assert main(["scale", "llm/chat", "prefill=1", "--server", follower.url]) == 0
        assert main(["get", "decisions", "--server", leader.url]) == 0

"""`gpctl decide`: one scenario or a stream of them, each with one answer."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpadapters.cli import main


def scenario(*, wish: object = 5, ceiling: int = 16) -> dict[str, Any]:
    pool = {"participant": "ns/a", "role": "prefill", "replicas": 4, "gpus_per_replica": 1}
    request = {"participant": "ns/a", "targets": [{"role": "prefill", "replicas": wish}]}
    return {"pools": [pool], "budget": {"floor": 0, "ceiling": ceiling}, "request": request}


@pytest.mark.parametrize(
    ("given", "status"),
    [(scenario(), "approved"), (scenario(ceiling=4), "rejected"), (scenario(wish="5"), "invalid"), ([], "invalid")],
)
def test_whatever_the_verdict_is_it_is_an_answer(
    given: object, status: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file = tmp_path / "scenario.json"
    file.write_text(json.dumps(given))
    assert main(["decide", str(file)]) == 0
    told = capfdbinary.readouterr()
    assert json.loads(told.out)["status"] == status
    assert told.err == b""


def test_a_verdict_says_plan_total_and_why(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    file = tmp_path / "scenario.json"
    file.write_text(json.dumps(scenario(), indent=1))
    assert main(["decide", str(file)]) == 0
    assert json.loads(capfdbinary.readouterr().out) == {
        "status": "approved",
        "plan": [[{"participant": "ns/a", "role": "prefill", "before": 4, "after": 5}]],
        "total_after": 5,
        "reason": None,
        "message": "approved: ns/a/prefill 4 to 5, total 5 GPUs when done",
    }


def test_line_n_answers_line_n_and_a_bad_one_stops_nobody(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps(scenario()), "{", "", json.dumps(scenario(ceiling=4)), "\N{LATIN SMALL LETTER E WITH ACUTE}"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode("latin-1"))))
    assert main(["decide", "--lines"]) == 0
    answers = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [answer["status"] for answer in answers] == ["approved", "invalid", "invalid", "rejected", "invalid"]


def test_each_answer_comes_before_the_next_question() -> None:
    command = [sys.executable, "-m", "gpadapters.cli", "decide", "--lines"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as decide:
        assert decide.stdin is not None
        assert decide.stdout is not None
        for ceiling, status in [(16, "approved"), (4, "rejected")]:
            decide.stdin.write(json.dumps(scenario(ceiling=ceiling)).encode() + b"\n")
            decide.stdin.flush()
            assert json.loads(decide.stdout.readline())["status"] == status
        decide.stdin.close()
        assert decide.wait() == 0


def test_a_file_that_is_not_there_is_a_failure_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide", "nowhere.json"]) == 1
    assert capsys.readouterr().err == "gpctl: nowhere.json: No such file or directory\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    line = json.dumps(scenario()) + "\n"
    command = f"yes '{line.strip()}' | {sys.executable} -m gpadapters.cli decide --lines | head -n 2"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)  # noqa: S607
    assert (len(ended.stdout.splitlines()), ended.stderr) == (2, "")


@pytest.mark.parametrize("module", ["aiohttp", "httpx", "kubernetes", "prometheus_client", "rich", "typer", "yaml"])
def test_deciding_needs_the_base_installation_alone(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from gpadapters.cli import main; sys.exit(main(['decide']))"
    ended = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(scenario()), capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout)["status"] == "approved"

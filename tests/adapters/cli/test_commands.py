"""The commands for people and scripts, against a real planner process on a cluster in memory."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from gpadapters.cli import main
from gpadapters.cli.fleet import cluster
from gpcore.errors import ConfigError
from tests.adapters.cli.running import GPCTL, Daemon, gpctl, started

FLEET = """
pools:
  - {participant: llm/chat, role: prefill, replicas: 2, gpus_per_replica: 1}
  - {participant: llm/chat, role: decode, replicas: 4, gpus_per_replica: 1}
  - {participant: llm/code, role: prefill, replicas: 2, gpus_per_replica: 2}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    path.write_text(FLEET)
    return str(path)


@pytest.fixture(scope="module")
def planner(fleet: str) -> Iterator[Daemon]:
    with started("--environment", "memory", "--fleet", fleet, *BOUNDS, *ANY_PORT) as running:
        yield running


BOUNDS = ("--max-total-gpus", "16", "--managed-namespaces", "llm-chat", "llm-code")
ANY_PORT = ("--listen", "127.0.0.1:0")


@pytest.fixture
def server(planner: Daemon, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GPCTL_SERVER", planner.url)
    return planner.url


def test_pools_are_a_table_of_plain_lines_for_who_is_no_terminal(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", "pools", "--server", server]) == 0
    told = capsys.readouterr()
    head, *rows = [re.split(r" {2,}", line) for line in told.out.splitlines()]
    assert head == ["PARTICIPANT", "ROLE", "REPLICAS", "READY", "GPUS/REPLICA", "CHARGED"]
    assert [row[:2] for row in rows] == [["llm/chat", "decode"], ["llm/chat", "prefill"], ["llm/code", "prefill"]]
    assert "\x1b" not in told.out
    assert not any(line.endswith(" ") for line in told.out.splitlines())
    assert told.err == ""


def test_wide_shows_more(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    assert main(["get", "pools", "-o", "wide"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-3:] == ["RESERVED", "COMPONENT", "ADAPTER"]


@pytest.mark.parametrize("resource", ["pools", "budget", "decisions", "operations", "freezes", "conditions"])
def test_json_and_yaml_are_the_same_document(resource: str, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    assert main(["get", resource, "-o", "json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert main(["get", resource, "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == as_json


@pytest.mark.parametrize("resource", ["pools", "budget", "decisions", "operations"])
def test_every_resource_has_a_table(resource: str, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    main(["scale", "llm/code", "prefill=3"])
    capsys.readouterr()
    assert main(["get", resource, "-o", "wide"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_a_request_that_fits_is_carried_out_and_ends_with_0(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    assert main(["scale", "llm/chat", "prefill=3", "decode=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["success: Scaled chat successfully", "  step 1: llm/chat/prefill 2 to 3"]
    assert main(["scale", "llm/chat", "prefill=2"]) == 0


def test_a_refused_request_says_what_would_fit_and_ends_with_1(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    assert main(["scale", "llm/chat", "decode=100"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("rejected: total ")
    assert "the largest count that fits is" in told.out
    assert main(["scale", "llm/chat", "decode=100", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["reason"]["kind"] == "above_ceiling"


def test_a_decision_is_explained_by_its_id(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    main(["scale", "llm/chat", "decode=99", "-o", "json"])
    identity = json.loads(capsys.readouterr().out)["decision_id"]
    assert main(["explain", identity]) == 0
    told = capsys.readouterr().out
    assert "asked by llm-chat at" in told
    assert "reason: above_ceiling" in told
    assert "nearest that fits: llm/chat/decode" in told
    assert main(["explain", identity, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == identity


def test_a_dry_run_says_what_would_happen_and_nothing_does(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    assert main(["scale", "llm/chat", "decode=5", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("approved: llm/chat/decode 4 to 5")
    main(["get", "pools", "-o", "json"])
    assert json.loads(capsys.readouterr().out)["pools"][0]["replicas"] == 4


def test_blocking_waits_until_the_replicas_serve(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    assert main(["scale", "llm/chat", "prefill=2", "--blocking", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "success"


def test_another_caller_may_not_scale_what_is_not_its_own(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    assert main(["scale", "llm/chat", "decode=5", "--caller", "llm-code"]) == 1
    assert "not a managed deployment that you may scale" in capsys.readouterr().out


FAULTY = {
    "a planner that is not there": (["get", "pools", "--server", "http://127.0.0.1:1"], 1, "gave no answer"),
    "a server that is no URL": (["get", "pools", "--server", "localhost:80"], 2, "must be an http or https URL"),
    "a decision that is not there": (["explain", "d-nothing"], 1, "there is no such decision"),
    "a decision that is a path": (["explain", "../budget"], 1, "there is no such decision"),
    "a deployment that is not there": (["scale", "llm/none", "decode=1", "--caller", "llm-chat"], 1, "not a managed"),
    "a role that nobody has": (["scale", "llm/chat", "worker=1"], 2, "prefill=REPLICAS or decode=REPLICAS: 'worker=1'"),
    "half a target": (["scale", "llm/chat", "decode"], 2, "prefill=REPLICAS or decode=REPLICAS: 'decode'"),
    "a negative target": (["scale", "llm/chat", "decode=-1"], 2, "prefill=REPLICAS or decode=REPLICAS"),
    "a target too high": (["scale", "llm/chat", "decode=10001"], 2, "between 0 and 10000"),
    "a role twice": (["scale", "llm/chat", "decode=3", "decode=4"], 2, "once: 'decode=3 decode=4'"),
    "half a deployment": (["scale", "chat", "decode=1"], 2, "is written NAMESPACE/NAME: 'chat'"),
    "a name that none can be": (["scale", "llm/Chat", "decode=1"], 1, "RFC 1123"),
    "a caller that none can be": (["scale", "llm/chat", "decode=1", "--caller", "\x1b[31m"], 1, "caller must be"),
    "an unknown resource": (["get", "gpus"], 2, "gpus"),
    "an unknown command": (["launch"], 2, "launch"),
    "an unknown form": (["get", "pools", "-o", "xml"], 2, "xml"),
    "an operation that is not there": (["wait", "d-nothing"], 1, "there is no such operation"),
    "a freeze that is not there": (["thaw", "f-nothing"], 1, "there is no such freeze"),
    "a freeze for no length": (["freeze", "--for", "soon", "--reason", "r"], 2, "as in 30m: 'soon'"),
    "a freeze for ever": (["freeze", "--for", "999d", "--reason", "r"], 1, "1 to 2.592e+06 seconds"),
    "a freeze without a reason": (["freeze", "--for", "1m", "--reason", ""], 1, "1 to 256 printable characters"),
    "a freeze of a pool that is not there": (
        ["freeze", "--pool", "llm/chat/worker", "--for", "1m", "--reason", "r"],
        1,
        "there is no pool llm/chat/worker",
    ),
    "a freeze sideways": (["freeze", "left", "--for", "1m", "--reason", "r"], 1, "must be one of 'up', 'down', 'all'"),
    "a request that cannot be called so": (["scale", "llm/chat", "decode=4", "--request-id", "a b"], 1, "1 to 64"),
    "no time at all": (["get", "pools", "--timeout", "0"], 2, "0"),
}


@pytest.mark.parametrize("what", FAULTY)
def test_a_fault_is_told_in_plain_lines_on_stderr(what: str, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server
    arguments, code, expected = FAULTY[what]
    assert main(arguments) == code
    told = capsys.readouterr()
    assert expected in told.err + told.out
    assert "Traceback" not in told.err
    assert "\x1b" not in told.err + told.out


def on_a_terminal(*arguments: str, **environ: str) -> str:
    """Run a command whose output is a terminal of 60 columns, and give what it shows there."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "60", "PATH": os.environ["PATH"]} | environ
    with subprocess.Popen([*GPCTL, *arguments], stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as command:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says EIO when the other side is closed
                break
            if not part:
                break
            shown += part
        assert command.wait(timeout=30) == 0
    os.close(ours)
    return shown.decode()


def test_a_terminal_gets_colours_unless_no_color_is_set(server: str) -> None:
    arguments = ("scale", "llm/code", "prefill=2", "--server", server)
    assert "\x1b[32msuccess" in on_a_terminal(*arguments)
    assert "\x1b[3" not in on_a_terminal(*arguments, NO_COLOR="1")


def test_what_is_no_planner_is_told_from_one(capsys: pytest.CaptureFixture[str]) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        Thread(target=other.handle_request).start()
        assert main(["get", "pools", "--server", f"http://127.0.0.1:{other.server_port}"]) == 1
    assert "is not a planner" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_planner_with_0(number: signal.Signals, fleet: str) -> None:
    with started("--environment", "memory", "--fleet", fleet, *ANY_PORT) as running:
        running.process.send_signal(number)
        assert running.process.wait(timeout=15) == 0


@pytest.fixture(scope="module")
def rehearsing(fleet: str) -> Iterator[str]:
    with started("--environment", "memory", "--fleet", fleet, *ANY_PORT, *BOUNDS, "--no-operation") as running:
        yield running.url


def test_without_operation_an_approved_request_is_answered_as_the_peer_does_and_nothing_changes(
    rehearsing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["get", "pools", "-o", "json", "--server", rehearsing])
    before = capsys.readouterr().out
    assert main(["scale", "llm/chat", "decode=5", "--blocking", "-o", "json", "--server", rehearsing]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["current_replicas"]) == ("success", {})
    assert answer["message"] == "[no-operation] Scale request received and logged (not executed)"
    assert answer["plan"] == [[{"participant": "llm/chat", "role": "decode", "before": 4, "after": 5}]]
    main(["get", "pools", "-o", "json", "--server", rehearsing])
    assert capsys.readouterr().out == before


def test_without_operation_a_request_is_refused_all_the_same_and_no_wish_is_remembered(
    rehearsing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scale", "llm/chat", "decode=100", "--server", rehearsing]) == 1
    assert "exceeds ceiling (16)" in capsys.readouterr().out
    main(["get", "budget", "-o", "json", "--server", rehearsing])
    assert json.loads(capsys.readouterr().out)["intents"] == 0
    main(["get", "decisions", "-o", "json", "--server", rehearsing])
    assert json.loads(capsys.readouterr().out)["decisions"][0]["status"] == "rejected"


def test_the_guides_arguments_run(fleet: str) -> None:
    guide = ("--managed-namespaces", "llm-gp-prefill-0", "llm-gp-prefill-1", "llm-gp-decode-0")
    with started("--environment", "memory", "--fleet", fleet, *ANY_PORT, *guide) as running:
        assert gpctl("scale", "llm/chat", "decode=5", server=running.url).returncode == 1


def test_an_address_that_is_taken_is_one_line_and_1(fleet: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = gpctl("planner", "--environment", "memory", "--fleet", fleet, "--listen", listen)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"gpctl: cannot listen on {listen}")
    assert "Traceback" not in ended.stderr


BAD_FLEETS = {
    "{}": "pools is missing",
    "[]": "must hold pools: []",
    "pools: [{participant: a}]": "$.pools[0]: role is missing",
    "pools: [": "fleet.yaml:1: ",
    "pools: []\ngpus: 3": "$: unknown field 'gpus'",
    "pools: []\nrelease_lag_s: -1": "$.release_lag_s: must be a number of at least 0: -1",
    "pools: []\nrequest: {}": "$: unknown field 'request'",
}


@pytest.mark.parametrize("text", BAD_FLEETS)
def test_a_fleet_is_read_strictly(text: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        cluster(path)
    assert any(BAD_FLEETS[text] in problem for problem in refused.value.problems), refused.value.problems
    assert all(problem.startswith(str(path)) for problem in refused.value.problems)


@pytest.mark.parametrize(
    "arguments", [("--environment", "memory", "--fleet", "nowhere.yaml"), ("--kubeconfig", "nowhere.yaml")]
)
def test_a_file_that_is_not_there_is_a_wrong_configuration(arguments: tuple[str, ...]) -> None:
    ended = gpctl("planner", *ANY_PORT, *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("gpctl: ")
    assert len(ended.stderr.splitlines()) == 1
    assert "nowhere.yaml" in ended.stderr


def test_the_help_is_quick_and_names_every_command() -> None:
    began = time.perf_counter()
    shown = gpctl("--help")
    took_s = time.perf_counter() - began
    assert all(
        f"  {name} " in shown.stdout
        for name in ("planner", "scale", "get", "explain", "decide", "manifests", "freeze", "wait")
    )
    assert shown.returncode == 0
    assert took_s < 3  # 0.1 s on an idle machine


@pytest.mark.parametrize(
    "command", ["planner", "decide", "manifests", "scale", "get", "explain", "freeze", "thaw", "wait"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"gpctl {command}" in capsys.readouterr().out


def test_nothing_at_all_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    told = capsys.readouterr()
    assert "Commands:" in told.out + told.err


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"gpctl \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


LAZY = {
    "planner": ["rich", "typer", "httpx"],
    "decide": ["aiohttp", "asyncio", "httpx", "rich", "typer", "yaml"],
    "manifests": ["aiohttp", "httpx", "kubernetes", "rich", "typer"],
    "scale": ["aiohttp", "gpcore", "httpx", "kubernetes", "numpy"],
}


@pytest.mark.parametrize("command", LAZY)
def test_a_command_loads_what_it_needs_alone(command: str) -> None:
    code = f"""
import sys
from gpadapters.cli import main
main([{command!r}, "--help"])
print([name for name in {LAZY[command]} if name in sys.modules], file=sys.stderr)
"""
    ended = subprocess.run([*GPCTL[:1], "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "[]\n"

"""How our planner joins a Dynamo: by the environment that Dynamo's own processes read, and beside HTTP."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.processes import Leashed
from tests.cluster.waiting import eventually
from tests.dynamo.plane import Plane, running

READY = r"planner ready at (http://\S+)"
FLEET = {"pools": [{"participant": "llm/a", "role": "prefill", "replicas": 2, "gpus_per_replica": 1}]}


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(FLEET))
    return path


def planner(plane: Plane, fleet: Path, *flags: str, **environ: str) -> Leashed:
    """Return our planner on an embedded cluster."""
    where = ("--environment", "memory", "--fleet", str(fleet), "--listen", "127.0.0.1:0")
    return plane.ours("planner", "gpadapters.cli", "planner", *where, *flags, **{"DYN_NAMESPACE": "infra", **environ})


def document(replicas: int) -> dict[str, object]:
    target = {"sub_component_type": "prefill", "desired_replicas": replicas}
    return {
        "caller_namespace": "llm-a",
        "graph_deployment_name": "a",
        "k8s_namespace": "llm",
        "target_replicas": [target],
    }


def post(url: str, replicas: int) -> tuple[int, dict[str, object]]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/scale", json.dumps(document(replicas)).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - of this machine
            return response.status, json.load(response)
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)


def test_http_and_dynamos_runtime_lead_to_one_planner(plane: Plane, fleet: Path) -> None:
    with (
        running(planner(plane, fleet, "--transport", "http,dynamo"), READY) as url,
        plane.asking("infra", POD_NAMESPACE="llm") as asking,
    ):
        assert asking.ask("scale", caller="llm-a", name="a", asked={"prefill": 3})["came"]["status"] == "success"
        assert post(url, 3)[1]["message"] == "unchanged: a is as asked"
        assert post(url, 4)[1]["status"] == "success"
        said = asking.ask("scale", caller="llm-a", name="a", asked={"prefill": 4})["came"]
        assert (said["message"], said["current_replicas"]) == ("unchanged: a is as asked", {"prefill": 4})


def test_with_dynamos_runtime_alone_http_has_probes_and_metrics_and_nothing_to_ask(plane: Plane, fleet: Path) -> None:
    with running(planner(plane, fleet, "--transport", "dynamo"), READY) as url:
        for path in ("/healthz", "/readyz", "/metrics"):
            with urllib.request.urlopen(f"{url}{path}", timeout=10) as response:  # noqa: S310 - of this machine
                assert response.status == 200
        assert post(url, 3)[0] == 404


def test_an_environment_that_the_runtime_does_not_understand_is_told_in_one_line(plane: Plane, fleet: Path) -> None:
    program = planner(plane, fleet, "--transport", "dynamo", DYN_DISCOVERY_BACKEND="pigeons")
    with running(program, "gpctl: "):
        eventually(lambda: not program.running, within_s=30)
    (line,) = [line for line in program.log.read_text().splitlines() if line.startswith("gpctl: ")]
    assert line.startswith("gpctl: Dynamo's runtime does not start: ")
    assert "pigeons" in line


def test_discovery_may_be_etcd(plane: Plane, fleet: Path, assets: Path) -> None:
    endpoints, peers = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    flags = {
        "data-dir": str(plane.folder / "etcd"),
        "listen-client-urls": endpoints,
        "advertise-client-urls": endpoints,
        "listen-peer-urls": peers,
    }
    command = [str(assets / "etcd"), *(f"--{name}={value}" for name, value in flags.items())]
    etcd = Leashed("etcd", command, log=plane.log("etcd"))
    there = {"DYN_DISCOVERY_BACKEND": "etcd", "ETCD_ENDPOINTS": endpoints}
    with (
        running(etcd, "ready to serve client requests"),
        running(planner(plane, fleet, "--transport", "dynamo", **there), READY),
        plane.asking("infra", POD_NAMESPACE="llm", **there) as asking,
    ):
        assert asking.ask("scale", caller="llm-a", name="a", asked={"prefill": 3})["came"]["status"] == "success"
    assert not (plane.folder / "discovery").exists()


def test_a_planner_that_waits_for_etcd_ends_when_it_is_told_to(plane: Plane, fleet: Path) -> None:
    nobody = {"DYN_DISCOVERY_BACKEND": "etcd", "ETCD_ENDPOINTS": f"http://127.0.0.1:{_free_port()}"}
    program = planner(plane, fleet, "--transport", "dynamo", **nobody)
    with running(program, "etcd not reachable yet"):
        os.kill(program.pid, signal.SIGTERM)
        eventually(lambda: not program.running, within_s=30)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port

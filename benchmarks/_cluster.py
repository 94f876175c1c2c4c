"""What the questions about a real cluster share: an API server with fleets, a planner beside it, kept connections.

etcd syncs every write to the disk, as in a real cluster: without that a PATCH is faster and any overhead looks larger.
The stand-in for Dynamo's operator makes the statuses and the scaling adapters of the fleets and ends before anything
is measured: in production it has a machine of its own, here it would take turns with what is measured.
"""

import contextlib
import http.client
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import attrs

from tests.chaos.lanes import install_ledgers
from tests.cluster import (
    Access,
    ApiServer,
    OperatorProcess,
    Options,
    adapters,
    components_of,
    create_all,
    eventually,
    fleet,
    graphs,
    install,
)
from tests.cluster.processes import Leashed

ASSETS = "KUBEBUILDER_ASSETS"
READY_WITHIN_S = 300.0  # a fleet that no ledger knows is adopted first, one write an object
_STATUS_WITHIN_S = 300.0
_IDLE_S = 5.0
_FAR = 1_000_000  # a ceiling that no request of a benchmark reaches; the total is held against it all the same


@contextlib.contextmanager
def api_server() -> Iterator[ApiServer]:
    """Run an API server that knows Dynamo's objects, or end here where there is none to run."""
    folder = os.environ.get(ASSETS)
    if not folder:
        sys.exit(f"{ASSETS} is not set: no folder with a kube-apiserver and an etcd to measure against")
    with ApiServer(Path(folder), Options(fsync=True)) as server:
        install(server.client)
        install_ledgers(server.client)
        yield server


def filled(server: ApiServer, *sizes: int, scaling_adapter: bool = False) -> list[str]:
    """Make a namespace with a fleet for each of *sizes*, and return their names when every status is there."""
    namespaces = [server.namespace(f"bench-{size}") for size in sizes]
    for size, namespace in zip(sizes, namespaces, strict=True):
        create_all(server.client, fleet(size, scaling_adapter=scaling_adapter), namespace=namespace)
    with OperatorProcess(server.admin, server.folder):
        for size, namespace in zip(sizes, namespaces, strict=True):
            wanted = 2 * size if scaling_adapter else 0
            eventually(partial(_settled, server, namespace, wanted), within_s=_STATUS_WITHIN_S, every_s=1.0)
    return namespaces


def _settled(server: ApiServer, namespace: str, wanted: int) -> bool:
    told = all(
        one.get("status", {}).get("observedGeneration") == one["metadata"]["generation"]
        for one in server.client.items(graphs(namespace), resourceVersion="0")
    )
    return told and len(server.client.items(adapters(namespace), resourceVersion="0")) == wanted


class Kept:
    """One kept connection that sends bytes and gives bytes back; never shared between threads."""

    def __init__(self, url: str, headers: dict[str, str], *, ca: str | None = None) -> None:
        """Prepare to speak with *url*; *ca* verifies it where it is https."""
        where = urlsplit(url)
        host, port = str(where.hostname), where.port
        self._headers = {"Accept": "application/json", **headers}
        self._used_at = 0.0
        self._connection = (
            http.client.HTTPSConnection(host, port, timeout=60, context=ssl.create_default_context(cadata=ca))
            if ca
            else http.client.HTTPConnection(host, port, timeout=60)
        )

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._connection.close()

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request and return the status and the body of the answer."""
        if time.monotonic() - self._used_at > _IDLE_S:
            self._connection.close()  # it opens itself again; the other side may have closed it by now
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        self._used_at = time.monotonic()
        return response.status, answer


@attrs.frozen
class Target:
    """The prefill workers of deployment *number* of a fleet: scaled through the planner, or by a bare PATCH."""

    namespace: str
    number: int
    scaling_adapter: bool = False

    @property
    def name(self) -> str:
        """Return the name of the deployment."""
        return f"model-{self.number:04}"

    @property
    def path(self) -> str:
        """Return the path of the object whose replicas count."""
        if self.scaling_adapter:
            return adapters(self.namespace, f"{self.name}-vllmprefillworker")
        return graphs(self.namespace, self.name)

    def patch(self, replicas: int) -> bytes:
        """Return the least JSON patch that sets *replicas*."""
        pointer = "/spec/replicas" if self.scaling_adapter else "/spec/components/1/replicas"
        return json.dumps([{"op": "replace", "path": pointer, "value": replicas}]).encode()

    def request(self, replicas: int) -> bytes:
        """Return the request for *replicas* as a local planner sends it."""
        target = {"sub_component_type": "prefill", "desired_replicas": replicas}
        return json.dumps(
            {
                "caller_namespace": f"{self.namespace}-{self.name}",
                "graph_deployment_name": self.name,
                "k8s_namespace": self.namespace,
                "target_replicas": [target],
            }
        ).encode()


@attrs.frozen
class Process:
    """A running `gpctl planner`, and what the system says of it."""

    url: str
    pid: int

    @property
    def cpu_s(self) -> float:
        """Return the seconds of processor time that it has used."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(one.read_text().split()[0]) for one in threads) / 1e9

    @property
    def peak_mb(self) -> float:
        """Return the most memory that it has had, in MB."""
        (line,) = [line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmHWM" in line]
        return int(line.split()[1]) * 1024 / 1e6


@contextlib.contextmanager
def planner(
    server: ApiServer, namespace: str, *, access: Access | None = None, ledger: str = "kubernetes"
) -> Iterator[Process]:
    """Run `gpctl planner` on *namespace*, and give it when it is ready; see `planner_command`."""
    log = server.folder / f"planner-{namespace}.log"
    log.unlink(missing_ok=True)  # what one before it has said
    process = Leashed("planner", planner_command(server, namespace, access=access, ledger=ledger), log=log)
    process.start()
    try:
        found = eventually(lambda: re.search(r"ready.* (http://[^\s\"]+)", process.tail(100)), within_s=READY_WITHIN_S)
        assert found is not None
        yield Process(found[1], process.pid)
    except TimeoutError:
        raise TimeoutError(process.tail()) from None
    finally:
        process.kill()


def planner_command(
    server: ApiServer,
    namespace: str,
    *,
    listen: str = "127.0.0.1:0",
    access: Access | None = None,
    ledger: str = "kubernetes",
) -> Sequence[str]:
    """Return the command of a planner of *namespace* whose budget is on; *access* None: the admin's."""
    file = server.folder / f"planner-{namespace}.json"
    kubeconfig = (access or server.admin).write_kubeconfig(file, namespace=namespace)
    where = ("--kubeconfig", str(kubeconfig), "--kubernetes-namespaces", namespace, "--listen", listen)
    budget = ("--min-total-gpus", "1", "--max-total-gpus", str(_FAR), "--ledger", ledger)
    return (sys.executable, "-m", "gpadapters.cli", "planner", *where, *budget)


def check_shape(server: ApiServer, namespace: str) -> int:
    """Make sure that `Target` means the prefill workers, and return the size of a deployment in bytes."""
    obj: dict[str, Any] = server.client.get(graphs(namespace, "model-0000"))
    assert components_of(obj)[1].type == "prefill"
    return len(json.dumps(obj, separators=(",", ":")))


def busy() -> str:
    """Return how busy the machine was of late, for whoever reads the numbers."""
    return f"{time.strftime('%H:%M')}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"

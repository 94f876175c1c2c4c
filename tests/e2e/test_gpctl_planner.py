"""The whole way on a real API server: `gpctl manifests` is applied, `gpctl planner` runs as a process under the
ServiceAccount and Role that it printed, and `gpctl scale` changes the replicas of a deployment.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import httpx
import pytest

from tests.adapters.cli.running import Daemon, gpctl, started
from tests.cluster import (
    ApiError,
    ApiServer,
    Client,
    FakeOperator,
    Json,
    components_of,
    disaggregated,
    existing_is_fine,
    path_of,
)
from tests.cluster.client import collection_of
from tests.cluster.waiting import eventually

GRAPHS = "nvidia.com/v1beta1"
LEDGERS = "gpcore.dev/v1alpha1"
LEASES = "coordination.k8s.io/v1"
NAME = "global-planner"


@attrs.frozen
class Installed:
    """What `gpctl manifests planner` printed, applied; and the rights of its account."""

    namespace: str
    objects: list[Json]
    kubeconfig: Path
    account: Client

    @property
    def arguments(self) -> list[str]:
        """Give the planner's arguments as its Deployment has them, but for a free port of this machine alone."""
        (deployment,) = [one for one in self.objects if one["kind"] == "Deployment"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        listen = container["args"].index("--listen")
        inside: list[str] = container["args"]
        return [*inside[: listen + 1], "127.0.0.1:0", *inside[listen + 2 :], "--kubeconfig", str(self.kubeconfig)]


@pytest.fixture
def installed(cluster: ApiServer, namespace: str, tmp_path: Path) -> Iterator[Installed]:
    managed = [f"{namespace}-a", f"{namespace}-b"]
    flags = ["--namespace", namespace, "--managed-namespaces", *managed, "--max-total-gpus", "8"]
    objects = json.loads(gpctl("manifests", "planner", "-o", "json", *flags).stdout)["items"]
    for one in objects:
        with existing_is_fine():  # the definition of ledgers is the whole server's
            cluster.client.request("POST", collection_of(one), one)
    eventually(lambda: served(cluster.client, namespace))
    access = cluster.service_account(namespace, NAME)
    kubeconfig = access.write_kubeconfig(tmp_path / "kubeconfig", namespace=namespace)
    with Client(access) as account:
        yield Installed(namespace, objects, kubeconfig, account)


def served(client: Client, namespace: str) -> bool:
    try:
        return client.items(path_of(LEDGERS, "gpuledgers", namespace=namespace)) == []
    except ApiError:
        return False


@pytest.fixture
def planner(installed: Installed, client: Client, operator: FakeOperator) -> Iterator[Daemon]:
    assert operator is not None
    client.create(disaggregated("a", prefill=2, decode=2), namespace=installed.namespace)
    client.create(disaggregated("b", prefill=1, decode=1, scaling_adapter=True), namespace=installed.namespace)
    with started(*installed.arguments, POD_NAMESPACE=installed.namespace) as running:
        yield running


def replicas(client: Client, namespace: str, name: str) -> dict[str, int]:
    graph = client.get(path_of(GRAPHS, "dynamographdeployments", namespace=namespace, name=name))
    return {one.type: one.wanted for one in components_of(graph) if one.type in {"prefill", "decode"}}


def test_a_request_changes_a_deployment_under_the_rights_that_were_printed(
    planner: Daemon, installed: Installed, client: Client
) -> None:
    here = installed.namespace
    scaled = gpctl("scale", f"{here}/a", "prefill=3", "-o", "json", server=planner.url)
    assert (scaled.returncode, json.loads(scaled.stdout)["status"]) == (0, "success"), scaled
    assert replicas(client, here, "a") == {"prefill": 3, "decode": 2}
    assert httpx.get(f"{planner.url}/readyz", trust_env=False).json() == {"status": "ready", "conditions": []}


def test_what_is_promised_is_on_record_and_who_leads_too(planner: Daemon, installed: Installed, client: Client) -> None:
    here = installed.namespace
    assert gpctl("scale", f"{here}/a", "prefill=3", server=planner.url).returncode == 0
    eventually(lambda: client.get(path_of(LEDGERS, "gpuledgers", namespace=here, name="default"))["spec"]["gpus"] == 7)
    ledger = client.get(path_of(LEDGERS, "gpuledgers", namespace=here, name="default"))["spec"]
    assert (ledger["state"], ledger["ceiling"], len(ledger["entries"])) == ("Active", 8, 3)
    lease = client.get(path_of(LEASES, "leases", namespace=here, name="gp-default"))
    assert lease["metadata"]["annotations"]["gpcore.dev/leader-address"] == planner.url


def test_what_was_done_is_an_audit_line_and_an_event_under_the_rights_that_were_printed(
    installed: Installed, client: Client, operator: FakeOperator, tmp_path: Path
) -> None:
    assert operator is not None
    here, log = installed.namespace, tmp_path / "audit.jsonl"
    client.create(disaggregated("a", prefill=2, decode=2), namespace=here)
    with started(*installed.arguments, "--audit-log", str(log), POD_NAMESPACE=here) as planner:
        assert gpctl("scale", f"{here}/a", "prefill=3", server=planner.url).returncode == 0
        (text,) = eventually(lambda: log.read_text().splitlines())
        record = json.loads(text)
        assert (record["participant"], record["status"]) == (f"{here}/a", "success")
        assert (record["gpus_before"], record["gpus_after"]) == (4, 5)
        assert record["changes"].startswith(f"{here}/a/prefill 2 to 3: done (")
        (event,) = eventually(lambda: client.items(path_of("events.k8s.io/v1", "events", namespace=here)))
        assert event["metadata"]["annotations"] == {"gpcore.dev/operation": record["id"]}
        assert event["regarding"]["name"] == "a"


def test_a_request_changes_a_scaling_adapter_where_there_is_one(
    planner: Daemon, installed: Installed, client: Client
) -> None:
    here = installed.namespace
    scaled = gpctl("scale", f"{here}/b", "decode=2", server=planner.url)
    assert scaled.returncode == 0, scaled
    eventually(lambda: replicas(client, here, "b") == {"prefill": 1, "decode": 2})


def test_what_does_not_fit_is_refused_and_nothing_changes(
    planner: Daemon, installed: Installed, client: Client
) -> None:
    here = installed.namespace
    refused = gpctl("scale", f"{here}/a", "prefill=9", server=planner.url)
    assert refused.returncode == 1
    assert "the largest count that fits is 4" in refused.stdout
    assert replicas(client, here, "a") == {"prefill": 2, "decode": 2}


def test_a_signal_stops_the_planner_cleanly(planner: Daemon) -> None:
    planner.process.send_signal(signal.SIGTERM)
    assert planner.process.wait(timeout=15) == 0


FORBIDDEN: dict[str, Callable[[Client, str], object]] = {
    "create a deployment": lambda account, here: account.create(disaggregated("c"), namespace=here),
    "delete a deployment": lambda account, here: account.delete(
        path_of(GRAPHS, "dynamographdeployments", namespace=here, name="a")
    ),
    "replace a deployment": lambda account, here: account.replace(
        path_of(GRAPHS, "dynamographdeployments", namespace=here, name="a"), disaggregated("a")
    ),
    "write a status": lambda account, here: account.merge(
        path_of(GRAPHS, "dynamographdeployments", namespace=here, name="a", sub="status"), {"status": {}}
    ),
    "read secrets": lambda account, here: account.get(path_of("v1", "secrets", namespace=here)),
    "read events": lambda account, here: account.get(path_of("events.k8s.io/v1", "events", namespace=here)),
    "see pods": lambda account, here: account.get(path_of("v1", "pods", namespace=here)),
    "look elsewhere": lambda account, _: account.get(path_of(GRAPHS, "dynamographdeployments", namespace="default")),
    "look everywhere": lambda account, _: account.get(path_of(GRAPHS, "dynamographdeployments")),
    "delete the ledger": lambda account, here: account.delete(
        path_of(LEDGERS, "gpuledgers", namespace=here, name="default")
    ),
    "change another ledger": lambda account, here: account.merge(
        path_of(LEDGERS, "gpuledgers", namespace=here, name="other"), {"spec": {}}
    ),
    "read another lease": lambda account, here: account.get(
        path_of(LEASES, "leases", namespace=here, name="somebody-elses")
    ),
    "change its own rights": lambda account, here: account.merge(
        path_of("rbac.authorization.k8s.io/v1", "roles", namespace=here, name=NAME), {"rules": []}
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_account_may_not(what: str, installed: Installed, client: Client) -> None:
    client.create(disaggregated("a"), namespace=installed.namespace)
    with pytest.raises(ApiError) as refused:
        FORBIDDEN[what](installed.account, installed.namespace)
    assert refused.value.status == 403


def test_the_pod_is_one_that_the_api_server_takes(installed: Installed, client: Client) -> None:
    (deployment,) = [one for one in installed.objects if one["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    spec = template["spec"] | {"automountServiceAccountToken": False}  # no controller of this server makes tokens
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
    pod["metadata"] = {**template["metadata"], "name": "once", "namespace": installed.namespace}
    taken = client.request("POST", collection_of(pod), pod, query={"dryRun": "All"})
    assert taken["spec"]["serviceAccountName"] == NAME


def test_an_account_without_the_role_never_becomes_ready(cluster: ApiServer, namespace: str, tmp_path: Path) -> None:
    kubeconfig = cluster.service_account(namespace, "nobody").write_kubeconfig(tmp_path / "kubeconfig")
    command = [sys.executable, "-m", "gpadapters.cli", "planner", "--kubeconfig", str(kubeconfig)]
    planner = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--kubernetes-namespaces", namespace],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"POD_NAMESPACE": ""},
    )
    with planner:
        assert planner.stderr is not None
        assert any("403" in line or "forbidden" in line.lower() for line in planner.stderr)
        planner.terminate()
        assert planner.wait(timeout=15) == 0

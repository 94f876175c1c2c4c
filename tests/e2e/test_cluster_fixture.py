"""The fixture itself: what the end-to-end tests stand on must not be what fails."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import (
    BOTH,
    V1ALPHA1,
    V1BETA1,
    ApiError,
    ApiServer,
    Behaviour,
    Client,
    FakeOperator,
    Json,
    OperatorProcess,
    Options,
    Served,
    StartError,
    adapters,
    converted,
    create_all,
    deploy,
    disaggregated,
    eventually,
    fleet,
    graphs,
    install,
    path_of,
    pool,
    topology,
)
from tests.cluster.pods import Pods
from tests.cluster.topologies import NAMES

WORKER = "VllmPrefillWorker"


def worker_of(graph: Json) -> Json:
    workers: list[Json] = [component for component in graph["spec"]["components"] if component["name"] == WORKER]
    return workers[0]


def status_of_worker(graph: Json) -> Json:
    status: Json = graph.get("status", {}).get("components", {}).get(WORKER, {})
    return status


def scale(client: Client, namespace: str, adapter: str, replicas: int) -> None:
    path = adapters(namespace, adapter, sub="scale")
    client.merge(path, {"spec": {"replicas": replicas}})


@pytest.fixture
def adapted(client: Client, namespace: str, operator: FakeOperator) -> Iterator[str]:
    """Give the namespace of pool `p`, scaled by adapter `p-vllmprefillworker`, settled at 2 replicas."""
    client.create(pool("p", replicas=2, scaling_adapter=True), namespace=namespace)
    eventually(lambda: status_of_worker(client.get(graphs(namespace, "p"))).get("readyReplicas") == 2)
    eventually(lambda: client.items(adapters(namespace))[0].get("status", {}).get("replicas") == 2)
    yield namespace
    operator.behave(Behaviour())


class TestTheServer:
    def test_serves_loopback_tls_to_its_admin_and_nobody_else(self, api_server: ApiServer) -> None:
        assert api_server.url.startswith("https://127.0.0.1:")
        assert api_server.client.get("/version")["gitVersion"].startswith("v1.20")
        access = api_server.service_account("default", "stranger")
        with Client(access) as stranger, pytest.raises(ApiError) as refused:
            stranger.get(path_of("v1", "configmaps", namespace="default"))
        assert refused.value.status == 403

    def test_a_service_account_may_do_what_its_role_says(self, cluster: ApiServer, namespace: str) -> None:
        access = cluster.service_account(namespace, "reader")
        rules = [{"apiGroups": ["nvidia.com"], "resources": ["dynamographdeployments"], "verbs": ["list"]}]
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
        head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader", "namespace": namespace}}
        cluster.client.create({**head, "kind": "Role", "rules": rules})
        cluster.client.create({**head, "kind": "RoleBinding", "subjects": [subject], "roleRef": role})
        with Client(access) as reader:
            assert eventually(lambda: allowed(reader, graphs(namespace)))
            assert not allowed(reader, graphs())

    def test_a_kubeconfig_leads_the_official_client_to_it(self, api_server: ApiServer, tmp_path: Path) -> None:
        kubernetes = pytest.importorskip("kubernetes")
        path = api_server.admin.write_kubeconfig(tmp_path / "config")
        assert path.stat().st_mode & 0o777 == 0o600
        client = kubernetes.config.new_client_from_config(str(path))
        with client:
            assert kubernetes.client.VersionApi(client).get_code().git_version.startswith("v1.20")

    def test_an_empty_folder_of_programs_is_an_error_of_the_fixture(self, tmp_path: Path) -> None:
        with pytest.raises(StartError, match="is not an executable file"):
            ApiServer(tmp_path)

    def test_survives_a_kill_with_its_data_and_drops_the_watches(self, assets: Path) -> None:
        with ApiServer(assets, Options(audit=True)) as server:
            install(server.client)
            namespace = server.namespace()
            server.client.create(pool("p"), namespace=namespace)
            with server.client.watch(graphs(namespace)) as watch:
                events = iter(watch)
                assert next(events)["type"] == "ADDED"
                server.kill()
                with contextlib.suppress(OSError, http.client.HTTPException):  # some kills look like a clean end
                    assert list(events) == []
            with pytest.raises(ConnectionError):
                server.client.get("/readyz")
            server.restart()
            assert [graph["metadata"]["name"] for graph in server.client.items(graphs(namespace))] == ["p"]
            verbs = [json.loads(line)["verb"] for line in server.audit_file.read_text().splitlines()]
            assert "create" in verbs

    def test_a_paused_server_answers_nothing_until_it_is_resumed(self, api_server: ApiServer) -> None:
        with Client(api_server.admin, timeout_s=0.2) as hurried:
            hurried.get("/version")
            api_server.apiserver.pause()
            try:
                with pytest.raises(TimeoutError):
                    hurried.get("/version")
            finally:
                api_server.apiserver.resume()
        assert eventually(lambda: allowed(api_server.client, "/version"))

    def test_stop_leaves_no_process_and_no_folder(self, assets: Path) -> None:
        server = ApiServer(assets).start()
        pids, folder = [server.etcd.pid, server.apiserver.pid], server.folder
        server.stop()
        server.stop()
        assert not any(alive(pid) for pid in pids)
        assert not folder.exists()

    def test_nothing_survives_when_the_tests_themselves_are_killed(self, assets: Path, tmp_path: Path) -> None:
        with subprocess.Popen(
            (sys.executable, "-c", KILLED_SOON, str(assets)),
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "TMPDIR": str(tmp_path)},
        ) as tests:
            assert tests.stdout is not None
            pids = json.loads(tests.stdout.readline())
            assert all(alive(pid) for pid in pids)
            os.kill(tests.pid, signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in pids))


KILLED_SOON = """
import json, sys, threading, time
from pathlib import Path
from tests.cluster import ApiServer
server = ApiServer(Path(sys.argv[1]))
thread = threading.Thread(target=server.start)  # what forked must not matter
thread.start()
thread.join()
print(json.dumps([server.etcd.pid, server.apiserver.pid]), flush=True)
time.sleep(60)
"""


def allowed(client: Client, path: str) -> bool:
    try:
        client.get(path)
    except ApiError as error:
        if error.status != 403:
            raise
        return False
    return True


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class TestTheDefinitions:
    @pytest.mark.parametrize("wanted", [V1ALPHA1, V1BETA1, BOTH], ids=["v1alpha1", "v1beta1", "both"])
    def test_exactly_the_wanted_versions_are_served(self, api_server: ApiServer, wanted: Served) -> None:
        install(api_server.client, wanted)
        listed = api_server.client.get("/apis/nvidia.com")
        assert {version["version"] for version in listed["versions"]} == set(wanted.versions)

    @pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
    def test_what_is_built_is_stored_as_it_is(self, api_server: ApiServer, version: str) -> None:
        install(api_server.client, {"v1alpha1": V1ALPHA1, "v1beta1": V1BETA1}[version])
        built = disaggregated("d", scaling_adapter=True, version=version)
        stored = api_server.client.create(built, namespace=api_server.namespace())
        assert stored["spec"] == built["spec"]

    def test_a_status_write_changes_no_generation_and_a_spec_write_no_status(
        self, client: Client, namespace: str
    ) -> None:
        client.create(pool("p"), namespace=namespace)
        client.merge(graphs(namespace, "p", sub="status"), {"status": {"state": "failed"}, "spec": {"x": 1}})
        client.merge(graphs(namespace, "p"), {"spec": {"y": 1}, "status": {"state": "successful"}})
        graph = client.get(graphs(namespace, "p"))
        assert graph["metadata"]["generation"] == 2
        assert graph["status"] == {"state": "failed"}
        assert "x" not in graph["spec"]

    def test_nonsense_is_refused_by_the_schema(self, client: Client, namespace: str) -> None:
        for change in ({"replicas": -1}, {"replicas": "2"}, {"type": "default"}, {"name": "a b"}):
            graph = pool("p")
            worker_of(graph).update(change)
            with pytest.raises(ApiError) as refused:
                client.create(graph, namespace=namespace)
            assert refused.value.status == 422


class TestConversion:
    @pytest.fixture
    def served(self) -> Served:
        return BOTH

    def test_an_object_reads_in_either_version(self, client: Client, namespace: str) -> None:
        client.create(pool("old", gpus=2, version="v1alpha1"), namespace=namespace)
        client.create(pool("new", gpus=2), namespace=namespace)
        for name in ("old", "new"):
            alpha = client.get(graphs(namespace, name, version="v1alpha1"))
            beta = client.get(graphs(namespace, name))
            assert alpha["spec"]["services"][WORKER]["subComponentType"] == "prefill"
            assert alpha["spec"]["services"][WORKER]["resources"]["limits"]["gpu"] == "2"
            assert worker_of(beta)["type"] == "prefill"
            assert "services" not in beta["spec"]

    def test_the_operator_works_on_both(self, client: Client, namespace: str, operator: FakeOperator) -> None:
        assert operator is not None
        client.create(pool("old", scaling_adapter=True, version="v1alpha1"), namespace=namespace)
        eventually(lambda: client.items(adapters(namespace)))
        scale(client, namespace, "old-vllmprefillworker", 3)
        eventually(lambda: status_of_worker(client.get(graphs(namespace, "old"))).get("replicas") == 3)
        alpha = client.get(graphs(namespace, "old", version="v1alpha1"))
        assert alpha["status"]["services"][WORKER]["replicas"] == 3
        reference = client.get(adapters(namespace, "old-vllmprefillworker", version="v1alpha1"))["spec"]["dgdRef"]
        assert reference == {"name": "old", "serviceName": WORKER}

    def test_there_and_back_again_changes_only_the_order(self) -> None:
        built = disaggregated("d", scaling_adapter=True)
        back = converted(converted(built, "v1alpha1"), "v1beta1")
        in_order = sorted(built["spec"]["components"], key=lambda component: component["name"])
        assert back["spec"].pop("components") == in_order
        built["spec"].pop("components")
        assert back == built


class TestTheOperator:
    def test_makes_an_adapter_of_each_component_that_opted_in(self, client: Client, adapted: str) -> None:
        (adapter,) = client.items(adapters(adapted))
        assert adapter["metadata"]["name"] == "p-vllmprefillworker"
        assert adapter["spec"] == {"replicas": 2, "dgdRef": {"name": "p", "componentName": WORKER}}

    def test_reports_readiness_and_gpus(self, client: Client, adapted: str) -> None:
        graph = client.get(graphs(adapted, "p"))
        assert graph["status"]["observedGeneration"] == graph["metadata"]["generation"] == 1
        assert [(c["type"], c["status"]) for c in graph["status"]["conditions"]] == [("Ready", "True")]
        assert status_of_worker(graph)["gpusPerReplica"] == 1
        assert graph["status"]["components"]["Planner"]["gpusPerReplica"] == 0

    def test_relays_an_adapter_with_lag(self, client: Client, adapted: str, operator: FakeOperator) -> None:
        operator.behave(Behaviour(relay_s=0.3))
        before = time.monotonic()
        scale(client, adapted, "p-vllmprefillworker", 5)
        assert worker_of(client.get(graphs(adapted, "p")))["replicas"] == 2
        eventually(lambda: worker_of(client.get(graphs(adapted, "p")))["replicas"] == 5)
        assert time.monotonic() - before >= 0.3

    def test_puts_back_a_count_that_was_changed_beside_the_adapter(self, client: Client, adapted: str) -> None:
        index = [c["name"] for c in client.get(graphs(adapted, "p"))["spec"]["components"]].index(WORKER)
        write = {"op": "replace", "path": f"/spec/components/{index}/replicas", "value": 7}
        client.patch(graphs(adapted, "p"), [write])
        eventually(lambda: worker_of(client.get(graphs(adapted, "p")))["replicas"] == 2)

    def test_a_slow_termination_keeps_replicas_in_the_status(
        self, client: Client, adapted: str, operator: FakeOperator
    ) -> None:
        operator.behave(Behaviour(termination_s=0.5))
        scale(client, adapted, "p-vllmprefillworker", 1)
        eventually(lambda: status_of_worker(client.get(graphs(adapted, "p")))["updatedReplicas"] == 1)
        assert status_of_worker(client.get(graphs(adapted, "p")))["replicas"] == 2
        assert client.get(adapters(adapted, "p-vllmprefillworker"))["spec"]["replicas"] == 1
        eventually(lambda: status_of_worker(client.get(graphs(adapted, "p")))["replicas"] == 1)

    def test_a_slow_start_is_not_ready(self, client: Client, adapted: str, operator: FakeOperator) -> None:
        operator.behave(Behaviour(startup_s=0.5))
        scale(client, adapted, "p-vllmprefillworker", 3)
        eventually(lambda: status_of_worker(client.get(graphs(adapted, "p")))["replicas"] == 3)
        graph = client.get(graphs(adapted, "p"))
        assert (status_of_worker(graph)["readyReplicas"], graph["status"]["conditions"][0]["status"]) == (2, "False")
        eventually(lambda: status_of_worker(client.get(graphs(adapted, "p")))["readyReplicas"] == 3)

    def test_a_paused_operator_catches_up(self, client: Client, adapted: str, operator: FakeOperator) -> None:
        operator.pause()
        scale(client, adapted, "p-vllmprefillworker", 4)
        time.sleep(0.2)
        assert worker_of(client.get(graphs(adapted, "p")))["replicas"] == 2
        operator.resume()
        eventually(lambda: status_of_worker(client.get(graphs(adapted, "p")))["replicas"] == 4)

    def test_deletes_the_adapters_of_a_deleted_graph_and_serves_its_successor(
        self, client: Client, adapted: str
    ) -> None:
        client.delete(graphs(adapted, "p"))
        eventually(lambda: not client.items(adapters(adapted)))
        client.create(pool("p", replicas=3, scaling_adapter=True), namespace=adapted)
        eventually(lambda: [adapter["spec"]["replicas"] for adapter in client.items(adapters(adapted))] == [3])
        eventually(lambda: status_of_worker(client.get(graphs(adapted, "p"))).get("replicas") == 3)

    def test_outlives_a_kill_of_the_server(self, assets: Path) -> None:
        with ApiServer(assets) as server:
            install(server.client)
            namespace = server.namespace()
            with FakeOperator(server.admin):
                server.client.create(pool("a"), namespace=namespace)
                eventually(lambda: status_of_worker(server.client.get(graphs(namespace, "a"))))
                server.kill()
                server.restart()
                server.client.create(pool("b"), namespace=namespace)
                eventually(lambda: status_of_worker(server.client.get(graphs(namespace, "b"))))

    def test_runs_in_a_process_of_its_own(self, cluster: ApiServer, namespace: str, tmp_path: Path) -> None:
        create_all(cluster.client, fleet(20), namespace=namespace)
        with OperatorProcess(cluster.admin, tmp_path, Behaviour(gpu_status=False)):
            eventually(lambda: all("status" in graph for graph in cluster.client.items(graphs(namespace))))
        assert "gpusPerReplica" not in status_of_worker(cluster.client.get(graphs(namespace, "model-0000")))


class TestPods:
    def test_pods_neither_start_nor_end_before_their_time(self) -> None:
        up = Pods(2, ready=2, present=2).observed(5)
        assert up == Pods(5, ready=2, present=5)
        assert up.started(5) == Pods(5, ready=5, present=5)
        down = Pods(5, ready=5, present=5).observed(1)
        assert down == Pods(1, ready=1, present=5)
        assert down.terminated(1) == Pods(1, ready=1, present=1)

    def test_a_change_of_mind_keeps_what_is_wanted_again(self) -> None:
        again = Pods(5, ready=5, present=5).observed(1).observed(4)
        assert again.terminated(1) == Pods(4, ready=1, present=4)
        assert Pods(5, ready=2, present=5).observed(3).started(5) == Pods(3, ready=3, present=5)


class TestTopologies:
    @pytest.mark.parametrize("name", NAMES)
    def test_both_versions_say_the_same(self, name: str) -> None:
        alpha = topology(name, namespace="ns", version="v1alpha1")
        beta = topology(name, namespace="ns")
        graphs_in = [obj["kind"] == "DynamoGraphDeployment" for obj in alpha]
        assert [
            converted(obj, "v1beta1") if is_graph else obj for obj, is_graph in zip(alpha, graphs_in, strict=True)
        ] == beta

    @pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
    def test_the_server_takes_them_all(self, api_server: ApiServer, version: str) -> None:
        install(api_server.client, {"v1alpha1": V1ALPHA1, "v1beta1": V1BETA1}[version])
        counts = {}
        for name in NAMES:
            namespace = api_server.namespace()
            deploy(api_server.client, topology(name, namespace=namespace, version=version), namespace=namespace)
            counts[name] = len(api_server.client.items(graphs(namespace, version=version)))
        assert list(counts.values()) == [4, 3, 5]

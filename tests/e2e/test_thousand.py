"""A thousand deployments on a real API server, and the real planner as a process: requests flow while others delete,
recreate and change deployments behind its back, and the ceiling holds at every revision of the cluster.

Rules of this file: what the ceiling is held against is told by a watch of the API server, never by the planner. Others
only take replicas away, since no planner can keep what they add under a ceiling. No operator runs: nobody asks here
how pods follow, and a thousand statuses would take longer than all the rest.
"""

import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import attrs
import httpx
import pytest

from tests.adapters.cli.running import GPCTL
from tests.cluster import ApiServer, Client, Json, Watch, components_of, create_all, disaggregated, graphs
from tests.cluster.objects import replicas_pointer
from tests.cluster.processes import Leashed
from tests.cluster.waiting import eventually

COUNT = 1_000
CEILING = 2 * COUNT + 24
ASKED_FOR = range(100)  # the deployments that requests, and others, are about
CALLERS = 4
REQUESTS = 60  # by each of them
GONE, LOWERED = 10, 30


def name_of(number: int) -> str:
    return f"model-{number:04}"


def charge(graph: Json) -> int:
    return sum(one.wanted * (one.gpus_per_replica or 0) for one in components_of(graph))


@attrs.define
class Totals:
    """The GPUs that all deployments of a namespace want, at every revision that a watch shows."""

    charges: dict[str, int]
    shown: dict[str, int] = attrs.field(factory=dict)  # the total by revision

    def follow(self, watch: Watch) -> None:
        for event in watch:
            metadata = event["object"]["metadata"]
            self.charges[metadata["name"]] = 0 if event["type"] == "DELETED" else charge(event["object"])
            self.shown[metadata["resourceVersion"]] = sum(self.charges.values())


@contextmanager
def watched(client: Client, namespace: str) -> Iterator[Totals]:
    """Follow the totals while the body runs, to the last revision that it made."""
    listed = client.get(graphs(namespace))
    totals = Totals({one["metadata"]["name"]: charge(one) for one in listed["items"]})
    with client.watch(graphs(namespace), resourceVersion=listed["metadata"]["resourceVersion"]) as watch:
        thread = threading.Thread(target=totals.follow, args=(watch,))
        thread.start()
        try:
            yield totals
            last = client.create(disaggregated("last", prefill=0, decode=0), namespace=namespace)
            eventually(lambda: last["metadata"]["resourceVersion"] in totals.shown, within_s=30)
        finally:
            watch.end()
            thread.join(timeout=10)


def ask(url: str, namespace: str, seed: int) -> Counter[str]:
    """Ask for other replicas of this and that deployment, one after the other, and count the answers by status."""
    chance, answers = random.Random(seed), Counter[str]()  # noqa: S311 - the same on every run
    with httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(REQUESTS):
            name = name_of(chance.choice(ASKED_FOR))
            role, replicas = chance.choice(("prefill", "decode")), chance.randint(0, 4)
            request = {
                "caller_namespace": f"{namespace}-{name}",
                "graph_deployment_name": name,
                "k8s_namespace": namespace,
                "target_replicas": [{"sub_component_type": role, "desired_replicas": replicas}],
            }
            answer = http.post("/v1/scale", json=request)
            assert answer.status_code in {HTTPStatus.OK, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}, answer.text
            answers[answer.json()["status"]] += 1
    return answers


def meddle(client: Client, namespace: str) -> None:
    """Delete deployments, make others of the same names, and take replicas from some, one thing after the other."""
    chance = random.Random(7)  # noqa: S311 - the same on every run
    for number in chance.sample(ASKED_FOR, GONE):
        client.delete(graphs(namespace, name_of(number)))
        client.create(disaggregated(name_of(number), prefill=0, decode=0), namespace=namespace)
    for number in chance.sample(ASKED_FOR, LOWERED):
        path = graphs(namespace, name_of(number))
        pointer = replicas_pointer(client.get(path), "VllmDecodeWorker")
        client.patch(path, [{"op": "replace", "path": pointer, "value": 0}])


@pytest.fixture
def fleet_of_a_thousand(client: Client, namespace: str) -> Iterator[str]:
    create_all(client, [disaggregated(name_of(number)) for number in range(COUNT)], namespace=namespace)
    yield namespace
    client.delete(graphs(namespace))  # the next test's operator would give each of them a status first


@pytest.fixture
def planner_url(cluster: ApiServer, fleet_of_a_thousand: str, tmp_path: Path) -> Iterator[str]:
    kubeconfig = cluster.admin.write_kubeconfig(tmp_path / "kubeconfig")
    where = ("--kubeconfig", str(kubeconfig), "--kubernetes-namespaces", fleet_of_a_thousand)
    bounds = ("--max-total-gpus", str(CEILING), "--confirm-release", "spec")  # no operator tells what is released
    command = (*GPCTL, "planner", *where, "--listen", "127.0.0.1:0", *bounds)
    planner = Leashed("planner", command, log=tmp_path / "planner.log")  # a pipe that nobody reads would stop it
    planner.start()
    try:
        found = eventually(lambda: re.search(r"ready at (http://\S+)", planner.tail()), within_s=30)
        assert found is not None
        yield found[1]
    finally:
        planner.kill()


def test_the_ceiling_holds_at_every_revision_of_a_thousand_deployments(
    planner_url: str, fleet_of_a_thousand: str, client: Client
) -> None:
    here = fleet_of_a_thousand
    assert len(httpx.get(f"{planner_url}/v1/pools", timeout=30).json()["pools"]) == 2 * COUNT
    with watched(client, here) as totals, ThreadPoolExecutor(CALLERS + 1) as threads:
        asking = [threads.submit(ask, planner_url, here, seed) for seed in range(CALLERS)]
        threads.submit(meddle, client, here).result()
        answers = sum((one.result() for one in asking), Counter[str]())

    assert max(totals.shown.values()) <= CEILING
    assert max(totals.shown.values()) > CEILING - 4, "the ceiling was never near"
    assert min(answers["success"], answers["rejected"]) > CALLERS * REQUESTS / 10, answers
    final = sum(totals.charges.values())
    eventually(lambda: httpx.get(f"{planner_url}/v1/budget").json()["charged"] == final)

"""Which pods hold GPUs, of which deployment and component, and what of that confirms a release."""

import json

import pytest

from gpadapters.kubernetes.fleet import Reach, joined
from gpadapters.kubernetes.objects import Graph, read_graph
from gpadapters.kubernetes.pods import COMPONENT_LABEL, GRAPH_LABEL, Release, Worker, holding, read_pod
from gpcore.pools import ParticipantId, Pool
from tests.adapters.kubernetes.scripted import DOMAIN, Json, graph


def pod(phase: str | None = "Running", *, of: str | None = "a", component: str = "w", **more: object) -> Worker:
    labels: Json = {COMPONENT_LABEL: component} | ({} if of is None else {GRAPH_LABEL: of})
    metadata = {"name": "p-0", "namespace": "ns", "uid": "u", "resourceVersion": "1", "labels": labels, **more}
    return read_pod(json.dumps({"metadata": metadata, "status": None if phase is None else {"phase": phase}}).encode())


def deployment(*, spec: int, status: int, multinode: object = None) -> Graph:
    obj = graph(replicas=spec, multinode=multinode)
    component = {"replicas": status, "updatedReplicas": spec, "readyReplicas": spec}
    obj["status"] = {"observedGeneration": 1, "components": {"w": component}}
    return read_graph(json.dumps(obj).encode())


def pool(seen: Graph, release: Release, *workers: Worker) -> Pool:
    reach = Reach(release=release)
    (one,) = joined(seen, (), {}, reach=reach, domain=DOMAIN, pods=holding(workers)).deployment.pools
    return one


@pytest.mark.parametrize(
    ("phase", "counts"),
    [(None, 1), ("", 1), ("Pending", 1), ("Running", 1), ("Unknown", 1), ("Succeeded", 0), ("Failed", 0)],
)
def test_a_pod_holds_its_gpus_until_it_is_finished(phase: str | None, counts: int) -> None:
    assert sum(holding([pod(phase)]).values()) == counts
    assert sum(holding([pod(phase, deletionTimestamp="2026-01-01T00:00:00Z")]).values()) == counts


def test_a_pod_is_of_the_deployment_and_component_of_its_labels() -> None:
    one = pod(of="b", component="Decode")
    assert (one.participant, one.component) == (ParticipantId("ns", "b"), "Decode")


@pytest.mark.parametrize("label", [None, "", "No Name", "_"])
def test_a_pod_of_no_deployment_is_nobodys(label: str | None) -> None:
    assert pod(of=label).participant == ParticipantId("ns", "p-0")


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"metadata": {"name": "p"}}', b'{"kind": "Node"}'])
def test_what_is_no_pod_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not PodObject"):
        read_pod(raw)


@pytest.mark.parametrize(("release", "free"), [(Release.SPEC, True), (Release.STATUS, False), (Release.PODS, False)])
def test_what_the_operator_still_shows_counts_unless_the_spec_is_enough(release: Release, *, free: bool) -> None:
    assert pool(deployment(spec=1, status=3), release, pod()).seen_at_most(1) is free


@pytest.mark.parametrize(("release", "free"), [(Release.SPEC, True), (Release.STATUS, True), (Release.PODS, False)])
def test_pods_that_the_operator_shows_no_more_count_where_pods_are_to_be_gone(release: Release, *, free: bool) -> None:
    seen = pool(deployment(spec=1, status=1), release, pod(), pod(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert seen.seen_at_most(1) is free


def test_a_release_is_confirmed_when_both_the_operator_and_the_pods_say_so() -> None:
    assert pool(deployment(spec=1, status=1), Release.PODS, pod(), pod("Succeeded")).seen_at_most(1)


def test_pods_of_another_component_are_not_counted() -> None:
    assert pool(deployment(spec=1, status=1), Release.PODS, pod(), pod(component="other")).seen_at_most(1)


@pytest.mark.parametrize(("pods", "replicas"), [(0, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_replica_on_several_nodes_is_there_as_long_as_one_of_its_pods(pods: int, replicas: int) -> None:
    seen = pool(deployment(spec=1, status=1, multinode={"nodeCount": 2}), Release.PODS, *[pod()] * pods)
    assert seen.present == replicas

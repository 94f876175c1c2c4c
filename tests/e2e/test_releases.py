"""What has to be seen before released GPUs go to another pool, on a real API server."""

from functools import partial
from pathlib import Path

import attrs
import pytest

from gpadapters.kubernetes.cluster import Release
from gpadapters.kubernetes.pods import COMPONENT_LABEL, GRAPH_LABEL
from gpcore.budgets import Budget
from gpcore.control import Rules
from gpcore.decisions import Rejected
from gpcore.events import Failed, Succeeded
from tests.cluster import Behaviour, Client, FakeOperator, components_of, graphs, path_of, pool
from tests.cluster.waiting import eventually
from tests.e2e.planning import Planned, planning

FULL = Rules(budget=Budget(3, 3), deadline_s=60.0)
WORKER = "VllmPrefillWorker"


@pytest.fixture
def fleet(client: Client, namespace: str, operator: FakeOperator) -> FakeOperator:
    """Give two deployments that hold the whole budget: `a` with 2 replicas, `b` with 1; and their operator."""
    for name, replicas in (("a", 2), ("b", 1)):
        client.create(pool(name, replicas=replicas), namespace=namespace)
        eventually(partial(ready, client, graphs(namespace, name)))
    return operator


def ready(client: Client, path: str) -> bool:
    found: bool = client.get(path).get("status", {}).get("state") == "successful"
    return found


@attrs.frozen
class Pod:
    """A pod of deployment `a` that is gone when somebody lets it go."""

    client: Client
    path: str

    @classmethod
    def of(cls, client: Client, namespace: str, name: str) -> "Pod":
        labels = {GRAPH_LABEL: "a", COMPONENT_LABEL: WORKER}
        metadata = {"name": name, "labels": labels, "finalizers": ["test.example/hold"]}
        spec = {"containers": [{"name": "main", "image": "x"}], "automountServiceAccountToken": False}
        client.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, namespace=namespace)
        return cls(client, path_of("v1", "pods", namespace=namespace, name=name))

    def terminate(self) -> None:
        """End it, as the operator does: it stays until its finalizer goes, as one does whose node is lost."""
        self.client.delete(self.path)
        assert self.client.get(self.path)["metadata"]["deletionTimestamp"]

    def let_go(self) -> None:
        self.client.merge(self.path, {"metadata": {"finalizers": None}})


@pytest.fixture
def pods(client: Client, namespace: str) -> list[Pod]:
    client.request(
        "POST",
        path_of("v1", "serviceaccounts", namespace=namespace),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
    )
    return [Pod.of(client, namespace, name) for name in ("a-0", "a-1")]


def stored(client: Client, namespace: str, name: str) -> int:
    components = components_of(client.get(graphs(namespace, name)))
    return next(one.wanted for one in components if one.type == "prefill")


def shown(client: Client, namespace: str, name: str) -> int:
    """Give the replicas that the operator's status shows."""
    status = client.get(graphs(namespace, name))["status"]
    replicas: int = status["components"][WORKER]["replicas"]
    return replicas


async def refused(planned: Planned) -> None:
    """Let `b` wish for one more, for which there is no room until somebody gives one away."""
    assert isinstance(await planned.ask("b", 2), Rejected)


async def test_a_receiver_waits_until_the_donors_pod_is_gone(
    fleet: FakeOperator, pods: list[Pod], client: Client, namespace: str, tmp_path: Path
) -> None:
    assert fleet is not None
    async with planning(client.access, tmp_path, namespace, rules=FULL, release=Release.PODS) as planned:
        await refused(planned)
        given = planned.ask("a", 1)
        await planned.until(lambda: stored(client, namespace, "a") == shown(client, namespace, "a") == 1)
        pods[0].terminate()
        await planned.until(lambda: planned.pool("a").replicas == 1 and planned.pool("a").ready == 1)
        client.merge(graphs(namespace, "b"), {"metadata": {"annotations": {"test.example/news": "x"}}})
        assert (planned.pool("a").present, stored(client, namespace, "b"), given.done()) == (2, 1, False)
        pods[0].let_go()
        assert isinstance(await given, Succeeded)
        assert (stored(client, namespace, "a"), stored(client, namespace, "b")) == (1, 2)


async def test_a_donor_whose_pod_never_goes_gets_its_replicas_back(
    fleet: FakeOperator, pods: list[Pod], client: Client, namespace: str, tmp_path: Path
) -> None:
    assert fleet is not None
    soon = attrs.evolve(FULL, deadline_s=0.5)
    async with planning(client.access, tmp_path, namespace, rules=soon, release=Release.PODS) as planned:
        await refused(planned)
        given = planned.ask("a", 1)
        pods[0].terminate()
        outcome = await given
        assert isinstance(outcome, Failed)
        assert f"did not come free within 0.5 s; still held by {namespace}/a/prefill" in outcome.problem
        assert (stored(client, namespace, "a"), stored(client, namespace, "b")) == (2, 1)
        pods[0].let_go()


async def test_a_receiver_waits_until_the_operator_shows_the_release(
    fleet: FakeOperator, client: Client, namespace: str, tmp_path: Path
) -> None:
    fleet.behave(Behaviour(termination_s=3600))
    async with planning(client.access, tmp_path, namespace, rules=FULL) as planned:
        await refused(planned)
        given = planned.ask("a", 1)
        await planned.until(lambda: planned.pool("a").replicas == 1 and planned.pool("a").ready == 1)
        assert (shown(client, namespace, "a"), stored(client, namespace, "b"), given.done()) == (2, 1, False)
        status = client.get(graphs(namespace, "a"))["status"]["components"]
        gone = {WORKER: status[WORKER] | {"replicas": 1}}
        client.merge(f"{graphs(namespace, 'a')}/status", {"status": {"components": gone}})
        assert isinstance(await given, Succeeded)
        assert stored(client, namespace, "b") == 2


async def test_where_the_spec_is_enough_nobody_waits_for_the_operator(
    fleet: FakeOperator, client: Client, namespace: str, tmp_path: Path
) -> None:
    fleet.pause()
    async with planning(client.access, tmp_path, namespace, rules=FULL, release=Release.SPEC) as planned:
        await refused(planned)
        assert isinstance(await planned.ask("a", 1), Succeeded)
        assert (stored(client, namespace, "a"), shown(client, namespace, "a"), stored(client, namespace, "b")) == (
            1,
            2,
            2,
        )
    fleet.resume()

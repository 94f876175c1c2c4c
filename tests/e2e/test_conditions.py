"""What is seen is incomplete or old: nothing grows, and a condition, a metric and an Event say so; on a real server."""

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from gpadapters.kubernetes.cluster import Release
from gpcore.budgets import Budget
from gpcore.control import Rules
from gpcore.decisions import Rejected
from gpcore.events import Succeeded
from gpcore.pools import ParticipantId
from tests.chaos.faults import Fault
from tests.chaos.proxy import FaultProxy, Rule
from tests.cluster import ApiServer, Client, FakeOperator, Json, eventually, grant, graphs, path_of, pool, rule
from tests.cluster.objects import Component, graph
from tests.e2e.following import QUICK
from tests.e2e.planning import Planned, planning

RULES = Rules(budget=Budget(0, 8))
OFTEN = attrs.evolve(QUICK, relist_s=1.0)
"""Lists often enough to notice soon that a right is gone; an open watch outlives it."""

ALL: Mapping[str, Json] = {
    "deployments": rule(
        ["get", "list", "watch", "patch"], "dynamographdeployments", "dynamographdeploymentscalingadapters"
    ),
    "events": {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
}


def events(client: Client, namespace: str) -> list[Json]:
    return client.items(path_of("events.k8s.io/v1", "events", namespace=namespace))


def told(client: Client, namespace: str, reason: str) -> list[Json]:
    """Give the Events of one reason."""
    return [one for one in events(client, namespace) if one["reason"] == reason]


async def begins(planned: Planned, client: Client, kind: str, reason: str) -> None:
    """Wait until the metrics and an Event say so, and see that nothing may grow and that a pool may shrink."""
    await planned.until(lambda: planned.shows(kind))
    await planned.until(lambda: told(client, planned.namespace, reason))
    (event,) = told(client, planned.namespace, reason)
    assert (event["type"], event["regarding"]["kind"]) == ("Warning", "GPULedger")
    outcome = await planned.ask("a", 3)
    assert isinstance(outcome, Rejected)


async def ends(planned: Planned, client: Client, kind: str, reason: str) -> None:
    """Wait until the metrics and an Event say that it is over, and see that pools may grow."""
    await planned.until(lambda: told(client, planned.namespace, f"{reason}Over"))
    assert not planned.shows(kind)
    assert isinstance(await planned.ask("a", 3), Succeeded)


def odd() -> Json:
    """Build a deployment whose workers ask for half a GPU, which nobody can count."""
    made = graph("odd", (Component("Worker", type="prefill", gpus=1),))
    (component,) = made["spec"]["components"]
    component["podTemplate"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "500m"}}
    return made


@pytest.fixture
def deployed(client: Client, namespace: str, operator: FakeOperator) -> FakeOperator:
    """Give a deployment `a` with 2 replicas of one GPU, and its operator."""
    client.create(pool("a", replicas=2), namespace=namespace)
    eventually(lambda: client.get(graphs(namespace, "a")).get("status", {}).get("state") == "successful")
    return operator


async def test_a_cluster_that_cannot_be_followed(
    deployed: FakeOperator, client: Client, namespace: str, tmp_path: Path
) -> None:
    assert deployed is not None
    with FaultProxy(client.access) as network:
        async with planning(network.access, tmp_path, namespace, rules=RULES) as planned:
            cut = network.rule(Rule(Fault("cut", cut=True), method="GET", path="dynamographdeployments"))
            network.cut()
            await begins(planned, client, "view_stale", "ViewStale")
            network.lift(cut)
            await ends(planned, client, "view_stale", "ViewStale")


async def test_a_deployment_whose_gpus_are_not_known(
    deployed: FakeOperator, client: Client, namespace: str, tmp_path: Path
) -> None:
    deployed.pause()
    async with planning(client.access, tmp_path, namespace, rules=RULES) as planned:
        client.create(odd(), namespace=namespace)
        await begins(planned, client, "shape_unknown", "ShapeUnknown")
        (event,) = told(client, namespace, "ShapeUnknown")
        assert f"the GPUs per replica of {namespace}/odd are not known" in event["note"]
        client.delete(graphs(namespace, "odd"))
        await ends(planned, client, "shape_unknown", "ShapeUnknown")


async def test_an_account_that_loses_its_rights(
    deployed: FakeOperator, cluster: ApiServer, client: Client, namespace: str, tmp_path: Path
) -> None:
    assert deployed is not None
    grant(client, namespace, "planner", ALL.values())
    account = cluster.service_account(namespace, "planner")
    async with planning(account, tmp_path, namespace, rules=RULES, pace=OFTEN) as planned:
        grant(client, namespace, "planner", [ALL["events"]])
        await begins(planned, client, "list_forbidden", "ListForbidden")
        await planned.until(lambda: planned.shows("view_stale"))
        grant(client, namespace, "planner", ALL.values())
        await ends(planned, client, "list_forbidden", "ListForbidden")


async def test_an_account_that_may_not_see_the_pods_that_confirm_releases(
    deployed: FakeOperator, cluster: ApiServer, client: Client, namespace: str, tmp_path: Path
) -> None:
    assert deployed is not None
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    grant(client, namespace, "planner", [*ALL.values(), pods])
    account = cluster.service_account(namespace, "planner")
    async with planning(account, tmp_path, namespace, rules=RULES, pace=OFTEN, release=Release.PODS) as planned:
        assert planned.cluster.observer.conditions == ()
        grant(client, namespace, "planner", ALL.values())
        await begins(planned, client, "pods_unreadable", "PodsUnreadable")
        grant(client, namespace, "planner", [*ALL.values(), pods])
        await ends(planned, client, "pods_unreadable", "PodsUnreadable")


async def test_an_account_that_may_make_no_events_scales_all_the_same_and_says_so(
    deployed: FakeOperator, cluster: ApiServer, client: Client, namespace: str, tmp_path: Path
) -> None:
    assert deployed is not None
    grant(client, namespace, "planner", [ALL["deployments"]])
    account = cluster.service_account(namespace, "planner")
    async with planning(account, tmp_path, namespace, rules=RULES) as planned:
        assert isinstance(await planned.ask("a", 3), Succeeded)
        await planned.until(lambda: planned.shows("events_forbidden"))
        assert events(client, namespace) == []


async def test_each_operation_is_one_event_of_its_deployment_however_often_it_is_told(
    deployed: FakeOperator, client: Client, namespace: str, tmp_path: Path
) -> None:
    assert deployed is not None
    async with planning(client.access, tmp_path, namespace, rules=RULES) as planned:
        assert isinstance(await planned.ask("a", 3), Succeeded)
        await planned.until(lambda: told(client, namespace, "Scaled"))
        await planned.until(lambda: planned.planner.state.ledger.ended)
        (ended,) = planned.planner.state.ledger.ended
        await planned.cluster.events.tell(ended)
        (event,) = told(client, namespace, "Scaled")
        uid = client.get(graphs(namespace, "a"))["metadata"]["uid"]
        assert event["regarding"]["uid"] == uid
        assert str(ParticipantId(namespace, "a")) in event["note"]
        classic = client.items(path_of("v1", "events", namespace=namespace))
        assert [one["involvedObject"]["uid"] for one in classic] == [uid]

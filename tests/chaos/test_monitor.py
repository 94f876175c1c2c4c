import pytest

from tests.chaos.monitor import GapError, Ledgers, Monitor, Sums
from tests.chaos.naive import naive_planners
from tests.cluster import (
    Client,
    FakeOperator,
    Json,
    adapters,
    create_all,
    eventually,
    graphs,
    pool,
)
from tests.cluster.objects import replicas_pointer

CEILING = 8
PATIENCE_S = 60.0


def rewrite(client: Client, namespace: str, name: str, replicas: int) -> None:
    path = graphs(namespace, name)
    pointer = replicas_pointer(client.get(path), "VllmPrefillWorker")
    client.patch(path, [{"op": "replace", "path": pointer, "value": replicas}])


def revision(client: Client, path: str) -> int:
    return int(client.get(path)["metadata"]["resourceVersion"])


def test_each_revision_is_held_against_the_ceiling(client: Client, namespace: str) -> None:
    client.create(pool("a", gpus=2, replicas=2), namespace=namespace)
    with Monitor(client, namespace, ceiling=CEILING) as monitor:
        client.create(pool("b", gpus=1, replicas=4), namespace=namespace)
        assert monitor.found().asked == Sums(revisions=2, highest=8)
        rewrite(client, namespace, "b", 6)
        over = revision(client, graphs(namespace, "b"))
        rewrite(client, namespace, "b", 3)
        rewrite(client, namespace, "a", 3)
        found = monitor.found().asked
    assert found == Sums(revisions=5, over=2, highest=10, first_over=over)
    assert str(found) == f"2 of 5 revisions over, the first {over}; at most 10 GPUs"


def test_what_is_over_from_the_beginning_is_over(client: Client, namespace: str) -> None:
    client.create(pool("a", replicas=9), namespace=namespace)
    with Monitor(client, namespace, ceiling=CEILING) as monitor:
        assert monitor.found().asked.over == 1


def test_nothing_is_asked_for_what_is_deleted(client: Client, namespace: str) -> None:
    client.create(pool("a", replicas=8), namespace=namespace)
    with Monitor(client, namespace, ceiling=CEILING) as monitor:
        client.delete(graphs(namespace, "a"))
        client.create(pool("b", replicas=8), namespace=namespace)
        client.create(pool("a", replicas=0), namespace=namespace)
        assert monitor.found().asked == Sums(revisions=4, highest=8)


def test_the_more_of_an_adapter_and_its_deployment_counts(
    client: Client, namespace: str, operator: FakeOperator
) -> None:
    client.create(pool("a", replicas=2, scaling_adapter=True), namespace=namespace)
    path = adapters(namespace, "a-vllmprefillworker")
    eventually(lambda: client.items(adapters(namespace)))

    def scale(replicas: int) -> None:
        client.patch(path, [{"op": "replace", "path": "/spec/replicas", "value": replicas}])

    operator.pause()
    with Monitor(client, namespace, ceiling=CEILING) as monitor:
        scale(9)
        assert monitor.found().asked.highest == 9, "before the operator has relayed it"
        operator.resume()
        eventually(lambda: client.get(graphs(namespace, "a"))["spec"]["components"][1]["replicas"] == 9)
    operator.pause()
    with Monitor(client, namespace, ceiling=CEILING) as monitor:
        scale(1)
        found = monitor.found().asked
        assert found.over == found.revisions >= 2, "while the deployment still says nine"


def test_what_a_ledger_promises_is_held_against_the_ceiling_too(client: Client, namespace: str) -> None:
    def config_map(promised: int) -> Json:
        data = {"promised": str(promised)}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "main"}, "data": data}

    path = f"/api/v1/namespaces/{namespace}/configmaps"
    ledgers = Ledgers(path, lambda one: int(one["data"]["promised"]))
    with Monitor(client, namespace, ceiling=CEILING, ledgers=ledgers) as monitor:
        client.create(config_map(8), namespace=namespace)
        client.replace(f"{path}/main", config_map(9))
        client.replace(f"{path}/main", config_map(7))
        found = monitor.found()
    assert (found.promised.revisions, found.promised.over, found.promised.highest) == (3, 1, 9)
    assert found.asked == Sums(revisions=1)


def test_a_deployment_that_cannot_be_counted_is_no_deployment_under_the_ceiling(client: Client, namespace: str) -> None:
    odd = pool("a")
    odd["spec"]["components"][1]["podTemplate"]["spec"]["containers"][0]["resources"] = {
        "limits": {"nvidia.com/gpu": "many"}
    }
    with Monitor(client, namespace, ceiling=CEILING) as monitor:
        client.create(odd, namespace=namespace)
        with pytest.raises(GapError, match="nobody can say"):
            monitor.found()


def test_a_history_with_a_gap_is_no_history(client: Client, namespace: str) -> None:
    monitor = Monitor(client, namespace, ceiling=CEILING)
    monitor._tracks[0].begin(1)  # noqa: SLF001 - as if it had been away since the store was empty
    with pytest.raises(GapError, match="too old resource version"):
        eventually(lambda: monitor.so_far().asked.over)


@pytest.mark.timeout(PATIENCE_S + 60)
def test_the_monitor_sees_what_naive_planners_do(client: Client, namespace: str) -> None:
    ceiling = 24
    create_all(client, [pool(f"pool-{number}", replicas=2) for number in range(8)], namespace=namespace)
    with (
        Monitor(client, namespace, ceiling=ceiling) as monitor,
        naive_planners(client, namespace, ceiling=ceiling, count=2, seed=1),
    ):
        found = eventually(lambda: seen if (seen := monitor.so_far().asked).over else None, within_s=PATIENCE_S)
    assert found is not None
    assert found.highest > ceiling

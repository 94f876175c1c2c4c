"""Under the Role of Dynamo's own chart: no watch, no reading of adapters. The planner works, and says what it lacks."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest

from gpcore.pools import Role
from gpcore.ports import Applied
from tests.adapters.cli.running import Daemon, gpctl, started
from tests.cluster import (
    STOCK,
    ApiServer,
    Client,
    FakeOperator,
    Json,
    adapters,
    components_of,
    disaggregated,
    eventually,
    grant,
    graphs,
    pool,
)
from tests.cluster.client import collection_of
from tests.cluster.crds import GRAPHS
from tests.e2e.following import QUICK, following, listed, rewrite

ACCOUNT = "planner-serviceaccount"
KINDS = ["adapters_unreadable", "watch_forbidden", "write_forbidden"]


@attrs.frozen
class Stock:
    """A planner under the stock Role, and where it works."""

    daemon: Daemon
    client: Client
    namespace: str

    def scale(self, name: str, *asked: str) -> Json:
        """Ask for replicas and give the answer."""
        done = gpctl("scale", f"{self.namespace}/{name}", *asked, "-o", "json", server=self.daemon.url)
        answer: Json = json.loads(done.stdout)
        return answer

    def replicas(self, name: str) -> dict[str, int]:
        graph = self.client.get(graphs(self.namespace, name))
        return {one.type: one.wanted for one in components_of(graph) if one.type in {"prefill", "decode"}}

    def get(self, path: str) -> str:
        return httpx.get(f"{self.daemon.url}{path}", trust_env=False).text


@pytest.fixture
def stock(cluster: ApiServer, namespace: str, operator: FakeOperator, tmp_path: Path) -> Iterator[Stock]:
    """Give a planner of at most 10 GPUs; `a` and `b` use 4, `adapted` 2, which its adapter scales."""
    client = cluster.client
    for name in ("a", "b"):
        client.create(pool(name, replicas=2), namespace=namespace)
    client.create(pool("adapted", replicas=2, scaling_adapter=True), namespace=namespace)
    eventually(lambda: client.items(adapters(namespace)))
    assert operator is not None
    access = cluster.service_account(namespace, ACCOUNT)
    grant(client, namespace, ACCOUNT, STOCK)
    kubeconfig = access.write_kubeconfig(tmp_path / "kubeconfig", namespace=namespace)
    flags = ["--kubeconfig", str(kubeconfig), "--kubernetes-namespaces", namespace, "--max-total-gpus", "10"]
    with started("--listen", "127.0.0.1:0", *flags) as daemon:
        yield Stock(daemon, client, namespace)


def test_the_planner_starts_scales_and_says_loudly_what_is_missing(stock: Stock) -> None:
    assert stock.scale("a", "prefill=3")["status"] == "success"
    assert stock.replicas("a") == {"prefill": 3}
    ready = json.loads(stock.get("/readyz"))
    assert ready["status"] == "ready"
    kinds = {one["kind"] for one in ready["conditions"]} - {"events_forbidden"}  # told when the first one is refused
    assert kinds == {*KINDS, "ledger_volatile"}
    told = {one["kind"]: one["detail"] for one in ready["conditions"]}
    assert told["watch_forbidden"].startswith(f"not allowed to watch {GRAPHS} in namespace {stock.namespace}: ")
    metrics = stock.get("/metrics")
    assert all(f'gp_conditions{{kind="{kind}"}} 1.0' in metrics for kind in KINDS)
    stock.daemon.process.terminate()
    _, after = stock.daemon.process.communicate(timeout=15)
    said = [line for line in (stock.daemon.said + after).splitlines() if "MISSING RIGHT" in line]
    assert len([line for line in said if "create events" not in line]) == len(KINDS), "each is told once"


def test_what_somebody_else_has_just_changed_counts_in_the_next_decision(stock: Stock) -> None:
    for theirs, ours, status in ((5, 4, "rejected"), (4, 4, "success"), (5, 5, "rejected")):
        rewrite(stock.client, stock.namespace, "b", theirs)
        answer = stock.scale("a", f"prefill={ours}")
        if status == "success":  # what somebody has lowered is free when the ledger has a mark that shows it
            answer = eventually(partial(_settled, stock, f"prefill={ours}"))
        assert answer["status"] == status, answer


def test_what_has_an_adapter_that_cannot_be_read_is_counted_and_refused_by_name(stock: Stock) -> None:
    refused = stock.scale("adapted", "prefill=3")
    assert (refused["status"], refused["reason"]["kind"]) == ("rejected", "not_scaled")
    assert "VllmPrefillWorker has a scaling adapter, which we may not read" in refused["message"]
    assert stock.replicas("adapted") == {"prefill": 2}
    assert stock.scale("a", "prefill=7")["reason"]["kind"] == "above_ceiling"
    assert json.loads(stock.get("/v1/budget"))["charged"] == 6


def _settled(stock: Stock, asked: str) -> Json:
    """Ask, and give the answer, or nothing while what was lowered is being put on record."""
    answer = stock.scale("a", asked)
    return {} if (answer["reason"] or {}).get("kind") == "unsettled" else answer


async def test_rights_that_come_and_go_are_followed(
    cluster: ApiServer, namespace: str, operator: FakeOperator, tmp_path: Path
) -> None:
    """Whoever applies the printed Role while the planner runs needs not restart it."""
    client = cluster.client
    client.create(disaggregated("a", prefill=2, scaling_adapter=True), namespace=namespace)
    eventually(lambda: len(client.items(adapters(namespace))) == 2)
    access = cluster.service_account(namespace, ACCOUNT)
    grant(client, namespace, ACCOUNT, STOCK)
    pace = attrs.evolve(QUICK, relist_s=0.3, poll_s=0.1)
    printed = gpctl("manifests", "planner", "--namespace", namespace, "--service-account", ACCOUNT, "-o", "json")
    objects = [one for one in json.loads(printed.stdout)["items"] if one["kind"] != "CustomResourceDefinition"]
    assert operator is not None
    async with listed(access, tmp_path, namespace, pace=pace) as follower:
        observer = follower.cluster.observer
        await follower.until(lambda: {one.kind for one in observer.conditions} == {*KINDS})
        assert follower.view["a"].pools == ()
        for one in objects:
            client.request("POST", collection_of(one), one)
        await follower.until(lambda: observer.conditions == ())
        await follower.until(lambda: bool(follower.view["a"].pools))
        assert await follower.apply((follower.pool(), 3)) == Applied()
        for one in reversed(objects):
            client.delete(f"{collection_of(one)}/{one['metadata']['name']}")
        await follower.until(lambda: {one.kind for one in observer.conditions} == {*KINDS})
        await follower.until(lambda: follower.view["a"].unscaled_because(Role.PREFILL) is not None)
        assert not follower.stale
        assert follower.view["a"].totals.charged == 4


async def test_a_refresh_shows_all_that_was_so_when_it_was_asked_for(
    cluster: ApiServer, namespace: str, tmp_path: Path
) -> None:
    client = cluster.client
    client.create(pool("a", replicas=1), namespace=namespace)
    access = cluster.service_account(namespace, ACCOUNT)
    grant(client, namespace, ACCOUNT, STOCK)
    async with following(access, tmp_path, namespace, pace=attrs.evolve(QUICK, poll_s=60.0)) as follower:
        await follower.until(lambda: len(follower.cluster.observer.conditions) == len(KINDS))
        for count in range(2, 12):
            await asyncio.to_thread(rewrite, client, namespace, "a", count)
            await asyncio.gather(*(follower.cluster.observer.refresh() for _ in range(5)))
            assert follower.replicas() == count
